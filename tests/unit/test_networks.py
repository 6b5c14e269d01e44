"""The torch modules: inputs, encodings, networks and calibration, without any training."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from models_sample import FEATURES, NETWORKS, OWN, SPECIES, described, library_state, sample  # noqa: F401
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from pidflow.models import model_of
from pidflow.networks.calibration import Calibrated, calibrate, fit_scale
from pidflow.networks.fse import Encoder, FeatureSetEmbedding, FeatureSetNetwork
from pidflow.networks.inputs import Inputs, Linear, Periodic, Piecewise, adjust, encoder_of, thinned
from pidflow.networks.mlp import MeanImputation, PatternEnsemble, RegressionImputation, perceptron
from pidflow.networks.tabm import TabM
from pidflow.train import engine

pytestmark = pytest.mark.usefixtures("library_state")

SIZES: dict[str, Any] = {
    "embedding_hidden": 16, "width": 8, "layers": 2, "heads": 2, "feed_forward": 16, "pooling_hidden": 8,
    "dropout": 0.1,
}  # fmt: skip


def random_network(features: int = 5, species: int = 3, seed: int = 0, **changes: Any) -> FeatureSetNetwork:
    torch.manual_seed(seed)
    network = FeatureSetNetwork(Encoder(features, **SIZES | changes), species, 8, 0.1)
    network.encoder.inputs.mean.copy_(torch.linspace(-1, 3, features))
    network.encoder.inputs.std.copy_(torch.linspace(0.5, 2, features))
    return network.eval()


def random_tracks(n_tracks: int, features: int = 5, missing: float = 0.4, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(0.0, 3.0, (n_tracks, features)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return torch.from_numpy(values)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    """Any network, adjusted to tracks, with random weights."""
    torch.manual_seed(4)
    settings = NETWORKS[request.param]
    built = model_of(settings["kind"])(described(settings), "nowhere").build()  # type: ignore[attr-defined]
    built.adjust(sample(2000, 0).features)
    return built.eval()


# every network


def test_tracks_do_not_see_their_batch(network: Any) -> None:
    raw = torch.from_numpy(sample(64, 1).features)
    order = torch.from_numpy(np.random.default_rng(1).permutation(64))
    with torch.no_grad():
        together = network(raw)
        assert together.shape == (64, len(SPECIES)) and together.std() > 0.01
        torch.testing.assert_close(network(raw[order]), together[order], rtol=1e-5, atol=1e-6)
        alone = torch.cat([network(row[None]) for row in raw])
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
        patterns = torch.isnan(raw).long() @ (2 ** torch.arange(len(FEATURES)))
        for pattern in patterns.unique():
            rows = patterns == pattern
            torch.testing.assert_close(network(raw[rows]), together[rows], rtol=1e-5, atol=1e-6)
    assert len(patterns.unique()) > 8


@pytest.mark.parametrize("value", [1e30, -1e30, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan, 0.0, 1e-40])
def test_output_is_finite_for_wild_inputs(network: Any, value: float) -> None:
    raw = torch.from_numpy(sample(40, 2).features)
    with torch.no_grad():
        usual = network(raw).abs().max()
        for number in range(len(FEATURES)):
            one = raw.clone()
            one[:, number] = value
            assert torch.isfinite(network(one)).all()
            assert network(one).abs().max() < 100 * usual
        assert torch.isfinite(network(torch.full((3, len(FEATURES)), value))).all()


def test_networks_do_not_change_their_input(network: Any) -> None:
    raw = torch.from_numpy(sample(20, 2).features)
    before = raw.clone()
    with torch.no_grad():
        network(raw)
    assert torch.equal(torch.nan_to_num(raw), torch.nan_to_num(before))


def test_prediction_in_batches_is_in_evaluation_mode(network: Any) -> None:
    trained = copy.deepcopy(network).train()
    raw = sample(50, 3).features
    found = engine.predict(trained, raw, batch=7)
    with torch.no_grad():
        np.testing.assert_allclose(found, network(torch.from_numpy(raw)).numpy(), atol=1e-6)


# feature sets


def test_embedding_is_the_one_hot_formulation() -> None:
    torch.manual_seed(2)
    features, hidden, width = 6, 9, 4
    embedding = FeatureSetEmbedding(features, hidden, width, dropout=0.0).eval()
    values = torch.randn(7, features)
    # one linear layer on (one-hot code, one-hot code × value)
    layer = nn.Linear(2 * features, hidden, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([embedding.feature, embedding.value[:, 0]]).T)
        code = torch.eye(features).expand(7, -1, -1)
        expected = embedding.out(torch.relu(layer(torch.cat([code, code * values[:, :, None]], dim=2))))
        torch.testing.assert_close(embedding(values).reshape(expected.shape), expected)


def test_embedding_with_a_shared_value_row_is_the_published_one() -> None:
    torch.manual_seed(3)
    features, hidden, width = 6, 9, 4
    embedding = FeatureSetEmbedding(features, hidden, width, dropout=0.0).eval()
    values = torch.randn(7, features)
    layer = nn.Linear(features + 1, hidden, bias=False)
    with torch.no_grad():
        embedding.value.copy_(embedding.value[:1].expand(features, -1, -1))
        layer.weight.copy_(torch.cat([embedding.feature, embedding.value[0]]).T)
        code = torch.eye(features).expand(7, -1, -1)
        expected = embedding.out(torch.relu(layer(torch.cat([code, values[:, :, None]], dim=2))))
        torch.testing.assert_close(embedding(values).reshape(expected.shape), expected)


@pytest.mark.parametrize("encoding", ["piecewise", "periodic"])
def test_embedding_of_encoded_values_is_feature_by_feature(encoding: Any) -> None:
    torch.manual_seed(3)
    embedding = FeatureSetEmbedding(4, 9, 5, 0.0, encoding, 3).eval()
    values = torch.randn(7, 4)
    with torch.no_grad():
        encoded = embedding.encode(values)
        found = embedding(values).reshape(7, 4, 5)
        for feature in range(4):
            hidden = encoded[:, feature] @ embedding.value[feature] + embedding.feature[feature]
            torch.testing.assert_close(found[:, feature], embedding.out(torch.relu(hidden)))


@pytest.mark.parametrize("encoding", ["linear", "piecewise", "periodic"])
def test_output_without_a_feature_is_that_of_a_network_that_never_had_it(encoding: Any) -> None:
    more = {"encoding": encoding, "encoding_size": 3}
    whole, hidden = random_network(5, **more), 2
    rest = [0, 1, 3, 4]
    smaller = random_network(4, seed=1, **more)
    weights = {}
    for name, tensor in whole.state_dict().items():
        own = name.startswith(
            ("encoder.inputs.", "encoder.embed.encode.", "encoder.embed.feature", "encoder.embed.value")
        )
        weights[name] = tensor[rest] if own else tensor
    smaller.load_state_dict(weights)
    raw = random_tracks(60)
    raw[:, hidden] = float("nan")
    raw = raw[~torch.isnan(raw).all(dim=1)]
    with torch.no_grad():
        torch.testing.assert_close(whole(raw), smaller(raw[:, rest]), rtol=1e-5, atol=1e-6)
        raw[:, hidden] = 1.0
        assert (whole(raw) - smaller(raw[:, rest])).abs().max() > 1e-3


@pytest.mark.parametrize("encoding", ["linear", "piecewise", "periodic"])
def test_parameters_of_a_missing_feature_do_not_matter(encoding: Any) -> None:
    network = random_network(encoding=encoding, encoding_size=3)
    raw = random_tracks(200)
    with torch.no_grad():
        before = network(raw)
        network.encoder.embed.feature[3] += 5.0
        network.encoder.embed.value[3] -= 5.0
        network.encoder.inputs.mean[3] = 100.0
        after = network(raw)
    missing = torch.isnan(raw[:, 3]) & ~torch.isnan(raw).all(dim=1)
    present = ~torch.isnan(raw[:, 3])
    assert missing.sum() > 40
    torch.testing.assert_close(after[missing], before[missing], rtol=0, atol=1e-6)
    assert ((after - before).abs().amax(dim=1)[present] > 1e-4).all()


def test_stages_are_all_parameters_from_the_inputs_to_the_heads() -> None:
    network = random_network(encoding="periodic", encoding_size=3)
    stages = network.stages()
    assert len(stages) == 5
    found = [id(parameter) for stage in stages for parameter in stage]
    assert sorted(found) == sorted(id(parameter) for parameter in network.parameters())
    assert [id(p) for p in stages[-1]] == [id(p) for p in network.heads.parameters()]
    assert {id(p) for p in stages[0]} == {id(p) for p in network.encoder.embed.parameters()}


# inputs and encodings


def test_scaling_is_monotonic_and_clamped() -> None:
    inputs = Inputs(1)
    inputs.mean.fill_(10.0)
    inputs.std.fill_(2.0)
    value, missing = inputs(torch.tensor([[10.0], [12.0], [4.0], [1e30], [-1e30], [math.nan]]))
    torch.testing.assert_close(value[:, 0], torch.tensor([0.0, math.log(2), -math.log(4), 8.0, -8.0, 0.0]))
    assert missing[:, 0].tolist() == [False] * 5 + [True]


def test_scale_is_that_of_the_core_of_the_present_values() -> None:
    rng = np.random.default_rng(0)
    features = np.full((20_000, 4), np.nan, np.float32)
    features[:, 0] = rng.normal(7.0, 3.0, 20_000)
    features[::2, 1] = rng.normal(-2.0, 0.5, 10_000)
    features[:50, 0] = 1e20
    features[:, 2] = 4.0
    inputs = Inputs(4)
    inputs.adjust(features)
    np.testing.assert_allclose(inputs.mean.numpy(), [7.0, -2.0, 4.0, 0.0], atol=0.1)
    np.testing.assert_allclose(inputs.std.numpy(), [3.0, 0.5, 1.0, 1.0], rtol=0.04)


def test_thinned_rows_are_spread_evenly() -> None:
    few = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(thinned(few), few)
    many = np.broadcast_to(np.float32(1), (3_500_000, 1))
    assert 1_000_000 <= len(thinned(many)) <= 2_000_000


def test_linear_encoding_is_the_value() -> None:
    encode = encoder_of("linear", 3, 16)
    assert isinstance(encode, Linear) and encode.size == 1
    values = torch.randn(4, 3)
    assert torch.equal(encode(values)[..., 0], values)


def test_piecewise_encoding_fills_bin_after_bin() -> None:
    encode = encoder_of("piecewise", 2, 4)
    assert isinstance(encode, Piecewise) and encode.size == 4
    rng = np.random.default_rng(0)
    column = rng.normal(size=4001).astype(np.float32)
    values = torch.from_numpy(np.stack([column, np.zeros_like(column)], axis=1))
    missing = torch.zeros_like(values, dtype=torch.bool)
    # a missing value has no say
    missing[0], values[0] = True, 8.0
    encode.adjust(values, missing)
    edges = np.quantile(column[1:], np.linspace(0, 1, 5))
    asked = np.linspace(-4, 4, 81).astype(np.float32)
    found = encode(torch.from_numpy(np.stack([asked, asked], axis=1)))
    expected = np.clip((asked[:, None] - edges[:-1]) / np.diff(edges), 0, 1)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-4)
    # bins of one value: a step
    assert found[asked < 0, 1].eq(0).all() and found[asked > 0.01, 1].eq(1).all()


def test_periodic_encoding() -> None:
    torch.manual_seed(0)
    encode = encoder_of("periodic", 2, 3)
    assert isinstance(encode, Periodic) and encode.size == 7
    values = torch.randn(5, 2)
    with torch.no_grad():
        found = encode(values)
        phase = 2 * math.pi * encode.frequency[None] * values[:, :, None]
    torch.testing.assert_close(found[..., 0], values)
    torch.testing.assert_close(found[..., 1:4], torch.sin(phase))
    torch.testing.assert_close(found[..., 4:], torch.cos(phase))
    assert encode.frequency.requires_grad and 0.05 < Periodic(200, 50).frequency.std() < 0.5


def test_adjusting_sets_bins_on_the_standardised_scale() -> None:
    features = sample(3000, 0).features
    inputs, encode = Inputs(len(FEATURES)), Piecewise(len(FEATURES), 4)
    adjust(inputs, encode, features)
    value, missing = (part.numpy() for part in inputs(torch.from_numpy(features)))
    for number in range(len(FEATURES)):
        present = value[~missing[:, number], number]
        assert encode.low[number, 0] == pytest.approx(present.min(), abs=1e-6)
        share = encode(torch.from_numpy(value))[:, number].sum(dim=1).numpy() / 4
        if number != 5:  # two values only
            expected = (np.searchsorted(np.sort(present), present) / len(present))[:200]
            np.testing.assert_allclose(share[~missing[:, number]][:200], expected, atol=0.1)


# imputation and ensembles of perceptrons


def test_perceptron_is_the_published_one() -> None:
    layers = perceptron(7, (64, 32, 16), 6, 0.1)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.LeakyReLU, nn.Dropout] * 3 + [nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)]
    assert shapes == [(64, 7), (32, 64), (16, 32), (6, 16)]
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.1}


def test_mean_imputation_is_the_mean_of_training() -> None:
    features = sample(4000, 0).features
    impute = MeanImputation(len(FEATURES))
    impute.adjust(features)
    filled = np.where(np.isnan(features), impute.inputs.mean.numpy(), features)
    np.testing.assert_allclose(impute(torch.from_numpy(features)), impute(torch.from_numpy(filled)), atol=1e-6)
    core = [column[~np.isnan(column)] for column in features.T]
    core = [np.clip(column, *np.quantile(column, (0.005, 0.995))) for column in core]
    np.testing.assert_allclose(impute.inputs.mean, [column.mean() for column in core], rtol=1e-4, atol=1e-4)


def test_regression_imputation_is_linear_regression_on_what_is_always_there() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=(3000, 2))
    columns = [known[:, 0], known @ (0.7, -0.4) + 0.3 * rng.normal(size=3000), known[:, 1], known @ (-0.2, 0.5)]
    features = np.stack(columns, axis=1).astype(np.float32)
    features[rng.random(3000) < 0.4, 1] = np.nan
    features[rng.random(3000) < 0.3, 3] = np.nan
    impute = RegressionImputation(4)
    impute.adjust(features)
    asked = rng.normal(size=(500, 4)).astype(np.float32)
    asked[:, [1, 3]] = np.nan
    found = impute(torch.from_numpy(asked)).numpy()
    scaled = impute.inputs(torch.from_numpy(features))[0].numpy()
    rows = impute.inputs(torch.from_numpy(asked))[0].numpy()[:, [0, 2]]
    for number in (1, 3):
        present = ~np.isnan(features[:, number])
        line = LinearRegression().fit(scaled[present][:, [0, 2]], scaled[present, number])
        np.testing.assert_allclose(found[:, number], line.predict(rows), atol=2e-5)
    # what is there stays, and what lacks too at times is not used
    asked[:, 1] = 5.0
    again = impute(torch.from_numpy(asked)).numpy()
    np.testing.assert_array_equal(again[:, 3], found[:, 3])
    np.testing.assert_array_equal(again[:, 1], impute.inputs(torch.from_numpy(asked))[0].numpy()[:, 1])


def test_regression_imputation_without_any_sure_feature_is_a_mean() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1000, 2)).astype(np.float32)
    features[::2, 0], features[1::3, 1] = np.nan, np.nan
    impute = RegressionImputation(2)
    impute.adjust(features)
    scaled, missing = (part.numpy() for part in impute.inputs(torch.from_numpy(features)))
    found = impute(torch.full((1, 2), torch.nan)).numpy()[0]
    np.testing.assert_allclose(found, [scaled[~missing[:, n], n].mean() for n in range(2)], atol=1e-5)


def ensemble(features: NDArray[np.float32]) -> PatternEnsemble:
    torch.manual_seed(0)
    network = PatternEnsemble(FEATURES, (8,), 2, 0.1).eval()
    network.adjust(features)
    return network


def seen_of(raw: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return ITS + 2·TPC + 4·TRD + 8·TOF of each track."""
    present = [~np.isnan(raw[:, list(positions)]).all(axis=1) for positions in OWN.values()]
    return np.array(present).T @ np.array([1, 2, 4, 8])


