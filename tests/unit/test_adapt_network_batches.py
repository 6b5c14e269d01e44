"""Batches of both samples that a training step is given: partners, columns, weights and hidden detectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adapt_runs import (
    FEATURES,
    SPECIES,
    STEPS,
    adapt,
    folder_fixture,  # noqa: F401
    model_fixture,  # noqa: F401
    seen,
    train,
    watched_inputs,
    with_column,
)
from models_sample import content, library_state  # noqa: F401

from pidflow.adapt import network
from pidflow.adapt.network import Partners, patterns
from pidflow.adapt.steps.base import Batch, Domains
from pidflow.errors import PidflowError
from pidflow.models import load
from pidflow.tracks import WEIGHT
from pidflow.train.data import read_features, read_tracks
from pidflow.train.network import class_loss

pytestmark = pytest.mark.usefixtures("library_state")


# partners of data


def test_partners_have_the_pattern_of_their_tracks() -> None:
    torch.manual_seed(0)
    own = torch.tensor([0, 1, 3, 2] * 500)
    other = torch.tensor([3, 0, 0, 1, 0, 3, 0, 5] * 3)
    rows = torch.randperm(2000)
    found = Partners(own, other).draw(rows)
    asked = own[rows]
    there = asked != 2
    assert torch.equal(other[found][there], asked[there])
    # data has no track of pattern 2: any will do, and each track of the others comes as often
    for pattern in range(4):
        share = torch.bincount(found[asked == pattern], minlength=24) / 500
        allowed = other == pattern if pattern != 2 else torch.ones(24, dtype=torch.bool)
        assert torch.equal(share > 0, allowed)
        assert (share[allowed] - 1 / allowed.sum()).abs().max() < 4 / 500**0.5 / allowed.sum() ** 0.5


def test_patterns_are_those_of_the_calibration(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load(model).trained  # type: ignore[attr-defined]
    features = read_features(folder / "data.parquet", "train", FEATURES)
    monkeypatch.setattr(network, "_ROWS", 70)
    found = patterns(trained, features).numpy()
    np.testing.assert_array_equal(found, 2 * ~np.isnan(features[:, 1]))


@pytest.mark.parametrize(("step", "balanced"), [("dann", True), ("mcc", False)])
def test_batches_of_both_samples(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, balanced: bool
) -> None:
    """The data has TOF on a third of the tracks that have it in simulation."""
    table = pq.read_table(folder / "data.parquet")
    beta = table["beta"].to_numpy().copy()
    beta[np.random.default_rng(0).random(len(beta)) < 2 / 3] = np.nan
    pq.write_table(with_column(table, "beta", pa.array(beta, from_pandas=True)), tmp_path / "data.parquet")
    features = read_features(tmp_path / "data.parquet", "train", FEATURES)
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, network.step_of(STEPS[step]["kind"]))
    adapt(folder, model, tmp_path / "m", data=tmp_path / "data.parquet", step=step)
    assert len(inputs) == len(batches) > 20
    known = {row.tobytes(): label for row, label in zip(own.features, own.labels, strict=True)}
    tof = []
    for raw, batch in zip(inputs, batches, strict=True):
        assert len(raw) == len(batch.vectors) == len(batch.logits) == 2 * batch.size == 128
        np.testing.assert_array_equal(raw[64:].numpy(), features[batch.rows.numpy()])
        for row, label in zip(raw[:64].numpy(), batch.labels.numpy(), strict=True):
            np.testing.assert_array_equal(known[row.tobytes()], label)
        tof.append((~torch.isnan(raw[:, 1])).reshape(2, -1))
    simulated, measured = torch.cat(tof, dim=1)
    assert torch.equal(simulated, measured) == balanced
    if not balanced:
        assert abs(measured.float().mean() - np.mean(~np.isnan(features[:, 1]))) < 0.03
    # of the epochs after those alone
    progress = [batch.progress for batch in batches]
    alone = len(progress) // 3 if step == "dann" else 0
    assert progress[: alone + 1] == [0.0] * (alone + 1)
    np.testing.assert_allclose(np.diff(progress[alone:]), 1 / (len(progress) - alone), atol=1e-9)


@pytest.mark.parametrize("per_track", [1, 3])
def test_others_are_the_steps_own(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_track: int
) -> None:
    """A step that wants the validation tracks of data, in another order, several for each labelled one."""
    wanted = read_features(folder / "data.parquet", "validation", FEATURES)[::-1].copy()

    class Own(network.step_of("mmd")):  # type: ignore[misc]
        others_per_track = per_track

        def others(self, domains: Domains) -> Any:
            assert domains.species == SPECIES
            return wanted

        def penalty(self, batch: Batch) -> torch.Tensor:
            return batch.vectors.sum() * 0.0

    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, Own)
    monkeypatch.setattr(network, "step_of", lambda kind: Own)
    adapt(folder, model, tmp_path / "m", step="mmd", epochs=1)
    assert len(inputs) == len(batches) > 10
    drawn = np.zeros(len(wanted), int)
    for raw, batch in zip(inputs, batches, strict=True):
        assert batch.size == 64 and len(raw) == len(batch.vectors) == 64 * (1 + per_track) == 64 + len(batch.rows)
        np.testing.assert_array_equal(raw[64:].numpy(), wanted[batch.rows.numpy()])
        # balanced: of the pattern of the labelled track beside which they are
        tof = ~torch.isnan(raw[:, 1]).reshape(1 + per_track, 64)
        assert (tof == tof[0]).all()
        drawn += np.bincount(batch.rows.numpy(), minlength=len(wanted))
    assert (drawn > 0).mean() > 0.7


@pytest.mark.parametrize(("step", "betas"), [("dann", (0.5, 0.9)), ("adversary", (0.5, 0.9)), ("mmd", (0.9, 0.99)),
                                             ("flatness", (0.9, 0.99)), ("self_training", (0.9, 0.99))])  # fmt: skip
def test_adversaries_are_trained_with_less_momentum(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, betas: tuple[float, float]
) -> None:
    found = []
    optimiser = torch.optim.AdamW

    def watched(*arguments: Any, **options: Any) -> torch.optim.AdamW:
        found.append(options["betas"])
        return optimiser(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", watched)
    adapt(folder, model, tmp_path / "m", step=step, epochs=1)
    assert found == [betas]


def test_decorrelation_draws_true_tracks_of_the_protected_species(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES)
    inputs = watched_inputs(model, monkeypatch)
    batches = seen(monkeypatch, network.step_of("decorrelate"))
    adapt(folder, model, tmp_path / "m", step="flatness", species=(2212,))
    known = {row.tobytes() for row in own.features[own.labels[:, 2] > 0]}
    assert len(batches) > 20
    for raw, batch in zip(inputs, batches, strict=True):
        assert len(batch.rows) == 2 * batch.size
        assert {row.tobytes() for row in raw[batch.size :].numpy()} <= known
    first = adapt(folder, model, tmp_path / "first", step="flatness", species=(211,))
    assert content(first)["weights.safetensors"] != content(tmp_path / "m")["weights.safetensors"]


def test_decorrelation_of_an_unknown_species_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PidflowError, match="the model has no certainty of species -11; correct 'species'"):
        adapt(folder, model, tmp_path / "m", step="flatness", species=(-11,))


# columns, weights and hidden detectors


def test_columns_of_a_batch_are_those_of_its_tracks(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protected column is one of the features here, so that both can be compared."""
    batches = seen(monkeypatch, network.step_of("decorrelate"))
    inputs = watched_inputs(model, monkeypatch)
    adapt(folder, model, tmp_path / "m", step="flatness", column="p")
    for raw, batch in zip(inputs, batches, strict=True):
        assert torch.equal(raw[: batch.size, FEATURES.index("p")], batch.columns["p"])


