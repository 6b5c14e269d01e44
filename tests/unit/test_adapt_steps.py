"""Steps of adaptation that train a network: their losses against independent calculations, and what they achieve."""

import math
from collections.abc import Mapping
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
from pidflow.adapt.steps import cdan, decorrelate, deep_coral, kinds, mcc, mmd, settings_of, step_of
from pidflow.adapt.steps.base import Batch, Domains, Sizes, TrainingStep
from pidflow.models.base import Tracks
from pidflow.train.engine import Average

pytestmark = pytest.mark.usefixtures("library_state")

TRAINING = ("cdan", "dann", "deep_coral", "decorrelate", "mcc", "mmd")
WIDTH, SPECIES, HALF = 3, 2, 6


def domains(tracks: int = 40, seed: int = 0) -> Domains:
    rng = np.random.default_rng(seed)
    labels = (np.arange(tracks)[:, None] % 3 == np.arange(SPECIES)).astype(np.uint8)
    simulation = Tracks(rng.normal(size=(tracks, 2)).astype(np.float32), labels)
    columns = {"pt": rng.exponential(size=tracks).astype(np.float32)}
    return Domains(simulation, rng.normal(size=(tracks, 2)).astype(np.float32), ("p", "beta"), columns)


def batch(seed: int = 0, progress: float = 0.5, **changes: Any) -> Batch:
    """Return a batch of HALF + HALF tracks; every vector, logit and column is random."""
    torch.manual_seed(seed)
    content: dict[str, Any] = {
        "vectors": torch.randn(2 * HALF, WIDTH, requires_grad=True),
        "logits": torch.randn(2 * HALF, SPECIES, requires_grad=True),
        "labels": functional.one_hot(torch.arange(HALF) % 3, 3)[:, :SPECIES].float(),
        "columns": {"pt": torch.rand(HALF) * 3},
        "rows": torch.arange(HALF),
        "progress": progress,
    }
    return Batch(**content | changes)


def made(kind: str, **settings: Any) -> Any:
    """Return a step of a kind, with its networks built."""
    torch.manual_seed(3)
    step: Any = step_of(kind)(settings_of(kind).model_validate({"kind": kind} | settings))
    step.networks(Sizes(WIDTH, SPECIES), domains())
    return step


# settings


@pytest.mark.parametrize("kind", TRAINING)
def test_settings_of_a_step(kind: str) -> None:
    assert kind in kinds()
    settings: Any = settings_of(kind)()
    assert settings.kind == kind and settings.epochs == 8 and settings.strength > 0
    assert issubclass(step_of(kind), TrainingStep)
    for key, value in {"strength": 0.0, "epochs": 0, "unknown": 1}.items():
        with pytest.raises(ValidationError):
            settings_of(kind).model_validate({key: value})


