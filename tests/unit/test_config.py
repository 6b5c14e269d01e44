"""Keys of the configuration: unknown ones, bounds, rules between them, and what an error says."""

import math
import re
from typing import Any

import pytest
from config_sample import MODELS, UNADAPTED, candidates, merged, with_models

from pidflow.adapt import steps as adaptation
from pidflow.config import load, validate
from pidflow.config.models import Config
from pidflow.errors import PidflowError
from pidflow.models import kinds


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    "key",
    [
        "speciess",
        "dataset.spilt",
        "dataset.split.tests",
        "models.fse.network.width_of_token",
        "models.fse.optimisation.epoch",
        "models.gbdt.tree",
        "ingest.label.colum",
        "pathvars.result",
        "adapt.epochs",
        "adapt.choice.flor",
        "adapt.steps.dann.epoch",
    ],
)
def test_unknown_key_is_named_at_any_depth(key):
    with pytest.raises(PidflowError, match=re.escape(f"my.yaml: key '{key}' is not a known key")):
        validate(nested(key, 1), "my.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("seed", "many"),
        ("species", []),
        ("dataset.split.test", 0.0),
        ("dataset.split.validation", 1.0),
        ("dataset.selection.pt_min", -0.1),
        ("dataset.masks.tof", -0.5),
        ("dataset.masks.trd", math.nan),
        ("features.count", 0),
        ("features.cumulative_share", 1.0),
        ("features.folds", 1),
        ("models.fse.network.dropout", 1.0),
        ("models.fse.network.layers", 0),
        ("models.fse.optimisation.learning_rate", 0.0),
        ("models.fse.optimisation.weight_decay", -1e-3),
        ("models.gbdt.leaves", 1),
        ("models.nsigma.n_sigma", 0.0),
        ("adapt.candidates.dann", "dann"),
        ("adapt.choice.floor", 1.0),
        ("adapt.choice.best_domain_auc", 0.0),
        ("adapt.choice.significance", -0.1),
        ("adapt.steps.dann.epochs", 0),
        ("adapt.steps.dann.learning_rate", 0.0),
        ("example.shifts.900001", "huge"),
        ("evaluate.bootstrap", 19),
        ("evaluate.confidence", 1.0),
        ("evaluate.image_format", "gif"),
        ("publish.tolerance", 0),
        ("models.fse.optimisation.average", 1.0),
        ("models.fse.optimisation.hide_detector", 1.0),
        ("models.fse.optimisation.precision", "float16"),
        ("models.fse.transfer", "some"),
        ("models.fse.calibration", True),
        ("models.mlp.hidden", []),
        ("models.mlp.missing", "guess"),
        ("models.blend.members", ["fse"]),
        ("models.deep_ensemble.members", 1),
        ("models.deep_ensemble.network.network.layers", 0),
        ("accelerator", "tpu"),
        ("ingest.format", "csv"),
        ("ingest.batch_rows", 0),
    ],
)
def test_value_out_of_bounds_names_its_key(key, value):
    with pytest.raises(PidflowError, match=re.escape(f"here: key '{key}' is not valid")):
        validate(nested(key, value), "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("seed", 2**31 - 1),
        ("dataset.selection.pt_min", None),
        ("dataset.selection.pt_min", 0.0),
        ("dataset.masks.tof", 0.0),
        ("features.count", None),
        ("features.folds", 2),
        ("models.fse.network.dropout", 0.0),
        ("models.fse.optimisation.average", 0.0),
        ("models.mlp.hidden", (1,)),
        ("models.deep_ensemble.members", 2),
        ("evaluate.bootstrap", 20),
        ("species", (11, -11)),
        ("adapt.choice.significance", 0.0),
        ("adapt.steps.dann.epochs", 1),
        ("adapt.method", "calibrated"),
        ("adapt.method", "self_trained"),
        ("example.shifts", {900001: "moderate"}),
    ],
)
def test_value_at_the_bound_is_accepted(key, value):
    found: Any = validate(merged({"models": MODELS}, nested(key, value)), "here")
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"ingest": {"label": {"column": "pdg", "file_stems": {"a": 211}}}}, "give either 'column' or 'file_stems'"),
        ({"ingest": {"columns": {"tpc_sginal": "dEdx"}}}, "tpc_sginal"),
        ({"ingest": {"columns": {"pdg_code": "pdg"}}}, "pdg_code"),
        ({"ingest": {"columns": {"has_tof": "tof"}}}, "has_tof"),
        ({"ingest": {"missing": {"collision_id": [0]}}}, "collision_id"),
        ({"ingest": {"columns": {"p": "P"}, "missing": {"its_signal": [0]}}}, "its_signal"),
        ({"features": {"candidates": ["p", "tpc_sginal"]}}, "'tpc_sginal' is not a measured column"),
        ({"features": {"candidates": ["pdg_code"]}}, "'pdg_code' is not a measured column"),
        ({"features": {"required": ["split"]}}, "'split' is not a measured column"),
        ({"evaluate": {"pt_edges": [0.1, 0.5, 0.5]}}, "'pt_edges' must increase"),
        ({"evaluate": {"pt_edges": [1.0, 0.5]}}, "'pt_edges' must increase"),
        ({"evaluate": {"methods": ["gbdt", "gbdt"]}}, "'methods' names a model twice"),
        ({"evaluate": {"methods": ["gbdt"]}, "publish": {"model": "fse"}}, "'evaluate.methods' must name fse"),
        ({"evaluate": {"methods": ["gbdt", "tree"]}}, "'evaluate.methods' names tree, which is no entry of 'models'"),
        ({"adapt": {"model": "net"}}, "'adapt.model' names net, which is no entry of 'models'"),
        ({"publish": {"model": "net"}}, "'publish.model' names net, which is no entry of 'models'"),
        (with_models(fse={"network": {"width": 7}}), "'width' must be a multiple of 'heads'"),
        ({"publish": {"model": "nsigma"}}, "'publish.model' nsigma has no ONNX graph; choose another model"),
        ({"evaluate": {"methods": ["fse", "bayes"]}}, "'evaluate.methods' names bayes, which is no entry of 'models'"),
        (
            with_models(net={}),
            f"'net' is of the unknown kind 'net'; set its 'kind' to one of {', '.join(kinds())}",
        ),
        (with_models(net={"kind": "lstm"}), "'net' is of the unknown kind 'lstm'"),
        (with_models(net={"kind": "base"}), "'net' is of the unknown kind 'base'"),
        (with_models(net=7), "'net'"),
        (with_models(**{"Net-2": {"kind": "fse"}}), "key 'models.Net-2' is not valid: String should match pattern"),
        (with_models(**{"../net": {"kind": "fse"}}), "String should match pattern"),
        (
            with_models(blend={}, gbdt=None, fse={"kind": "blend", "members": ["blend", "gbdt"]}) | UNADAPTED,
            "is made of itself",
        ),
        (with_models(a={"kind": "blend", "members": ["a", "fse"]}), "'models.a' is made of itself by way of a"),
        (
            with_models(
                a={"kind": "blend", "members": ["b", "fse"]},
                b={"kind": "blend", "members": ["fse", "c"]},
                c={"kind": "blend", "members": ["a", "gbdt"]},
            ),
            "'models.a' is made of itself by way of a, b, c; correct its members",
        ),
        (with_models(blend={"members": ["fse", "lstm"]}), "'models.blend.members' names lstm, which is no entry"),
        ({"publish": {"path": "Users/p//x"}}, "non-empty, non-numeric parts"),
        ({"publish": {"path": "Users/12/x"}}, "non-empty, non-numeric parts"),
        ({"publish": {"path": "Users/../x"}}, "non-empty, non-numeric parts"),
        ({"publish": {"path": "/Users/x"}}, "non-empty, non-numeric parts"),
        ({"species": [211, 13]}, r"names \[13\]; known are"),
        ({"species": [211, -211, 211]}, "names a code twice"),
        ({"adapt": {"method": "none"}}, "choose another model or a method"),
        ({"adapt": {"method": "magic"}}, "'method' magic is no candidate; choose auto, none or one of 'candidates'"),
        (
            {"adapt": {"method": "calibrate_response"} | candidates(own=["calibrate_response", "dann"])},
            "'method' calibrate_response is no candidate",
        ),
        ({"adapt": candidates(own=["lstm"])}, "'candidates.own' names lstm, which is no entry of 'steps'"),
        ({"adapt": candidates(own=["dann", "lstm"])}, "'candidates.own' names lstm, which is no entry of 'steps'"),
        ({"adapt": candidates(own=[])}, "'candidates.own' has no step; name some, or remove it"),
        (
            {"adapt": candidates(own=["dann", "calibrate_response", "reweight"])},
            "'candidates.own' changes the sample after a step that trains; put calibrate_response, reweight first",
        ),
        ({"adapt": candidates(none=["dann"])}, "'candidates.none' has a name with a meaning of its own"),
        ({"adapt": candidates(auto=["dann"])}, "'candidates.auto' has a name with a meaning of its own"),
        ({"adapt": candidates(adapted=["dann"])}, "'candidates.adapted' has a name with a meaning of its own"),
        ({"adapt": candidates(Own=["dann"])}, "String should match pattern"),
        (
            {"adapt": candidates(one=["calibrate_response", "dann"], two=["calibrate_response", "dann"])},
            "two entries of 'candidates' have the same steps; remove one",
        ),
        # 'two' starts with a step whose own name another candidate has
        (
            {"adapt": candidates(calibrate_response=["dann"], two=["calibrate_response", "mmd"])},
            "calibrate_response",
        ),
        (
            {
                "adapt": candidates(one=["a", "b_c", "mmd"], two=["a_b", "c", "mmd"])
                | {"steps": {name: {"kind": "dann"} for name in ("a", "b_c", "a_b", "c")}}
            },
            "a_b_c",
        ),
        (
            {"adapt": candidates(own=["adapted", "mmd"]) | {"steps": {"adapted": {"kind": "dann"}}}},
            "adapted.* has a name with a meaning of its own",
        ),
        (
            {"adapt": {"steps": {"own": {}}}},
            f"'own' is of the unknown kind 'own'; set its 'kind' to one of {', '.join(adaptation.kinds())}",
        ),
        ({"adapt": {"steps": {"own": {"kind": "base"}}}}, "'own' is of the unknown kind 'base'"),
        ({"adapt": {"steps": {"own": 7}}}, "'own'"),
        ({"adapt": {"steps": {"Own": {"kind": "dann"}}}}, "key 'adapt.steps.Own' is not valid: String should match"),
        (
            {"adapt": {"model": "gbdt"}},
            "'adapt.candidates.self_trained' trains a network further, and 'adapt.model' gbdt is",
        ),
        (
            {"adapt": {"model": "gbdt"} | candidates(own=["calibrate_response", "self_training"])},
            "'adapt.candidates.own' trains a network further, and 'adapt.model' gbdt is none; name a network",
        ),
        ({"adapt": {"model": "nsigma"} | candidates(own=["calibrate_response"])}, "nsigma.* has no ONNX graph"),
    ],
)
def test_rules_between_keys(content, sentence):
    with pytest.raises(PidflowError, match=sentence):
        validate(content, "here")