def test_members_of_other_patterns_do_not_matter() -> None:
    raw = sample(3000, 0).features
    network = ensemble(raw)
    seen = seen_of(raw)
    np.testing.assert_array_equal(network.seen(torch.from_numpy(raw)), seen)
    own = int(np.bincount(seen).argmax())
    with torch.no_grad():
        before = network(torch.from_numpy(raw))
        for parameter in network.members[own].parameters():
            parameter += 1.0
        changed = (network(torch.from_numpy(raw)) - before).abs().amax(dim=1).numpy() > 1e-6
    answered = network.stand_in.numpy()[seen] == own
    assert answered.sum() >= (seen == own).sum() > 300
    np.testing.assert_array_equal(changed, answered)


def test_each_pattern_has_its_own_perceptron_or_the_nearest() -> None:
    raw = sample(4000, 0).features
    network = ensemble(raw)
    counts = np.bincount(seen_of(raw), minlength=16)
    large = [number for number in range(16) if counts[number] >= PatternEnsemble.FEWEST]
    assert 3 <= len(large) < 16
    for number, other in enumerate(network.stand_in.tolist()):
        if number in large:
            assert other == number
            continue
        far = {there: (number ^ there).bit_count() for there in large}
        nearest = [there for there in large if far[there] == min(far.values())]
        assert other == max(nearest, key=lambda there: counts[there])


