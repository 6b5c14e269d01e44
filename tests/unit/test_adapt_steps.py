"""Steps of adaptation that train a network: their losses against independent calculations, and what they achieve."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from models_sample import library_state  # noqa: F401
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from pidflow.adapt import reversal
from pidflow.adapt.means import Means
from pidflow.adapt.steps import cdan, decorrelate, deep_coral, kinds, mcc, mmd, self_training, settings_of, step_of
from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep
from pidflow.errors import PidflowError
from pidflow.models.base import Tracks
from pidflow.train.engine import Average

pytestmark = pytest.mark.usefixtures("library_state")

TRAINING = ("cdan", "dann", "deep_coral", "decorrelate", "mcc", "mmd", "self_training")
WIDTH, SPECIES, HALF = 3, 2, 6
PDG = (211, 321)


def domains(tracks: int = 40, seed: int = 0, pt: Any = None) -> Domains:
    """Return samples of whose simulated tracks each third is of either species, the others of none."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(tracks)[:, None] % 3 == np.arange(SPECIES)).astype(np.uint8)
    simulation = Tracks(rng.normal(size=(tracks, 2)).astype(np.float32), labels)
    columns = {"pt": rng.exponential(size=tracks).astype(np.float32) if pt is None else np.asarray(pt, np.float32)}
    return Domains(simulation, rng.normal(size=(tracks, 2)).astype(np.float32), ("p", "beta"), columns, PDG)


def batch(seed: int = 0, progress: float = 0.5, others: int = HALF, **changes: Any) -> Batch:
    """Return a batch of HALF simulated and so many other tracks; every vector, logit and column is random."""
    torch.manual_seed(seed)
    content: dict[str, Any] = {
        "vectors": torch.randn(HALF + others, WIDTH, requires_grad=True),
        "logits": torch.randn(HALF + others, SPECIES, requires_grad=True),
        "labels": functional.one_hot(torch.arange(HALF) % 3, 3)[:, :SPECIES].float(),
        "weights": torch.ones(HALF),
        "columns": {"pt": torch.rand(HALF) * 3},
        "rows": torch.arange(others),
        "progress": progress,
    }
    return Batch(**content | changes)


def made(kind: str, both: Domains | None = None, **settings: Any) -> Any:
    """Return a step of a kind that has seen both samples, with its networks built."""
    torch.manual_seed(3)
    step: Any = step_of(kind)(settings_of(kind).model_validate({"kind": kind} | settings))
    both = both or domains()
    step.others(both)
    step.networks(Sizes(WIDTH, SPECIES), both)
    step.memory(both)
    return step


# settings


@pytest.mark.parametrize("kind", TRAINING)
def test_settings_of_a_step(kind: str) -> None:
    assert kind in kinds()
    settings: Any = settings_of(kind)()
    assert settings.kind == kind and settings.epochs >= 8 and settings.strength > 0
    assert issubclass(step_of(kind), TrainingStep)
    for key, value in {"strength": 0.0, "epochs": 0, "unknown": 1}.items():
        with pytest.raises(ValidationError):
            settings_of(kind).model_validate({key: value})


@pytest.mark.parametrize(
    ("kind", "settings", "alone", "frozen", "balanced"),
    [
        ("self_training", {}, 0, False, False),
        ("dann", {}, 1, False, True),
        ("dann", {"discriminator_epochs": 3, "discriminator": "first"}, 3, True, True),
        ("cdan", {"discriminator_epochs": 2}, 2, False, True),
        ("mmd", {}, 0, False, True),
        ("deep_coral", {}, 0, False, True),
        ("mcc", {}, 0, False, False),
        ("decorrelate", {"method": "flatness", "adversary_epochs": 2}, 0, False, False),
        ("decorrelate", {"method": "adversary", "adversary_epochs": 2}, 2, False, False),
    ],
)
def test_how_a_step_is_trained(
    kind: str, settings: Mapping[str, Any], alone: int, frozen: bool, balanced: bool
) -> None:
    step = made(kind, **settings)
    assert (step.alone, step.frozen, step.balanced) == (alone, frozen, balanced)


@pytest.mark.parametrize("kind", TRAINING)
def test_tracks_beside_the_labelled_ones_are_those_of_data(kind: str) -> None:
    both = domains(pt=np.arange(40))
    step = made(kind, both)
    if kind == "decorrelate":
        own = np.arange(40)[np.arange(40) % 3 < 2]
        np.testing.assert_array_equal(step.others(both), both.simulation.features[own])
        assert (step.others_per_track, step.columns()) == (2, ("pt",))
    else:
        assert step.others(both) is both.data
        assert (step.others_per_track, step.columns()) == (1, ())


@pytest.mark.parametrize("kind", [kind for kind in TRAINING if kind != "self_training"])
def test_figures_are_the_means_of_an_epoch(kind: str) -> None:
    step = made(kind, **({"method": "adversary"} if kind == "decorrelate" else {}))
    first = [float(step.penalty(batch(seed)).detach()) for seed in (1, 2)]
    figures = step.figures()
    assert figures and all(math.isfinite(value) for value in figures.values())
    scale = 1.0 if kind in ("dann", "cdan", "decorrelate") else step.settings.strength
    assert next(iter(figures.values())) * scale == pytest.approx(np.mean(first), rel=1e-5)
    step.penalty(batch(5))
    assert step.figures() != figures and step.figures() == {}