@pytest.mark.parametrize("weighted", [True, False])
def test_weights_of_a_batch_are_those_of_its_tracks(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    """A track weighs its momentum here, which is one of the features, so that both can be compared."""
    table = pq.read_table(folder / "simulation.parquet")
    if weighted:
        table = table.append_column(WEIGHT.name, table["p"])
    pq.write_table(table, tmp_path / "simulation.parquet")
    batches = seen(monkeypatch, network.step_of("mmd"))
    inputs = watched_inputs(model, monkeypatch)
    adapt(folder, model, tmp_path / "m", simulation=tmp_path / "simulation.parquet", step="mmd")
    mean = float(
        read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES).features[:, FEATURES.index("p")].mean()
    )
    assert len(inputs) == len(batches) > 20
    for raw, batch in zip(inputs, batches, strict=True):
        expected = raw[: batch.size, FEATURES.index("p")] / mean if weighted else torch.ones(batch.size)
        torch.testing.assert_close(batch.weights, expected)


def test_weights_of_tracks_reach_the_loss(folder: Path, model: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "simulation.parquet")
    for name, number in {"ones": None, "few": 321}.items():
        pdg = table["pdg_code"].to_numpy()
        weight = np.where(pdg == number, 0.05, 1.0).astype(np.float32)
        pq.write_table(table.append_column(WEIGHT.name, pa.array(weight)), tmp_path / f"{name}.parquet")
        adapt(folder, model, tmp_path / name, simulation=tmp_path / f"{name}.parquet", step="mmd", learning_rate=0.01)
    plain = adapt(folder, model, tmp_path / "plain", step="mmd", learning_rate=0.01)
    assert content(plain) == content(tmp_path / "ones")
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    certainty = {name: load(tmp_path / name).score(test.features)[:, 1].mean() for name in ("plain", "few")}
    assert certainty["few"] < 0.8 * certainty["plain"]
    # calibration counts them too: of the sum of all weights, the second species has 0.05/(2 + 0.05)
    assert certainty["few"] < 0.3


