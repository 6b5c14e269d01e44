"""Calibration error by hand, on calibrated and on over-confident scores."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_evaluate_metrics import compute
from test_evaluate_sample import write_dataset, write_scores

from pidflow.evaluate.calibration import certainty_bin, reliability


def test_bins_are_of_equal_width_and_hold_their_lower_edge():
    certainty = np.array([0.0, 0.06, 0.07, 0.5, 14.01 / 15, 1.0], np.float32)
    assert certainty_bin(certainty).tolist() == [0, 0, 1, 7, 14, 14]


def test_reliability_by_hand():
    certainty = np.array([0.02, 0.04, 0.99, 1.0, 0.97, np.nan], np.float32)
    low, high = reliability(certainty, np.array([0, 1, 1, 1, 0, 1], bool), 0.68)
    assert (low.n, high.n) == (2, 3)
    assert low.certainty == pytest.approx(0.03) and high.certainty == pytest.approx(2.96 / 3)
    assert low.share.value == 0.5 and high.share.value == pytest.approx(2 / 3)
    assert (low.low, low.high, high.low, high.high) == (0.0, 1 / 15, 14 / 15, 1.0)
    assert high.share.low < 2 / 3 < high.share.high


def test_error_follows_from_the_bins_and_tells_calibrated_from_overconfident(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=9000)
    errors = {}
    # the signals are 7 % wide
    for width in (0.07, 0.02):
        metrics = compute(tmp_path, dataset, write_scores(tmp_path / "s.parquet", dataset, width=width, hidden=0.3))
        for part in metrics.species:
            n = sum(each.n for each in part.calibration)
            expected = sum(each.n * abs(each.certainty - each.share.value) for each in part.calibration) / n
            assert part.overall.ece.value == pytest.approx(expected)
            assert 0.65 * metrics.n_tracks < n < 0.75 * metrics.n_tracks
        assert metrics.macro.ece.value == pytest.approx(np.mean([part.overall.ece.value for part in metrics.species]))
        assert metrics.macro.ece.low < metrics.macro.ece.high
        errors[width] = metrics.macro.ece.value
    assert errors[0.02] > 1.3 * errors[0.07]


def test_a_method_that_scores_no_track_of_a_pattern_has_no_error_there(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=2000)
    scores = write_scores(tmp_path / "scores.parquet", dataset, null_without_tof=True)
    pion = compute(tmp_path, dataset, scores).species[0]
    assert pion.patterns[0].ece.value is None
    with_tof = pq.read_table(dataset, filters=[("split", "==", "test"), ("has_tof", "==", True)]).num_rows
    assert sum(each.n for each in pion.calibration) == with_tof


def test_species_without_true_tracks_has_no_error(tmp_path):
    dataset = write_dataset(tmp_path / "dataset.parquet", n_tracks=2000, truth=(211, 321, 2212))
    species = (211, 321, 2212, 1000010020)
    scores = write_scores(tmp_path / "scores.parquet", dataset, species=species)
    metrics = compute(tmp_path, dataset, scores, species=species)
    assert metrics.species[3].overall.ece.value is None
    assert metrics.macro.ece.value == pytest.approx(np.mean([part.overall.ece.value for part in metrics.species[:3]]))