def test_means() -> None:
    means = Means()
    assert means.take() == {}
    for one, two in ((1.0, 2.0), (4.0, 5.0), (4.0, -4.0)):
        means.add(one=torch.tensor(one, requires_grad=True), two=torch.tensor(two))
    assert means.take() == {"one": 3.0, "two": 1.0}
    means.add(one=torch.tensor(7.0))
    assert means.take() == {"one": 7.0}


# adversaries


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_reversed_gradient(strength: float) -> None:
    values = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(4, 3)
    passed = reversal.ReverseGradient.apply(values, strength)
    assert torch.equal(passed, values)
    (passed * weight).sum().backward()
    torch.testing.assert_close(values.grad, -strength * weight)


def test_strength_grows_from_nothing_to_its_final_value() -> None:
    assert reversal.strength_at(0.0, 0.7) == 0.0
    for progress in (0.1, 0.5, 1.0):
        # 2/(1 + e⁻²ˣ) − 1 is tanh x
        assert reversal.strength_at(progress, 0.7) == pytest.approx(0.7 * math.tanh(5 * progress))
    assert reversal.strength_at(1.0, 0.7) == pytest.approx(0.7, rel=1e-4)


@pytest.mark.parametrize("outputs", [1, 5])
def test_discriminator_sizes(outputs: int) -> None:
    network = reversal.discriminator(3, 7, outputs)
    assert network(torch.zeros(4, 3)).shape == (4, outputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3 * 7 + 7 + 7 * 7 + 7 + (7 + 1) * outputs


@pytest.mark.parametrize("weighted", [False, True])
def test_domain_loss_is_the_cross_entropy(weighted: bool) -> None:
    torch.manual_seed(1)
    guess = torch.randn(8, 1)
    weight = torch.rand(8) if weighted else torch.ones(8)
    loss, accuracy = reversal.domain_loss(guess, weight)
    total = right = 0.0
    for track in range(8):
        certainty = 1 / (1 + math.exp(-float(guess[track])))
        total -= float(weight[track]) * math.log(certainty if track >= 4 else 1 - certainty)
        right += float(weight[track]) * ((certainty > 0.5) == (track >= 4))
    assert float(loss) == pytest.approx(total / float(weight.sum()), rel=1e-5)
    assert float(accuracy) == pytest.approx(right / float(weight.sum()))


@pytest.mark.parametrize(("schedule", "strength"), [("rising", 0.2 * math.tanh(5 * 0.1)), ("constant", 0.2)])
def test_dann_gradient_is_reversed_for_the_encoder_only(schedule: str, strength: float) -> None:
    step = made("dann", strength=0.2, schedule=schedule)
    given = batch(progress=0.1)
    step.penalty(given).backward()
    own = [parameter.grad.clone() for parameter in step._domain.parameters()]
    step._domain.zero_grad()
    plain = given.vectors.detach().requires_grad_()
    reversal.domain_loss(step._domain(plain), torch.ones(2 * HALF))[0].backward()
    assert plain.grad is not None and plain.grad.abs().max() > 1e-3
    torch.testing.assert_close(given.vectors.grad, -strength * plain.grad)
    for one, other in zip(own, step._domain.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_cdan_input_is_the_outer_product() -> None:
    given = batch()
    vectors, certainty = given.vectors.detach().numpy(), given.logits.detach().sigmoid().numpy()
    expected = np.stack([np.outer(c, v).ravel() for c, v in zip(certainty, vectors, strict=True)])
    found = cdan.joint(given.vectors, given.logits.sigmoid())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_cdan_weights_are_those_of_the_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, -1.0], [50.0, -200.0], [0.5, 4.0], [1.0, 1.0], [-2.0, 0.0]])
    expected = []
    for row in logits.tolist():
        entropy = 0.0
        for logit in row:
            p = 1 / (1 + math.exp(-logit))
            entropy -= sum(share * math.log(share) for share in (p, 1 - p) if share > 0)
        expected.append(1 + math.exp(-entropy / 2))
    raw = np.array(expected)
    normal = np.concatenate([raw[:3] / raw[:3].mean(), raw[3:] / raw[3:].mean()])
    found = cdan.sureness(logits).numpy()
    np.testing.assert_allclose(found, normal, rtol=1e-5)
    # of a track of which nothing is known: 1 + 1/2; of a sure one: 2
    assert found[0] / found[2] == pytest.approx(0.75)


@pytest.mark.parametrize("entropy", [False, True])
def test_cdan_conditions_carry_no_gradient(entropy: bool) -> None:
    step = made("cdan", entropy=entropy, strength=0.4)
    given = batch(progress=1.0)
    loss = step.penalty(given)
    certainty = given.logits.detach().sigmoid()
    weight = cdan.sureness(given.logits.detach()) if entropy else torch.ones(2 * HALF)
    plain = given.vectors.detach().requires_grad_()
    expected = reversal.domain_loss(step._domain(cdan.joint(plain, certainty)), weight)[0]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.backward()
    expected.backward()
    assert given.logits.grad is None and plain.grad is not None
    torch.testing.assert_close(given.vectors.grad, -0.4 * math.tanh(5.0) * plain.grad)


