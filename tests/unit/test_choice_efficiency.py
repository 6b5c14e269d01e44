"""Efficiencies to expect of the chosen model, and their errors."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from choice_sample import EDGES, ROW, SPECIES, looked

from pidflow.adapt.choice.efficiency import Selected, efficiencies
from pidflow.adapt.choice.sample import Looked
from pidflow.adapt.sample import VARIATION, VARIATIONS
from pidflow.tracks import WEIGHT


def by_hand(selected: Selected, score: Any, tracks: Looked) -> dict[tuple[int, float, float], tuple[float, float]]:
    """Return efficiency and effective number of true tracks of each species and bin."""
    assert tracks.labels is not None
    certainty, pt = score(tracks.features), tracks.number("pt")
    edges, result = selected.pt_edges, {}
    for s, pdg in enumerate(selected.species):
        for low, high in [*itertools.pairwise(edges), (edges[0], edges[-1])]:
            own = [n for n in range(len(pt)) if tracks.labels[n, s] and low <= pt[n] < high]
            total = sum(tracks.weights[n] for n in own)
            square = sum(tracks.weights[n] ** 2 for n in own)
            kept = sum(tracks.weights[n] for n in own if certainty[n, s] >= selected.threshold)
            result[pdg, low, high] = (kept / total, total**2 / square) if own else (float("nan"), 0.0)
    return result


@dataclass
class Counted:
    """Tracks whose features are certainties, and what is known of their efficiencies."""

    selected: Selected
    tables: list[Looked]


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    rng = np.random.default_rng(4)
    names = ("tpc_signal", "beta", "trd_signal")

    def tracks(n: int, better: float) -> Looked:
        number = rng.integers(0, 4, n)
        labels = number[:, None] == np.arange(3)
        certainty = np.clip(rng.uniform(0.0, 0.8, (n, 3)) + better * labels, 0, 1)
        certainty[rng.random((n, 3)) < 0.02] = np.nan
        pt = rng.choice([0.1, 0.2, 0.3, 0.5, 0.7, 1.5, 3.0, 4.0], n)
        # the last species is in the lowest bin a handful of times, and never in the one above
        pt[(number == 2) & (pt < 1.0) & (np.arange(n) > n // 30)] = 2.0
        pt[(number == 2) & (pt < 1.0) & (pt > 0.4)] = 2.0
        return looked(certainty, labels, pt=pt, weights=rng.uniform(0.2, 2.0, n))

    target, plain = tracks(900, 0.3), tracks(700, 0.4)
    varied = [tracks(800, 0.3 + 0.02 * rng.normal()) for _ in range(VARIATIONS)]
    parts = []
    for number, own in enumerate(varied):
        columns = {name: own.features[:, place] for place, name in enumerate(names)}
        pdg = np.where(own.labels.any(axis=1), np.array(SPECIES)[own.labels.argmax(axis=1)], 11)  # type: ignore[union-attr]
        columns |= {"pt": own.number("pt"), "pdg_code": pa.array(pdg, pa.int32(), mask=pdg == 11)}
        columns |= {WEIGHT.name: own.weights, VARIATION: np.full(len(pdg), number, np.int8)}
        parts.append(pa.table(columns))
    pq.write_table(pa.concat_tables(parts), tmp_path / "variations.parquet")
    selected = Selected(target, plain, tmp_path / "variations.parquet", names, SPECIES, 0.5, EDGES)
    return Counted(selected, varied)


def plain_score(features: Any) -> Any:
    return features


SCORES = {"one": plain_score, "two": lambda features: 0.9 * features, "three": lambda features: 1.1 * features}


def test_efficiencies_are_those_of_a_count_by_hand(counted: Counted) -> None:
    selected = counted.selected
    rows = efficiencies(selected, SCORES, "two")
    assert all(list(row) == ROW for row in rows)
    of_model = {name: by_hand(selected, score, selected.target) for name, score in SCORES.items()}
    unadapted = by_hand(selected, SCORES["two"], selected.plain)
    varied = [by_hand(selected, SCORES["two"], own) for own in counted.tables]
    expected = [bin for bin, (_, tracks) in of_model["two"].items() if tracks >= 5]
    assert [(row["pdg"], row["pt_low"], row["pt_high"]) for row in rows] == expected
    assert 3 * len(EDGES) - len(expected) == 2
    for bin, row in zip(expected, rows, strict=True):
        nominal, tracks = of_model["two"][bin]
        every = [found[bin][0] for found in of_model.values()]
        response = np.std([found[bin][0] for found in varied], ddof=1)
        methods = (max(every) - min(every)) / 2
        statistical = max(np.sqrt(nominal * (1 - nominal) / tracks), 1 / tracks)
        numbers = (
            round(tracks, 1),
            nominal,
            statistical,
            response,
            methods,
            np.hypot(response, methods),
            unadapted[bin][0],
        )
        for name, number in zip(ROW[3:], numbers, strict=True):
            assert row[name] == pytest.approx(number, abs=6e-7), name
        assert row["response"] > 0 and row["methods"] > 0 and row["unadapted"] != row["efficiency"]


def test_only_accepted_candidates_make_the_systematic(counted: Counted) -> None:
    alone = efficiencies(counted.selected, {"two": SCORES["two"]}, "two")
    assert all(row["methods"] == 0.0 and row["systematic"] == row["response"] > 0 for row in alone)


@pytest.mark.parametrize("empty", [False, True])
def test_without_variations_the_response_adds_nothing(counted: Counted, tmp_path: Path, empty: bool) -> None:
    """A step that knows no errors leaves an empty file, and may have given no weights."""
    path = tmp_path / "empty.parquet" if empty else None
    if path is not None:
        assert counted.selected.variations is not None
        pq.write_table(pq.read_table(counted.selected.variations).slice(0, 0).drop_columns(WEIGHT.name), path)
    selected = Selected(**{**vars(counted.selected), "variations": path})
    rows = efficiencies(selected, SCORES, "two")
    assert rows and all(row["response"] == 0.0 and row["systematic"] == row["methods"] for row in rows)


def test_variations_without_weights_count_each_track_once(counted: Counted, tmp_path: Path) -> None:
    assert counted.selected.variations is not None
    table = pq.read_table(counted.selected.variations)
    pq.write_table(table.drop_columns(WEIGHT.name), tmp_path / "plain.parquet")
    place = table.schema.get_field_index(WEIGHT.name)
    pq.write_table(table.set_column(place, WEIGHT.name, pa.array(np.ones(len(table)))), tmp_path / "ones.parquet")
    plain, ones, weighted = (
        efficiencies(Selected(**{**vars(counted.selected), "variations": path}), SCORES, "two")
        for path in (tmp_path / "plain.parquet", tmp_path / "ones.parquet", counted.selected.variations)
    )
    assert plain == ones != weighted


@pytest.mark.parametrize(
    ("weights", "kept", "tracks", "error"),
    [
        ([1.0] * 4, 4, None, None),
        ([1.0] * 5, 5, 5.0, 0.2),
        ([1.0] * 5, 0, 5.0, 0.2),
        ([1.0] * 100, 100, 100.0, 0.01),
        ([1.0] * 100, 50, 100.0, 0.05),
        # worth less than their number: (Σ w)² / Σ w²
        ([10.0] + [1.0] * 9, 10, None, None),
        ([3.0] + [1.0] * 9, 10, 8.0, 0.125),
    ],
)
def test_bins_of_very_few_tracks_are_left_out(
    weights: list[float], kept: int, tracks: float | None, error: float | None
) -> None:
    """Of fewer than five tracks nobody expects an efficiency; the error never exceeds that of a track of five."""
    certainty = np.where(np.arange(len(weights)) < kept, 1.0, 0.0)[:, None]
    own = looked(certainty, np.ones((len(weights), 1)), weights=weights)
    rows = efficiencies(Selected(own, own, None, ("x",), (211,), 0.5, (0.5, 2.0)), {"one": plain_score}, "one")
    if tracks is None:
        assert rows == []
    else:
        assert len(rows) == 2
        for row in rows:
            assert (row["tracks"], row["statistical"]) == (tracks, pytest.approx(error, abs=1e-6))
            assert row["statistical"] <= 0.25