@pytest.mark.parametrize(
    ("kind", "settings", "alone", "frozen", "balanced"),
    [
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
    loss, accuracy = reversal.domain_loss(guess, weight if weighted else None)
    total = right = 0.0
    for track in range(8):
        certainty = 1 / (1 + math.exp(-float(guess[track])))
        total -= float(weight[track]) * math.log(certainty if track >= 4 else 1 - certainty)
        right += (certainty > 0.5) == (track >= 4)
    assert float(loss) == pytest.approx(total / 8, rel=1e-5)
    assert float(accuracy) == pytest.approx(right / 8)


@pytest.mark.parametrize(("schedule", "strength"), [("rising", 0.2 * math.tanh(5 * 0.1)), ("constant", 0.2)])
def test_dann_gradient_is_reversed_for_the_encoder_only(schedule: str, strength: float) -> None:
    step = made("dann", strength=0.2, schedule=schedule)
    given = batch(progress=0.1)
    step.penalty(given).backward()
    own = [parameter.grad.clone() for parameter in step._domain.parameters()]
    step._domain.zero_grad()
    plain = given.vectors.detach().requires_grad_()
    reversal.domain_loss(step._domain(plain))[0].backward()
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
    found = cdan.weights(logits).numpy()
    np.testing.assert_allclose(found, normal, rtol=1e-5)
    # of a track of which nothing is known: 1 + 1/2; of a sure one: 2
    assert found[0] / found[2] == pytest.approx(0.75)


@pytest.mark.parametrize("entropy", [False, True])
def test_cdan_conditions_carry_no_gradient(entropy: bool) -> None:
    step = made("cdan", entropy=entropy, strength=0.4)
    given = batch(progress=1.0)
    loss = step.penalty(given)
    certainty = given.logits.detach().sigmoid()
    weight = cdan.weights(given.logits.detach()) if entropy else None
    plain = given.vectors.detach().requires_grad_()
    expected = reversal.domain_loss(step._domain(cdan.joint(plain, certainty)), weight)[0]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.backward()
    expected.backward()
    assert given.logits.grad is None and plain.grad is not None
    torch.testing.assert_close(given.vectors.grad, -0.4 * math.tanh(5.0) * plain.grad)


# distances


def test_mmd_is_the_unbiased_estimate() -> None:
    widths = (0.5, 3.0)
    vectors = batch().vectors.detach() + torch.arange(2 * HALF)[:, None].ge(HALF) * 0.7
    x = vectors.double().numpy()
    squared = [[float(((a - b) ** 2).sum()) for b in x] for a in x]
    scale = np.mean([squared[i][j] for i in range(12) for j in range(12) if i != j])

    def kernel(i: int, j: int) -> float:
        return sum(math.exp(-squared[i][j] / (width * scale)) for width in widths) / len(widths)

    one, other = range(HALF), range(HALF, 2 * HALF)
    pairs = HALF * (HALF - 1)
    expected = (
        sum(kernel(i, j) for i in one for j in one if i != j) / pairs
        + sum(kernel(i, j) for i in other for j in other if i != j) / pairs
        - 2 * sum(kernel(i, j) for i in one for j in other) / HALF**2
    )
    assert float(mmd.discrepancy(vectors, widths)) == pytest.approx(expected, abs=1e-6)
    assert float(made("mmd", strength=3.0, widths=widths).penalty(batch(vectors=vectors))) == pytest.approx(
        3 * expected, abs=3e-6
    )


def test_mmd_of_equal_samples_is_nought_on_average() -> None:
    torch.manual_seed(0)
    found = [float(mmd.discrepancy(torch.randn(16, 2), (1.0,))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    apart = torch.cat([torch.randn(8, 2), torch.randn(8, 2) + 1.5])
    assert float(mmd.discrepancy(apart, (1.0,))) > 3 * np.std(found)


def test_gradient_of_mmd_is_that_of_fixed_widths() -> None:
    vectors = batch().vectors
    mmd.discrepancy(vectors, (1.0,)).backward()
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


def test_coral_is_the_distance_of_covariances() -> None:
    vectors = batch().vectors.detach()
    one, other = np.cov(vectors[:HALF].numpy().T), np.cov(vectors[HALF:].numpy().T)
    expected = np.linalg.norm(one - other, "fro") ** 2 / (4 * WIDTH**2)
    assert float(deep_coral.distance(vectors)) == pytest.approx(expected, rel=1e-5)
    assert float(made("deep_coral", strength=2.0).penalty(batch(vectors=vectors))) == pytest.approx(
        2 * expected, rel=1e-5
    )


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


@pytest.mark.parametrize("method", ["flatness", "adversary"])
def test_only_true_tracks_of_simulation_are_decorrelated(method: str) -> None:
    step = made("decorrelate", method=method, bins=2)
    missing = torch.tensor([0.1, 0.2, 0.3, float("nan"), 3.0, 0.1])
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 0], [1, 0], [1, 0], [0, 1]])
    given = batch(columns={"pt": missing}, labels=labels)
    step.penalty(given).backward()
    touched = {(int(n), int(s)) for n, s in given.logits.grad.nonzero()}
    # of the flatness, the bin above has a single track, and so has the second species
    allowed = {(0, 0), (1, 0), (4, 0), (5, 1)}
    assert touched <= (allowed if method == "adversary" else {(0, 0), (1, 0)})
    if method == "adversary":
        assert touched == allowed
    assert given.vectors.grad is None


@pytest.mark.parametrize("method", ["flatness", "adversary"])
def test_batch_without_a_true_track_costs_nothing(method: str) -> None:
    step = made("decorrelate", method=method)
    given = batch(labels=torch.zeros(HALF, SPECIES))
    loss = step.penalty(given)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_adversary_of_a_column_is_reversed() -> None:
    step = made("decorrelate", method="adversary", bins=3, strength=0.5)
    given = batch(progress=1.0)
    loss = step.penalty(given)
    logits = given.logits.detach().requires_grad_()
    parts = []
    for track in range(HALF):
        for head in range(SPECIES):
            if given.labels[track, head]:
                code = torch.zeros(SPECIES)
                code[head] = 1.0
                number = int((given.columns["pt"][track] > step._edges[head]).sum())
                guess = step._adversary(torch.cat([logits[track, head].reshape(1), code]))
                parts.append(-torch.log_softmax(guess, dim=0)[number])
    expected = torch.stack(parts).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    expected.backward()
    assert logits.grad is not None
    torch.testing.assert_close(given.logits.grad, -0.5 * math.tanh(5.0) * logits.grad)


# what they achieve


def trained(step: Any, sample: Any, steps: int, seed: int = 0) -> nn.Module:
    """Return the average of an encoder and a head, trained on batches of a sample, by a step or without.

    A step's figures are then those of the last 100 batches.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8)), nn.Linear(8, 1))
    own = nn.ModuleDict() if step is None else nn.ModuleDict(step.networks(Sizes(8, 1), sample.domains))
    # a long memory of gradients makes adversaries circle round each other
    optimiser = torch.optim.AdamW([*network.parameters(), *own.parameters()], 5e-3, betas=(0.5, 0.9))
    average = Average(network, 0.98)
    for number in range(steps):
        simulation, labels, data, columns = sample(256)
        vectors = network[0](torch.cat([simulation, data]))
        logits = network[1](vectors)
        loss = functional.binary_cross_entropy_with_logits(logits[:256], labels)
        if step is not None:
            if number == steps - 100:
                step.figures()
            loss = loss + step.penalty(Batch(vectors, logits, labels, columns, torch.arange(256), number / steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(number)
    return average.network


class Shifted:
    """Simulation and data whose second feature is shifted; the first one tells the species."""

    domains = domains()

    def __call__(self, tracks: int) -> Any:
        labels = torch.randint(2, (2 * tracks, 1)).float()
        raw = torch.randn(2 * tracks, 2)
        raw[:, :1] += 3.0 * labels
        raw[tracks:, 1] += 2.0
        return raw[:tracks], labels[:tracks], raw[tracks:], {}


def told_apart(network: nn.Module) -> float:
    """Return the accuracy with which a new discriminator tells simulation from data by their vectors."""
    torch.manual_seed(99)
    domain = reversal.discriminator(8, 32)
    optimiser = torch.optim.Adam(domain.parameters(), 3e-3)
    right = []
    for _ in range(300):
        simulation, _, data, _ = Shifted()(256)
        with torch.no_grad():
            vectors = network[0](torch.cat([simulation, data]))  # type: ignore[index]
        loss, accuracy = reversal.domain_loss(domain(vectors))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(float(accuracy))
    return float(np.mean(right[-50:]))


def area(network: nn.Module, sample: Any) -> float:
    torch.manual_seed(98)
    simulation, labels, _, _ = sample(4000)
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
        raw, labels, _, columns = self(4000)
        tracks = Tracks(raw.numpy(), labels.numpy().astype(np.uint8))
        self.domains = Domains(tracks, raw.numpy(), ("p", "beta"), {"pt": columns["pt"].numpy()})

    def __call__(self, tracks: int) -> Any:
        labels = torch.randint(2, (tracks, 1)).float()
        pt = torch.rand(tracks)
        raw = torch.stack([torch.randn(tracks) + labels[:, 0] * (1.0 + 2.5 * pt), pt], dim=1)
        return raw, labels, raw, {"pt": pt}


def spread(network: nn.Module, sample: Any) -> float:
    """Return the deviation of the efficiency over bins of pt, where it is 80 % on average."""
    torch.manual_seed(97)
    raw, labels, _, columns = sample(20_000)
    own = labels[:, 0] > 0
    with torch.no_grad():
        logits = network(raw[own])[:, 0].numpy()
    passed, pt = logits > np.quantile(logits, 0.2), columns["pt"][own].numpy()
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