# distances


WEIGHTS = [torch.ones(HALF), torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 0.1])]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_mmd_is_the_unbiased_estimate(weights: torch.Tensor) -> None:
    widths = (0.5, 3.0)
    vectors = batch().vectors.detach() + torch.arange(2 * HALF)[:, None].ge(HALF) * 0.7
    x = vectors.double().numpy()
    squared = [[float(((a - b) ** 2).sum()) for b in x] for a in x]
    scale = np.mean([squared[i][j] for i in range(12) for j in range(12) if i != j])

    def kernel(i: int, j: int) -> float:
        return sum(math.exp(-squared[i][j] / (width * scale)) for width in widths) / len(widths)

    def mean(first: int, second: int, pairs: list[tuple[int, int]]) -> float:
        share = [float(weights[i] * weights[j]) for i, j in pairs]
        values = [kernel(first + i, second + j) for i, j in pairs]
        return sum(w * value for w, value in zip(share, values, strict=True)) / sum(share)

    every = [(i, j) for i in range(HALF) for j in range(HALF)]
    different = [(i, j) for i, j in every if i != j]
    expected = mean(0, 0, different) + mean(HALF, HALF, different) - 2 * mean(0, HALF, every)
    assert float(mmd.discrepancy(vectors, weights, widths)) == pytest.approx(expected, abs=1e-6)
    penalty = made("mmd", strength=3.0, widths=widths).penalty(batch(vectors=vectors, weights=weights))
    assert float(penalty) == pytest.approx(3 * expected, abs=3e-6)