def test_gradient_reaches_only_the_members_of_the_tracks() -> None:
    raw = sample(4000, 0).features
    network = ensemble(raw)
    own = int(np.bincount(seen_of(raw)).argmax())
    network(torch.from_numpy(raw[seen_of(raw) == own][:50])).square().sum().backward()
    for number, member in enumerate(network.members):
        moved = any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in member.parameters())
        assert moved == (number == own)


def test_too_few_tracks_for_any_pattern_leave_one_perceptron() -> None:
    raw = sample(60, 0).features
    counts = np.bincount(seen_of(raw), minlength=16)
    assert set(ensemble(raw).stand_in.tolist()) == {int(counts.argmax())}


def tabm(**changes: Any) -> TabM:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "members": 5, "hidden": (12, 10), "dropout": 0.0, "encoding": "piecewise", "encoding_size": 3,
    }  # fmt: skip
    network = TabM(len(FEATURES), 2, **options | changes)
    network.adjust(sample(2000, 0).features)
    return network


def test_tabm_members_learn_apart_and_answer_together() -> None:
    network = tabm()
    raw = torch.from_numpy(sample(40, 1).features)
    with torch.no_grad():
        each = network.train()(raw)
        together = network.eval()(raw)
    assert each.shape == (40, 5, 2)
    torch.testing.assert_close(torch.sigmoid(together), torch.sigmoid(each).mean(dim=1), rtol=1e-5, atol=1e-6)
    assert each.std(dim=1).min() > 1e-4
    assert set(network.scale.unique().tolist()) == {-1.0, 1.0}
    torch.manual_seed(0)
    network.train()(raw)[:, 2].sum().backward()
    touched = network.weight.grad.abs().amax(dim=(1, 2)) > 0
    assert touched.tolist() == [number == 2 for number in range(5)]


