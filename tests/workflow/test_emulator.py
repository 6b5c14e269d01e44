"""Published models through the emulated loader of O2Physics: every species, detector pattern and number of tracks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkout import Checkout

from pidflow.models import load
from pidflow.publish import samples
from pidflow.publish.names import p_limits
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.tracks import DETECTOR_PATTERNS, O2_MASKED, o2_label

COUNTS = (1, 7, 4096)
TOLERANCE = 1e-6


def tracks(observed: np.ndarray, features: tuple[str, ...], pattern: int | None, count: int) -> O2Tracks:
    """Return observed tracks as the framework holds them, above all limits in momentum.

    A detector that the pattern lacks did not see them; with no pattern, each track has another one. What the
    framework masks is there nevertheless, as a sentinel.
    """
    number = np.arange(count) % len(DETECTOR_PATTERNS) if pattern is None else np.full(count, pattern)
    raw = np.resize(observed, (count, observed.shape[1]))
    masked = [features.index(name) for names in O2_MASKED.values() for name in names if name in features]
    raw[:, masked] = np.nan_to_num(raw[:, masked], nan=-999.0)
    columns = {o2_label(name): raw[:, place] for place, name in enumerate(features)}
    return O2Tracks(columns, np.full(count, 2.0, np.float32), (number & 1) > 0, (number & 2) > 0)


def given(published: Path, trained: Path, dataset: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Yield name, count, what the loader answers one by one or together, and what the model does."""
    model = load(trained)
    info = model.info
    observed = samples.from_dataset(dataset, info.features, max(COUNTS))
    observed = observed[~np.isnan(observed).any(axis=1)]
    loaded = [O2PidModel(published, pdg, limits=p_limits(info.masks)) for pdg in info.species]
    for pattern, name in [*enumerate(DETECTOR_PATTERNS), (None, "mixed")]:
        for count in COUNTS:
            seen = tracks(observed, info.features, pattern, count)
            expected = model.score(loaded[0].inputs(seen))
            for place, one in enumerate(loaded):
                yield f"{one.pdg} {name}", count, one.apply_batch(seen), expected[:, place]
                if count < max(COUNTS):
                    yield f"{one.pdg} {name}, one by one", count, one.apply(seen), expected[:, place]
                assert one.failures == 0


@pytest.mark.parametrize("run", [900001, 900002])
def test_certainties_are_the_models_own(production: Checkout, run: int, capsys: pytest.CaptureFixture[str]) -> None:
    folder = production.folder / f"results/{run}"
    worst, where, seen = 0.0, "", set()
    for name, count, answer, expected in given(
        folder / "publication", folder / "train/fse_adapted", folder / "dataset/simulation.parquet"
    ):
        assert answer.shape == (count,) and np.isfinite(answer).all()
        seen.add((name.split(",")[0], count))
        difference = float(np.abs(answer - expected).max())
        worst, where = max((worst, where), (difference, f"{name}, {count} tracks"))
    assert len(seen) == 6 * (len(DETECTOR_PATTERNS) + 1) * len(COUNTS)
    with capsys.disabled():
        print(f"\nrun {run}: worst difference {worst:.1e} ({where})")
    assert worst <= TOLERANCE