def test_mmd_of_equal_samples_is_nought_on_average() -> None:
    torch.manual_seed(0)
    found = [float(mmd.discrepancy(torch.randn(16, 2), torch.ones(8), (1.0,))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    apart = torch.cat([torch.randn(8, 2), torch.randn(8, 2) + 1.5])
    assert float(mmd.discrepancy(apart, torch.ones(8), (1.0,))) > 3 * np.std(found)


def test_gradient_of_mmd_is_that_of_fixed_widths() -> None:
    vectors = batch().vectors
    mmd.discrepancy(vectors, torch.ones(HALF), (1.0,)).backward()
    moved, step = vectors.detach().double(), 1e-5
    distance = torch.cdist(moved, moved).square()
    scale = float(distance.sum() / (12 * 11))

    def fixed(values: torch.Tensor) -> float:
        kernel = torch.exp(-torch.cdist(values, values).square() / scale)
        one, other = kernel[:HALF, :HALF], kernel[HALF:, HALF:]
        pairs = HALF * (HALF - 1)
        within = (one.sum() - one.trace() + other.sum() - other.trace()) / pairs
        return float(within - 2 * kernel[:HALF, HALF:].mean())

    for track, axis in ((0, 0), (3, 2), (8, 1)):
        change = torch.zeros_like(moved)
        change[track, axis] = step
        expected = (fixed(moved + change) - fixed(moved - change)) / (2 * step)
        assert vectors.grad is not None
        assert float(vectors.grad[track, axis]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coral_is_the_distance_of_covariances(weights: torch.Tensor) -> None:
    vectors = batch().vectors.detach()
    one, other = (np.cov(half.numpy().T, aweights=weights.numpy()) for half in vectors.chunk(2))
    expected = np.linalg.norm(one - other, "fro") ** 2 / (4 * WIDTH**2)
    assert float(deep_coral.distance(vectors, weights)) == pytest.approx(expected, rel=1e-5)
    penalty = made("deep_coral", strength=2.0).penalty(batch(vectors=vectors, weights=weights))
    assert float(penalty) == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["dann", "cdan"])
def test_a_weight_stands_for_so_many_tracks_and_partners(kind: str) -> None:
    given = batch()
    weights = torch.tensor([2.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    step = made(kind, **({"entropy": False} if kind == "cdan" else {}))
    rows = torch.repeat_interleave(torch.arange(HALF), weights.long())
    both = torch.cat([rows, HALF + rows])
    repeated = Batch(given.vectors[both], given.logits[both], given.labels[rows], torch.ones(8), {}, both, 0.5)
    found, expected = (float(step.penalty(each).detach()) for each in (replace(given, weights=weights), repeated))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(float(step.penalty(given).detach()), rel=1e-3)


# confusion


def test_confusion_is_that_of_the_publication() -> None:
    logits = batch(1).logits.detach() * 3
    temperature = 1.7
    rows = [[*row, 0.0] for row in logits.tolist()]
    shares, weights = [], []
    for row in rows:
        odds = [math.exp(value / temperature) for value in row]
        shares.append([value / sum(odds) for value in odds])
        weights.append(1 + math.exp(sum(p * math.log(p) for p in shares[-1])))
    classes = range(SPECIES + 1)
    weights = [len(rows) * weight / sum(weights) for weight in weights]
    total = 0.0
    for one in classes:
        line = [sum(w * p[one] * p[two] for w, p in zip(weights, shares, strict=True)) for two in classes]
        total += sum(line[two] for two in classes if two != one) / sum(line)
    assert float(mcc.confusion(logits, temperature)) == pytest.approx(total / len(classes), rel=1e-5)


def test_gradient_of_the_confusion_is_that_of_fixed_weights() -> None:
    logits = batch(1).logits
    mcc.confusion(logits, 1.7).backward()
    start = logits.detach().double()
    share = torch.softmax(functional.pad(start, (0, 1)) / 1.7, dim=1)
    weight = 1 + torch.exp((share * share.log()).sum(dim=1))

    def fixed(values: torch.Tensor) -> float:
        share = torch.softmax(functional.pad(values, (0, 1)) / 1.7, dim=1)
        together = torch.einsum("ni,n,nj->ij", share, weight, share)
        return float(1 - (together.diagonal() / together.sum(dim=1)).mean())

    for track, head in ((0, 0), (4, 1), (9, 0)):
        change = torch.zeros_like(start)
        change[track, head] = 1e-5
        expected = (fixed(start + change) - fixed(start - change)) / 2e-5
        assert logits.grad is not None
        assert float(logits.grad[track, head]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_confusion_is_that_of_data_and_falls_with_sureness() -> None:
    step = made("mcc", strength=0.5, temperature=2.0)
    given = batch()
    loss = step.penalty(given)
    assert float(loss.detach()) == pytest.approx(0.5 * float(mcc.confusion(given.logits[HALF:].detach(), 2.0)))
    loss.backward()
    assert given.logits.grad is not None
    assert given.logits.grad[:HALF].abs().max() == 0 < given.logits.grad[HALF:].abs().max()
    sure = torch.tensor([[40.0, -40.0], [-40.0, 40.0], [-40.0, -40.0]])
    assert float(mcc.confusion(sure, 1.0)) < 1e-6 < float(mcc.confusion(sure * 0, 1.0))
    assert float(mcc.confusion(sure * 0, 1.0)) == pytest.approx(2 / 3)


# decorrelation


def test_bins_are_equally_full_of_a_species() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.integers(0, 3, 3000)[:, None] == np.arange(2)).astype(np.uint8)
    column = (rng.exponential(size=3000) * (1 + labels[:, 1])).astype(np.float32)
    column[:50] = np.nan
    found = decorrelate.edges(column, labels, 4)
    assert found.shape == (2, 3) and found.dtype == np.float32
    for own, inner in zip(labels.T > 0, found, strict=True):
        values = column[own & ~np.isnan(column)]
        np.testing.assert_allclose(np.bincount(np.digitize(values, inner)), len(values) / 4, atol=1)
    assert found[1, 1] > 1.5 * found[0, 1]


def test_unevenness_is_the_sum_over_pairs() -> None:
    torch.manual_seed(2)
    logits = torch.randn(9) * 2
    number = torch.tensor([0, 0, 0, 2, 2, 4, 1, 1, 1])
    used = [n for n in range(9) if n != 5]  # a lone track tells nothing of its bin
    values = [float(logits[n]) for n in used]
    soft = decorrelate._SOFT * float(np.std(values, ddof=1))
    total = 0.0
    for threshold in values:
        passed = {n: 1 / (1 + math.exp(-(float(logits[n]) - threshold) / soft)) for n in used}
        squares = {}
        for name, tracks in {"all": used, **{k: [n for n in used if number[n] == k] for k in (0, 1, 2)}}.items():
            pairs = [passed[i] * passed[j] for i in tracks for j in tracks if i != j]
            squares[name] = sum(pairs) / len(pairs)
        total += (3 * squares[0] + 3 * squares[1] + 2 * squares[2]) / 8 - squares["all"]
    assert float(decorrelate.unevenness(logits, number, 5)) == pytest.approx(total / 8, abs=1e-5)


def test_unevenness_of_few_tracks_is_that_of_many_on_average() -> None:
    """It estimates the efficiency's variance over bins, and nought where there is none, however few the tracks."""
    torch.manual_seed(0)
    number = torch.arange(4000) % 4
    flat, sloped = torch.randn(4000), torch.randn(4000) + number * 0.5
    for logits in (flat, sloped):
        own = logits.numpy()
        thresholds = np.quantile(own, np.arange(0.01, 1, 0.02))
        efficiency = np.array([[(own[number == k] > t).mean() for k in range(4)] for t in thresholds])
        expected = float(efficiency.var(axis=1).mean())
        picks = [torch.randperm(4000)[:24] for _ in range(600)]
        found = [float(decorrelate.unevenness(logits[rows], number[rows], 4)) for rows in picks]
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 600**0.5 + 1e-3)
    assert expected > 0.02
    assert float(decorrelate.unevenness(sloped, number, 4)) == pytest.approx(
        float(decorrelate.unevenness(sloped * 5 + 3, number, 4)), rel=1e-3
    )


@pytest.mark.parametrize(("species", "heads"), [((), (0, 1)), ((321,), (1,)), ((211,), (0,)), ((321, 211), (0, 1))])
def test_others_are_true_tracks_of_the_protected_species(species: tuple[int, ...], heads: tuple[int, ...]) -> None:
    pt = np.where(np.arange(60) % 5 == 4, np.nan, np.arange(60) + 100.0 * (np.arange(60) % 3))
    both = domains(60, pt=pt)
    step = made("decorrelate", both, species=species, bins=4)
    rows = [n for n in range(60) if n % 3 in heads and n % 5 != 4]
    np.testing.assert_array_equal(step.others(both), both.simulation.features[rows])
    np.testing.assert_array_equal(step._head, [n % 3 for n in rows])
    # a species' tracks are in rising pt: equal quarters of them are its bins
    for head in heads:
        own = [number for n, number in zip(rows, step._number, strict=True) if n % 3 == head]
        assert own == sorted(own) and len(own) == 16
        assert np.bincount(own).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("species", [(999,), (321, 999)])
def test_species_that_the_model_does_not_know_is_refused(species: tuple[int, ...]) -> None:
    with pytest.raises(PidflowError, match="the model has no certainty of species 999; correct 'species' of the step"):
        made("decorrelate", species=species)


@pytest.mark.parametrize(
    ("species", "pt"),
    [((), np.full(40, np.nan)), ((321,), np.where(np.arange(40) % 3 == 1, np.nan, 1))],
)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_species_without_a_track_to_protect_is_refused(species: tuple[int, ...], pt: Any) -> None:
    named = ", ".join(map(str, species))
    with pytest.raises(PidflowError, match=rf"no training track of species \[{named}\] has a value of 'pt'; correct"):
        made("decorrelate", domains(pt=pt), species=species)


KNOWN = [(0, 0), (0, 1), (0, 1), (0, 2), (0, 2), (0, 2), (1, 1), (1, 1), (1, 2), (1, 2), (1, 0)]
"""Species and bin of the others of `protected`; of either species, one is alone in its bin."""


def protected(**settings: Any) -> tuple[Any, Batch]:
    """Return a step of three bins, and a batch with others of which species and bin are known."""
    step = made("decorrelate", domains(72, pt=np.arange(72)), bins=3, **settings)
    taken: dict[tuple[int, int], int] = {}
    rows = []
    for cell in KNOWN:
        own = np.flatnonzero((step._head == cell[0]) & (step._number == cell[1]))
        assert len(own) == 8
        rows.append(own[taken.get(cell, 0)])
        taken[cell] = taken.get(cell, 0) + 1
    return step, batch(others=len(KNOWN), rows=torch.from_numpy(np.array(rows)), progress=1.0)


@pytest.mark.parametrize("method", ["flatness", "adversary"])
def test_only_the_own_head_of_the_others_is_decorrelated(method: str) -> None:
    step, given = protected(method=method)
    # the labels of the batch itself do not matter
    relabelled = replace(given, labels=1 - given.labels, columns={})
    loss = step.penalty(given)
    assert float(step.penalty(relabelled).detach()) == float(loss.detach())
    loss.backward()
    assert given.logits.grad is not None and given.vectors.grad is None
    touched = {(int(n), int(s)) for n, s in given.logits.grad.nonzero()}
    own = {(HALF + n, head) for n, (head, _) in enumerate(KNOWN)}
    # of the flatness, a lone track tells nothing of its bin
    assert touched == (own if method == "adversary" else own - {(HALF, 0), (HALF + len(KNOWN) - 1, 1)})


def test_flatness_is_the_mean_over_the_protected_species() -> None:
    step, given = protected(strength=3.0)
    logits = given.logits.detach()[HALF:]
    number = torch.tensor([number for _, number in KNOWN])
    parts = [
        decorrelate.unevenness(logits[own, head], number[own], 3) for head, own in ((0, range(6)), (1, range(6, 11)))
    ]
    assert float(step.penalty(given).detach()) == pytest.approx(3.0 * float(sum(parts)) / 2, rel=1e-5)
    # a species of which there is no track in the batch costs nothing, but counts
    alone = Batch(
        given.vectors[: HALF + 6], given.logits[: HALF + 6], given.labels, given.weights, {}, given.rows[:6], 1.0
    )
    assert float(step.penalty(alone).detach()) == pytest.approx(3.0 * float(parts[0]) / 2, rel=1e-5)


def test_bins_of_one_track_each_cost_nothing() -> None:
    step, given = protected()
    lone = Batch(
        given.vectors[: HALF + 2], given.logits[: HALF + 2], given.labels, given.weights, {}, given.rows[:2], 1.0
    )
    loss = step.penalty(lone)
    loss.backward()
    assert float(loss.detach()) == 0.0 and given.logits.grad is not None and not given.logits.grad.any()


def test_adversary_of_a_column_is_reversed() -> None:
    step, given = protected(method="adversary", strength=0.5)
    loss = step.penalty(given)
    logits = given.logits.detach().requires_grad_()
    parts = []
    for track, (head, number) in enumerate(KNOWN):
        code = torch.zeros(SPECIES)
        code[head] = 1.0
        guess = step._adversary(torch.cat([logits[HALF + track, head].reshape(1), code]))
        parts.append(-torch.log_softmax(guess, dim=0)[number])
    expected = torch.stack(parts).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    expected.backward()
    assert logits.grad is not None
    torch.testing.assert_close(given.logits.grad, -0.5 * math.tanh(5.0) * logits.grad)


# self-training


def mixture(tracks: int, share: tuple[float, ...], seed: int, width: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return classes of tracks and their certainties, those of a classifier that knows equal shares."""
    rng = np.random.default_rng(seed)
    own = rng.choice(len(share), tracks, p=share)
    signal = own + width * rng.normal(size=tracks)
    density = np.exp(-0.5 * ((signal[:, None] - np.arange(len(share))) / width) ** 2) + 1e-12
    return own, density / density.sum(axis=1, keepdims=True)


def test_certainties_are_those_of_the_heads_and_of_none() -> None:
    logits = np.array([[-2.0, -1.0], [3.0, 2.0], [0.0, 0.0], [1000.0, -1000.0]], np.float32)
    found = self_training.certainties(logits)
    for row, expected in zip(found, logits.astype(float), strict=True):
        each = [1 / (1 + math.exp(-min(30, max(-30, value)))) for value in expected]
        every = [*each, max(1e-6, 1 - sum(each))]
        np.testing.assert_allclose(row, np.array(every) / sum(every), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_corrected_certainties_are_those_of_an_explicit_maximisation(weighted: bool) -> None:
    """Share and posterior in turn, for each bin by itself, with 200 tracks of the simulation's composition."""
    rng = np.random.default_rng(5)
    _, simulated = mixture(900, (0.5, 0.3, 0.2), 1, 0.4)
    _, measured = mixture(700, (0.2, 0.2, 0.6), 2, 0.4)
    bins = rng.integers(0, 3, 700), rng.integers(0, 2, 900)  # no simulated track in the last bin
    weights = rng.uniform(0.2, 2.0, 900).astype(np.float32) if weighted else None
    found = self_training.corrected(measured, simulated, *bins, weights)
    expected = measured.copy()
    for number in (0, 1):
        own = [n for n in range(700) if bins[0][n] == number]
        known = [n for n in range(900) if bins[1][n] == number]
        weight = [1.0 if weights is None else float(weights[n]) for n in known]
        before = [sum(w * simulated[n, k] for w, n in zip(weight, known, strict=True)) / sum(weight) for k in range(3)]
        share = before
        for _ in range(50):
            total = [200.0 * part for part in before]
            for n in own:
                odds = [measured[n, k] * share[k] / before[k] for k in range(3)]
                expected[n] = [value / sum(odds) for value in odds]
                total = [one + part for one, part in zip(total, expected[n], strict=True)]
            following = [one / (len(own) + 200.0) for one in total]
            moved = max(abs(one - other) for one, other in zip(following, share, strict=True))
            share = following
            if moved < 1e-6:
                break
    np.testing.assert_allclose(found, expected[:, :2], rtol=1e-9)
    np.testing.assert_array_equal(found[bins[0] == 2], measured[bins[0] == 2, :2])
    assert np.abs(found - measured[:, :2]).max() > 0.1


def test_yields_of_data_are_found_where_tracks_are_many() -> None:
    share = (0.7, 0.05, 0.25)
    _, simulated = mixture(30_000, (1 / 3, 1 / 3, 1 / 3), 1, 0.4)
    own, measured = mixture(30_000, share, 2, 0.4)
    bins = np.zeros(30_000, int)
    found = self_training.corrected(measured, simulated, bins, bins, None)
    true = np.array([(own == k).mean() for k in range(2)])
    np.testing.assert_allclose(found.mean(axis=0), true, atol=0.012)
    assert np.abs(measured[:, :2].mean(axis=0) - true).max() > 0.05
    assert (found >= 0).all() and (found.sum(axis=1) <= 1 + 1e-9).all()
    # of few tracks, the simulation's composition stays
    few = self_training.corrected(measured[:10], simulated, bins[:10], bins, None)
    assert np.abs(few - measured[:10, :2]).max() < 0.1


def test_corrected_certainties_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(3)
    _, simulated = mixture(500, (0.5, 0.3, 0.2), 1, 0.4)
    _, measured = mixture(400, (0.2, 0.2, 0.6), 2, 0.4)
    bins, weights = (rng.integers(0, 2, 400), rng.integers(0, 2, 500)), rng.uniform(0.5, 2.0, 500).astype(np.float32)
    found = self_training.corrected(measured, simulated, *bins, weights)
    data, simulation = rng.permutation(400), rng.permutation(500)
    other = self_training.corrected(
        measured[data], simulated[simulation], bins[0][data], bins[1][simulation], weights[simulation]
    )
    np.testing.assert_allclose(other, found[data], rtol=1e-9)


def test_bins_are_of_momentum_charge_and_detectors() -> None:
    rng = np.random.default_rng(0)
    names = ("tpc_signal", "trd_signal", "beta", "sign", "p")
    parts = []
    for tracks, scale in ((300, 1.0), (400, 2.0)):
        features = rng.exponential(scale, (tracks, 5)).astype(np.float32)
        features[:, 3] = rng.choice([-1.0, 1.0], tracks)
        for column in (1, 2):
            features[rng.random(tracks) < 0.4, column] = np.nan
        parts.append(features)
    both = Domains(Tracks(parts[0], np.zeros((300, 2), np.uint8)), parts[1], names)
    edges = np.quantile(parts[1][:, 4], [0.25, 0.5, 0.75])
    found = [self_training.bins_of(part, both, 4) for part in parts]
    cells: dict[int, set[tuple[Any, ...]]] = {}
    for part, numbers in zip(parts, found, strict=True):
        for row, number in zip(part, numbers, strict=True):
            cell = (int((row[4] >= edges).sum()), row[3] > 0, *np.isnan(row[1:3]))
            cells.setdefault(int(number), set()).add(cell)
    assert all(len(own) == 1 for own in cells.values())
    assert len(cells) == len(set().union(*cells.values())) == 4 * 2 * 4
    # what is no feature has one bin
    few = Domains(both.simulation, parts[1][:, :1], names[:1])
    assert set(self_training.bins_of(parts[1][:, :1], few, 4)) == {0}


def self_trained(seed: int = 0) -> tuple[Any, Domains]:
    both = domains(60, seed)
    return made("self_training", both, bins=2, tolerance=0.01, strength=0.5), both


def logits_of(features: Any, offset: float = 0.0) -> Any:
    return np.stack([features[:, 0] + offset, -features[:, 0] - 1.0], axis=1).astype(np.float32)


def test_self_training_stops_once_labels_stay() -> None:
    step, both = self_trained()
    changes = []
    labels: list[Any] = []
    # of the third score, hardly anything is new
    for epoch, (offset, goes_on) in enumerate([(0.0, True), (0.5, True), (0.5001, False), (1.0, True)]):
        assert step.begin(epoch, both, lambda part, by=offset: logits_of(part, by)) is goes_on
        probability = [self_training.certainties(logits_of(p, offset)) for p in (both.data, both.simulation.features)]
        bins = [self_training.bins_of(part, both, 2) for part in (both.data, both.simulation.features)]
        labels.append(self_training.corrected(*probability, *bins, None))
        np.testing.assert_allclose(step._labels.values, labels[-1], rtol=1e-6)
        changes.append(step.figures()["label_change"])
    assert math.isnan(changes[0])
    for number in (1, 2, 3):
        assert changes[number] == pytest.approx(np.abs(labels[number] - labels[number - 1]).mean(), rel=1e-3)
    assert changes[2] < 0.01 < changes[1]


def test_self_training_without_tolerance_never_stops() -> None:
    both = domains(60)
    step = made("self_training", both, tolerance=0.0)
    assert all(step.begin(epoch, both, logits_of) for epoch in range(3))
    assert step.figures() == {"label_change": 0.0}


def test_labels_of_data_are_the_targets_of_the_other_half() -> None:
    step, both = self_trained()
    step.begin(0, both, logits_of)
    rows = torch.tensor([7, 3, 3, 50, 0, 12])
    given = batch(rows=rows)
    loss = step.penalty(given)
    total = 0.0
    for logits, label in zip(given.logits.detach()[HALF:].tolist(), step._labels.values[rows].numpy(), strict=True):
        for logit, target in zip(logits, label, strict=True):
            certainty = 1 / (1 + math.exp(-logit))
            total -= target * math.log(certainty) + (1 - target) * math.log(1 - certainty)
    assert float(loss.detach()) == pytest.approx(0.5 * total / (HALF * SPECIES), rel=1e-5)
    loss.backward()
    assert given.logits.grad is not None and not given.logits.grad[:HALF].any()
    assert given.logits.grad[HALF:].abs().min() > 0


def test_simulated_weights_count_in_the_yields() -> None:
    step, both = self_trained()
    weight = np.where(both.simulation.features[:, 0] > 0, 9.0, 0.1).astype(np.float32)
    tracks = Tracks(both.simulation.features, both.simulation.labels, weight)
    step.begin(0, Domains(tracks, both.data, both.features, both.columns, PDG), logits_of)
    probability = [self_training.certainties(logits_of(part)) for part in (both.data, tracks.features)]
    bins = [self_training.bins_of(part, both, 2) for part in (both.data, tracks.features)]
    plain, weighted = (self_training.corrected(*probability, *bins, each) for each in (None, weight))
    np.testing.assert_allclose(step._labels.values, weighted, rtol=1e-6)
    assert np.abs(plain - weighted).max() > 5e-4


# what they achieve


def trained(step: Any, sample: Any, steps: int, seed: int = 0) -> nn.Module:
    """Return the average of an encoder and a head, trained on batches of a sample, by a step or without.

    A step's figures are then those of the last 100 batches.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8)), nn.Linear(8, 1))
    others = None if step is None else torch.from_numpy(step.others(sample.domains))
    own = nn.ModuleDict() if step is None else nn.ModuleDict(step.networks(Sizes(8, 1), sample.domains))
    # a long memory of gradients makes adversaries circle round each other
    optimiser = torch.optim.AdamW([*network.parameters(), *own.parameters()], 5e-3, betas=(0.5, 0.9))
    average = Average(network, 0.98)
    for number in range(steps):
        raw, labels = sample(256)
        rows = torch.zeros(0, dtype=torch.int64)
        if others is not None:
            rows = torch.randint(len(others), (256 * step.others_per_track,))
            raw = torch.cat([raw, others[rows]])
        vectors = network[0](raw)
        logits = network[1](vectors)
        loss = functional.binary_cross_entropy_with_logits(logits[:256], labels)
        if step is not None:
            if number == steps - 100:
                step.figures()
            loss = loss + step.penalty(Batch(vectors, logits, labels, torch.ones(256), {}, rows, number / steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(number)
    return average.network


class Shifted:
    """Simulation and data whose second feature is shifted; the first one tells the species."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        raw, labels = self(4000)
        tracks = Tracks(raw.numpy(), labels.numpy().astype(np.uint8))
        self.domains = Domains(tracks, self.data(4000).numpy(), ("p", "beta"), {}, (211,))

    def __call__(self, tracks: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (tracks, 1)).float()
        raw = torch.randn(tracks, 2)
        raw[:, :1] += 3.0 * labels
        return raw, labels

    def data(self, tracks: int) -> torch.Tensor:
        raw, _ = self(tracks)
        return raw + torch.tensor([0.0, 2.0])


def told_apart(network: nn.Module) -> float:
    """Return the accuracy with which a new discriminator tells simulation from data by their vectors."""
    torch.manual_seed(99)
    domain = reversal.discriminator(8, 32)
    optimiser = torch.optim.Adam(domain.parameters(), 3e-3)
    right = []
    sample = Shifted()
    for _ in range(300):
        simulation, data = sample(256)[0], sample.data(256)
        with torch.no_grad():
            vectors = network[0](torch.cat([simulation, data]))  # type: ignore[index]
        loss, accuracy = reversal.domain_loss(domain(vectors), torch.ones(512))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(float(accuracy))
    return float(np.mean(right[-50:]))


def area(network: nn.Module, sample: Any) -> float:
    torch.manual_seed(98)
    simulation, labels = sample(4000)
    with torch.no_grad():
        return float(roc_auc_score(labels.numpy(), network(simulation).numpy()))


@pytest.mark.parametrize("kind", ["dann", "cdan"])
def test_encoder_beats_the_discriminator(kind: str) -> None:
    accuracy, auc = {}, {}
    for strength in (1e-9, 3.0):
        step: Any = step_of(kind)(settings_of(kind).model_validate({"kind": kind, "strength": strength}))
        network = trained(step, Shifted(), 500)
        accuracy[strength], auc[strength] = step.figures()["domain_accuracy"], area(network, Shifted())
    assert accuracy[1e-9] > 0.75
    assert accuracy[3.0] - 0.5 < 0.5 * (accuracy[1e-9] - 0.5)
    assert auc[3.0] > auc[1e-9] - 0.02


def test_discrepancy_hides_the_domain_even_from_a_new_discriminator() -> None:
    before = trained(None, Shifted(), 400)
    assert told_apart(before) > 0.8
    after = trained(mmd.Step(mmd.Settings(strength=3.0)), Shifted(), 400)
    assert told_apart(after) < 0.65
    assert area(after, Shifted()) > area(before, Shifted()) - 0.01


class Sloped:
    """Tracks whose first feature tells the species the better the higher the second one, which is pt."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        raw, labels = self(4000)
        tracks = Tracks(raw.numpy(), labels.numpy().astype(np.uint8))
        self.domains = Domains(tracks, raw.numpy(), ("p", "beta"), {"pt": raw[:, 1].numpy()}, (211,))

    def __call__(self, tracks: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (tracks, 1)).float()
        pt = torch.rand(tracks)
        return torch.stack([torch.randn(tracks) + labels[:, 0] * (1.0 + 2.5 * pt), pt], dim=1), labels


def spread(network: nn.Module, sample: Any) -> float:
    """Return the deviation of the efficiency over bins of pt, where it is 80 % on average."""
    torch.manual_seed(97)
    raw, labels = sample(20_000)
    own = labels[:, 0] > 0
    with torch.no_grad():
        logits = network(raw[own])[:, 0].numpy()
    passed, pt = logits > np.quantile(logits, 0.2), raw[own, 1].numpy()
    return float(np.std([passed[(pt * 5).astype(int) == number].mean() for number in range(5)]))


@pytest.mark.parametrize(("method", "strength"), [("flatness", 10.0), ("adversary", 1.0)])
def test_decorrelated_efficiency_is_flat(method: str, strength: float) -> None:
    sample = Sloped()
    before = trained(None, sample, 600)
    step = decorrelate.Step(decorrelate.Settings(method=method, strength=strength))
    after = trained(step, sample, 600)
    assert spread(before, sample) > 0.08
    assert spread(after, sample) < 0.5 * spread(before, sample)
    assert area(after, sample) > area(before, sample) - 0.03