def test_tabm_sees_which_values_are_missing() -> None:
    network = tabm(encoding="linear").eval()
    raw = torch.from_numpy(sample(20, 1).features)
    mean = raw.clone()
    mean[:, 1], raw[:, 1] = float(network.inputs.mean[1]), torch.nan
    with torch.no_grad():
        assert (network(mean) - network(raw)).abs().min() > 1e-6


# calibration


def drawn(logits: NDArray[np.float64], slope: float, offset: float, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-(slope * logits + offset)))).astype(np.float32)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (1.7, -0.8), (0.4, 1.2)])
def test_fit_recovers_slope_and_offset(slope: float, offset: float) -> None:
    logits = np.random.default_rng(0).normal(0.5, 2.0, 40_000)
    labels = drawn(logits, slope, offset, 1)
    found = fit_scale(logits.astype(np.float32), labels)
    assert found == pytest.approx((slope, offset), abs=0.06)
    line = LogisticRegression(C=1e6).fit(logits[:, None], labels)
    assert found == pytest.approx((line.coef_[0, 0], line.intercept_[0]), abs=0.02)


@pytest.mark.parametrize("scale", [0.3, 2.0, 6.0])
def test_weights_in_the_fit_are_repetitions(scale: float) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0.3, scale, 300).astype(np.float32)
    labels = drawn(logits, 0.7, 0.5, 2)
    # unlike tracks weigh differently
    counts = np.where(np.abs(logits) > scale, 4, 1) + 2 * labels.astype(int)
    weighted = fit_scale(logits, labels, counts.astype(np.float32))
    assert weighted == pytest.approx(fit_scale(np.repeat(logits, counts), np.repeat(labels, counts)), abs=1e-5)
    assert weighted != pytest.approx(fit_scale(logits, labels), abs=0.1)
    assert fit_scale(logits, labels, np.ones(300, np.float32)) == fit_scale(logits, labels)
    # a weight of nothing is no track
    kept = counts > 2
    without = fit_scale(logits[kept], labels[kept])
    assert fit_scale(logits, labels, kept.astype(np.float32)) == pytest.approx(without, abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_few_tracks_hardly_move_the_certainties(count: int, label: float) -> None:
    logits = np.linspace(-3, 3, 7)[:count].astype(np.float32)
    slope, offset = fit_scale(logits, np.full(count, label, np.float32))
    assert slope == pytest.approx(1.0, abs=0.1) and offset == pytest.approx(0.0, abs=0.3)
    if not count:
        assert (slope, offset) == (1.0, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_separated_tracks_and_wrong_order_leave_a_finite_rising_scale(sign: int) -> None:
    logits = np.linspace(-20, 20, 5000).astype(np.float32)
    slope, offset = fit_scale(logits, (sign * logits > 0).astype(np.float32))
    assert 0.05 <= slope < 100 and abs(offset) < 1


class Distorted(nn.Module):
    """Logits of one species that are too large, differently with TOF and without."""

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.isnan(raw[:, 1:]), 3.0 * raw[:, :1], 0.5 * raw[:, :1] + 1.0)


def test_calibration_lowers_the_loss_pattern_by_pattern() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0.0, 2.0, 20_000)
    raw = np.stack([true, np.where(rng.random(20_000) < 0.4, np.nan, 1.0)], axis=1).astype(np.float32)
    labels = drawn(true, 1.0, 0.0, 1)[:, None]
    network = Calibrated(Distorted(), ("p", "beta"), 1)
    half = slice(0, 10_000)
    with torch.no_grad():
        logits = network.network(torch.from_numpy(raw)).numpy()

        def loss() -> NDArray[np.float64]:
            certainty = network(torch.from_numpy(raw))[10_000:, 0].double().numpy()
            per_track = -np.log(np.where(labels[10_000:, 0] > 0, certainty, 1 - certainty))
            without = np.isnan(raw[10_000:, 1])
            return np.array([per_track[without].mean(), per_track[~without].mean()])

        before = loss()
        calibrate(network, raw[half], logits[half], labels[half])
        assert (loss() < before - 0.03).all()
    np.testing.assert_allclose(network.slope[[0, 2], 0], [1 / 3, 2.0], rtol=0.2)
    np.testing.assert_allclose(network.offset[[0, 2], 0], [0.0, -2.0], atol=0.3)
    # patterns that no track has keep the identity
    assert network.slope[[1, 3], 0].tolist() == [1, 1] and network.offset[[1, 3], 0].tolist() == [0, 0]


def test_pattern_is_what_the_features_show() -> None:
    features = ("trd_signal", "p", "beta", "trd_pattern", "tof_signal")
    network = Calibrated(nn.Identity(), features, 5)
    nan = math.nan
    raw = torch.tensor([
        [1, 1, 1, 1, 1], [nan, 1, 1, nan, 1], [nan, 1, nan, 1, nan], [nan, nan, nan, nan, nan],
        [nan, 1, nan, nan, 0], [math.inf, 1, nan, nan, nan],
    ])  # fmt: skip
    assert network.pattern(raw).tolist() == [3, 2, 1, 0, 2, 1]
    assert Calibrated(nn.Identity(), ("p", "sign"), 2).pattern(raw[:, :2]).tolist() == [0] * 6


def test_certainty_is_zero_for_incomplete_tracks_if_only_complete_ones_count() -> None:
    network = Calibrated(nn.Identity(), ("p", "beta"), 2, complete=True)
    found = network(torch.tensor([[1.0, 2.0], [1.0, math.nan], [math.nan, math.nan]]))
    torch.testing.assert_close(found, torch.tensor([[0.7310586, 0.8807971], [0, 0], [0, 0]]))