def test_weight_of_species_is_undone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = train(folder, tmp_path / "source", balance_species=1.0)
    own = read_tracks(folder / "simulation.parquet", "train", FEATURES, SPECIES).labels.mean(axis=0)

    def watched(logits: Any, labels: Any, tracks: Any = None, species: Any = None) -> torch.Tensor:
        np.testing.assert_allclose(species.numpy(), (1 - own) / own, rtol=1e-5)
        return class_loss(logits, labels, tracks, species)

    monkeypatch.setattr(network, "class_loss", watched)
    places = (source, adapt(folder, source, tmp_path / "m", step="deep_coral"))
    test = read_tracks(folder / "simulation.parquet", "test", FEATURES, SPECIES)
    for place in places:
        certainty = load(place).score(test.features)
        np.testing.assert_allclose(certainty.mean(axis=0), test.labels.mean(axis=0), atol=0.03)
    losses = [pq.read_table(place / "history.parquet")["validation_loss"].to_pylist() for place in places]
    # of one and the same weighted loss
    assert losses[1][0] < 1.2 * min(losses[0])


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_detectors_are_hidden_as_from_the_source(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probability: float
) -> None:
    source = train(folder, tmp_path / "source", hide_detector=probability, epochs=2)
    hidden: list[float] = []
    hide = network.hide

    def watched(raw: torch.Tensor, *options: Any) -> torch.Tensor:
        result = hide(raw, *options)
        hidden.append(float(result[:, 0].isnan().float().mean()))
        return result

    monkeypatch.setattr(network, "hide", watched)
    adapt(folder, source, tmp_path / "m", step="mmd")
    assert bool(hidden) == bool(probability)
    assert not hidden or np.mean(hidden) == pytest.approx(0.5, abs=0.05)