def test_one_sentence_without_the_framework_prefix():
    with pytest.raises(PidflowError) as error:
        validate({"species": [211, 211]}, "here")
    assert str(error.value) == "here: key '(top level)' is not valid: 'species' names a code twice"


def test_error_in_a_model_names_its_key_alone():
    """The kind that an entry is validated by is no key of its own."""
    with pytest.raises(PidflowError) as error:
        validate(with_models(fse={"optimisation": {"epoch": 3}}), "here")
    assert str(error.value) == (
        "here: key 'models.fse.optimisation.epoch' is not a known key; "
        "see docs/configuration.md for the keys and correct or remove it"
    )
    with pytest.raises(PidflowError, match=r"key 'models\.net\.network\.width_' is not a known key"):
        validate(with_models(net={"kind": "fse", "network": {"width_": 8}}), "here")


def test_error_in_a_step_names_its_key_alone():
    with pytest.raises(PidflowError, match=r"key 'adapt\.steps\.long\.epochs' is not valid: Input should be greater"):
        validate({"adapt": {"steps": {"long": {"kind": "dann", "epochs": 0}}}}, "here")
    with pytest.raises(PidflowError, match=r"key 'adapt\.steps\.long\.epoch' is not a known key"):
        validate({"adapt": {"steps": {"long": {"kind": "dann", "epoch": 3}}}}, "here")


def test_configuration_that_is_no_mapping():
    with pytest.raises(PidflowError, match="here: key '\\(top level\\)' is not valid"):
        validate(["species"], "here")


def test_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml") == Config()


def test_blocks_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().dataset.masks.tof = 1.0  # type: ignore[misc]
