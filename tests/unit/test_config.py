"""Configuration and run table."""

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from pidflow import models
from pidflow.adapt import steps as adaptation
from pidflow.config import check_runs, file_key, load, load_runs, validate
from pidflow.config.document import PAGE, SCHEMA, page_text, schema_text
from pidflow.config.models import Config
from pidflow.errors import PidflowError
from pidflow.models import kinds

ROOT = Path(__file__).parents[2]
HEADER = ("run", "period", "pass", "system", "year", "bz", "data", "simulation", "valid_from", "valid_until")


MODELS: dict[str, Any] = {"nsigma": {}, "gbdt": {}, "fse": {}}


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with another laid over it, as the workflow engine does."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def with_models(**models: Any) -> dict[str, Any]:
    return {"models": MODELS | models}


def candidates(**chains: list[str]) -> dict[str, Any]:
    return {"candidates": chains}


UNADAPTED = {"adapt": {"method": "none"}, "publish": {"model": "fse"}}


# the configuration


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
        ("adapt.method", "dann"),
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
        ({"adapt": {"model": "gbdt"}}, "'adapt.candidates.dann' trains a network further, and 'adapt.model' gbdt is"),
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


def test_steps_are_of_the_kind_of_their_name_unless_they_say_otherwise():
    steps = {"long": {"kind": "dann", "epochs": 80}, "mmd": None, "mcc": {"epochs": 3}}
    config = validate({"adapt": {"steps": steps}}, "here")
    found = config.adapt.steps
    # every kind has an entry of its name, whether it is given or not
    assert {name: entry.kind for name, entry in found.items()} == {"long": "dann"} | {
        kind: kind for kind in adaptation.kinds()
    }
    assert len(found) == len(adaptation.kinds()) + 1
    dumped = config.model_dump(mode="json")["adapt"]["steps"]
    assert [dumped[name]["epochs"] for name in ("long", "mcc", "dann", "mmd")] == [80, 3, 8, 8]
    assert validate(config.model_dump(mode="json"), "here") == config
    assert validate({"adapt": {"steps": {}}}, "here") == Config()


CHAINS: dict[str, Any] = {
    "candidates": {
        "dann": ["dann"],
        "both": ["calibrate_response", "reweight", "self_training", "dann"],
        "morphed": ["quantile_morph", "mmd"],
        "calibrated": ["calibrate_response"],
    }
}


def test_what_a_list_of_steps_starts_with_is_a_candidate_too():
    adapt = validate({"adapt": CHAINS}, "here").adapt
    assert adapt.chains == {
        "calibrated": ("calibrate_response",),
        "dann": ("dann",),
        "quantile_morph": ("quantile_morph",),
        "calibrate_response_reweight": ("calibrate_response", "reweight"),
        "morphed": ("quantile_morph", "mmd"),
        "calibrate_response_reweight_self_training": ("calibrate_response", "reweight", "self_training"),
        "both": ("calibrate_response", "reweight", "self_training", "dann"),
    }
    # what comes before lies before
    assert [len(steps) for steps in adapt.chains.values()] == [1, 1, 1, 2, 2, 3, 4]
    assert {name: adapt.before(name) for name in adapt.chains} == {
        "calibrated": None,
        "dann": None,
        "quantile_morph": None,
        "calibrate_response_reweight": "calibrated",
        "morphed": "quantile_morph",
        "calibrate_response_reweight_self_training": "calibrate_response_reweight",
        "both": "calibrate_response_reweight_self_training",
    }
    assert {name: adapt.sample_of(name) for name in adapt.chains} == {
        "calibrated": "calibrated",
        "dann": None,
        "quantile_morph": "quantile_morph",
        "calibrate_response_reweight": "calibrate_response_reweight",
        "morphed": "quantile_morph",
        "calibrate_response_reweight_self_training": "calibrate_response_reweight",
        "both": "calibrate_response_reweight",
    }
    assert [adapt.last(name).kind for name in ("both", "morphed", "calibrated")] == [
        "dann",
        "mmd",
        "calibrate_response",
    ]
    assert all(adapt.changes_sample(step) for step in ("calibrate_response", "quantile_morph", "tune_on_data"))
    assert not any(adapt.changes_sample(step) for step in ("dann", "mmd", "self_training", "decorrelate"))


def test_order_of_candidates_does_not_matter():
    turned = dict(reversed(CHAINS["candidates"].items()))
    one, other = (
        validate({"adapt": {"candidates": each}}, "here").adapt.chains for each in (CHAINS["candidates"], turned)
    )
    assert list(one.items()) == list(other.items())


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("none", []),
        ("dann", ["dann"]),
        ("calibrated", ["calibrated"]),
        ("morphed", ["quantile_morph", "morphed"]),
        (
            "both",
            ["calibrated", "calibrate_response_reweight", "calibrate_response_reweight_self_training", "both"],
        ),
        (
            "auto",
            ["calibrated", "dann", "quantile_morph", "calibrate_response_reweight", "morphed",
             "calibrate_response_reweight_self_training", "both"],
        ),
    ],
)  # fmt: skip
def test_a_method_needs_its_candidate_with_its_starts(method, used):
    config = validate({"adapt": CHAINS | {"method": method}, "publish": {"model": "fse"}}, "here")
    assert list(config.adapt.used) == used
    assert config.adapt.used.items() <= config.adapt.chains.items()
    assert config.candidates == {f"fse_{name}": name for name in used}


def test_trees_are_adapted_by_samples_alone():
    chains = candidates(own=["calibrate_response", "reweight"], trained=["calibrate_response", "dann"])
    config = validate({"adapt": {"model": "gbdt", "method": "own"} | chains}, "here")
    assert config.candidates == {"gbdt_calibrate_response": "calibrate_response", "gbdt_own": "own"}
    assert (config.adapted, config.published) == ("gbdt_adapted", "gbdt_adapted")


def test_models_are_of_the_kind_of_their_name_unless_they_say_otherwise():
    config = validate(with_models(fse=None, net={"kind": "fse", "network": {"width": 6}}, tabm={"members": 3}), "here")
    assert {name: entry.kind for name, entry in config.models.items()} == {
        "nsigma": "nsigma", "gbdt": "gbdt", "fse": "fse", "net": "fse", "tabm": "tabm",
    }  # fmt: skip
    dumped = config.model_dump(mode="json")["models"]
    assert dumped["net"]["network"]["width"] == 6 and dumped["fse"]["network"]["width"] == 32
    assert dumped["tabm"]["members"] == 3
    assert validate(config.model_dump(mode="json"), "here") == config


ADAPTED = ("fse_calibrated", "fse_dann", "fse_self_trained", "fse_adapted")


@pytest.mark.parametrize(
    ("content", "adapted", "compared", "published"),
    [
        ({}, "fse_adapted", ("nsigma", "gbdt", "fse", *ADAPTED), "fse_adapted"),
        ({"publish": {"model": "gbdt"}}, "fse_adapted", ("nsigma", "gbdt", "fse", *ADAPTED), "gbdt"),
        (
            {"adapt": {"method": "self_trained"}},
            "fse_adapted",
            ("nsigma", "gbdt", "fse", "fse_calibrated", "fse_self_trained", "fse_adapted"), "fse_adapted",
        ),
        (
            {"publish": {"model": "fse"}, "adapt": {"method": "none", "model": "nowhere"}},
            None, ("nsigma", "gbdt", "fse"), "fse",
        ),
        (
            with_models(net={"kind": "fse"})
            | {"adapt": {"model": "net", "method": "dann"}, "evaluate": {"methods": ["gbdt"]}},
            "net_adapted", ("gbdt", "net_dann", "net_adapted"), "net_adapted",
        ),
    ],
)  # fmt: skip
def test_models_that_are_adapted_compared_and_published(content, adapted, compared, published):
    config = validate(content, "here")
    assert (config.adapted, config.compared, config.published) == (adapted, compared, published)


def test_names_of_adapted_models_are_taken():
    """Both would be written to one folder; and 'adapted' already means the chosen one."""
    for name in (*ADAPTED, "adapted"):
        with pytest.raises(PidflowError, match=f"'models.{name}' has a name that stands for another model"):
            validate(with_models(**{name: {"kind": "gbdt"}}), "here")
    chains = candidates(own=["calibrate_response", "dann"])
    with pytest.raises(PidflowError, match=r"'models\.fse_calibrate_response' has a name"):
        validate(with_models(fse_calibrate_response={"kind": "gbdt"}) | {"adapt": chains}, "here")
    # a candidate that is not made takes no name
    validate(with_models(fse_dann={"kind": "gbdt"}) | {"adapt": {"method": "calibrated"}}, "here")


def test_needs_of_a_blend_are_its_members():
    config = validate(with_models(blend={"members": ["gbdt", "fse"]}), "here")
    assert config.models["blend"].needs == ("gbdt", "fse")
    assert config.models["fse"].needs == ()


def test_configuration_that_is_no_mapping():
    with pytest.raises(PidflowError, match="here: key '\\(top level\\)' is not valid"):
        validate(["species"], "here")


def test_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(tmp_path / "empty.yaml") == Config()


def test_blocks_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().dataset.masks.tof = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(("path", "text"), [(SCHEMA, schema_text), (PAGE, page_text)], ids=["schema", "page"])
def test_generated_documents_are_in_step_with_the_code(path, text):
    assert (ROOT / path).read_text(encoding="utf-8") == text(), f"{path} is out of date; run: make docs"


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path):
    given, default = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (path, ROOT / "config/config.yaml"))
    config = validate(merged(default, given), path.name).model_dump(mode="json")

    def check(part: dict[str, Any], whole: dict[str, Any]) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                check(value, whole[key])
            else:
                assert whole[key] == value

    check(given, config)


def test_examples_are_found():
    assert (ROOT / "config/config.yaml").is_file()
    assert list(ROOT.glob("config/examples/*.yaml"))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        # a block, or a block or null
        annotations = (
            field.annotation,
            *(get_args(field.annotation) if get_origin(field.annotation) is UnionType else ()),
        )
        blocks = [block for block in annotations if isinstance(block, type) and issubclass(block, BaseModel)]
        for block in blocks:
            yield from leaves(block, f"{prefix}{name}.")
        if not blocks:
            yield prefix + name


def keys_of_kinds(found: Any = models) -> Iterator[tuple[str, str]]:
    """Yield each kind of model, or of step, with each key of its entries."""
    for kind in found.kinds():
        yield from ((kind, key) for key in leaves(found.settings_of(kind)) if key.rsplit(".", 1)[-1] != "kind")


def test_every_key_is_read_somewhere():
    code = [ROOT / "Snakefile", *ROOT.glob("rules/*.smk"), *ROOT.glob("workflow/scripts/**/*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in code if path.name != "models.py")
    keys = [*leaves(Config), *(key for found in (models, adaptation) for _, key in keys_of_kinds(found))]
    # sizes of networks are handed on as a whole
    sizes = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("workflow/scripts/pidflow/networks/*.py"))
    keys = [key for key in keys if not re.search(rf"\b{key.rsplit('.', 1)[-1]}: ", sizes)]
    unused = [key for key in keys if not re.search(rf"[.<\"]{re.escape(key.rsplit('.', 1)[-1])}(\b|>)", text)]
    assert not unused


def test_every_key_of_the_default_file_is_a_key_of_the_configuration():
    def paths(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    given = list(paths(yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))))
    assert given
    known = {*leaves(Config), *(f"{kind}:{key}" for kind, key in keys_of_kinds())}
    entries = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))["models"]
    for key in given:
        block, name, *rest = [*key.split("."), ""]
        if block == "models" and rest != ["kind", ""]:
            key = f"{entries[name].get('kind', name)}:{'.'.join(rest[:-1])}"
        # names of candidates are free
        key = re.sub(r"^adapt\.candidates\.\w+$", "adapt.candidates", key)
        assert key in known or rest == ["kind", ""], key


def test_page_lists_every_key():
    page = page_text()
    missing = [key for key in leaves(Config) if f"| `{key}` |" not in page]
    assert not missing
    for found in (models, adaptation):
        parts = {kind: page.partition(f"\n### {kind}\n")[2].partition("\n#")[0] for kind in found.kinds()}
        assert all(parts.values())
        assert [pair for pair in keys_of_kinds(found) if f"| `{pair[1]}` |" not in parts[pair[0]]] == []
    assert [name for name in HEADER if f"| `{name}` |" not in page] == []


# the run table


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("sim_1.root", "sim_2.root", "data_1.root"):
        (tmp_path / name).write_text("")
    return tmp_path


def row(folder: Path, **changes: object) -> dict[str, str]:
    values = {
        "run": 544121,
        "period": "LHC23zs",
        "pass": "apass5",
        "system": "pp_13.6TeV",
        "year": 2023,
        "bz": -5.0,
        "data": folder / "data_1.root",
        "simulation": folder / "sim_1.root",
        "valid_from": 1000,
        "valid_until": 2000,
        **changes,
    }
    return {name: str(value) for name, value in values.items()}


def write_table(folder: Path, *rows: dict[str, str], header: tuple[str, ...] = HEADER) -> Path:
    lines = ["# a comment", "\t".join(header), "", *("\t".join(each[name] for name in header) for each in rows)]
    (folder / "runs.tsv").write_text("\n".join(lines) + "\n")
    return folder / "runs.tsv"


def read(folder: Path, *rows: dict[str, str], **options: Any):
    return dict(load_runs(write_table(folder, *rows, **options), "generated"))


def test_good_row(files):
    runs = read(files, row(files), row(files, run=7, data="", bz=0))
    assert list(runs) == [544121, 7]
    run = runs[544121]
    assert (run.period, run.recopass, run.system, run.year, run.bz) == ("LHC23zs", "apass5", "pp_13.6TeV", 2023, -5.0)
    assert (run.valid_from, run.valid_until) == (1000, 2000)
    assert run.data == (f"{files}/data_1.root",)
    assert runs[7].data == ()
    assert list(run.files("simulation").values()) == [f"{files}/sim_1.root"]
    assert list(run.files("data").values()) == [f"{files}/data_1.root"]


def test_columns_in_another_order(files):
    assert list(read(files, row(files), header=tuple(reversed(HEADER)))) == [544121]


@pytest.mark.parametrize("header", [HEADER[1:], (*HEADER[:5], *HEADER[6:])])
def test_missing_column(files, header):
    with pytest.raises(PidflowError, match=r"runs.tsv: the columns must be run, period, pass, .*separated by tabs"):
        read(files, row(files), header=header)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"simulation": ""}, "run 544121: the run has no simulation"),
        ({"simulation": " ; "}, "run 544121: the run has no simulation"),
        ({"bz": 0.5}, "run 544121: bz = 0.5 kG .* not tesla"),
        ({"bz": -0.2}, "not tesla"),
        ({"bz": 50}, "run 544121, column 'bz'"),
        ({"bz": "nan"}, "run 544121, column 'bz'"),
        ({"valid_from": 2000}, "'valid_from' must lie before 'valid_until'"),
        ({"valid_from": 3000}, "'valid_from' must lie before 'valid_until'"),
        ({"valid_from": -1}, "column 'valid_from'"),
        ({"year": 1999}, "column 'year'"),
        ({"year": "soon"}, "column 'year'"),
        ({"run": 0}, "run 0, column 'run'"),
        ({"run": "LHC"}, "run LHC, column 'run'"),
        ({"period": "../../etc"}, "column 'period': only letters"),
        ({"period": ".."}, "column 'period'"),
        ({"period": ""}, "column 'period'"),
        ({"pass": "a/b"}, "column 'pass'"),
        ({"pass": "a b"}, "column 'pass'"),
        ({"system": "pp;rm"}, "column 'system'"),
        ({"system": "pp\u00e9"}, "column 'system'"),
    ],
)
def test_wrong_value_names_run_and_column(files, changes, sentence):
    with pytest.raises(PidflowError, match=sentence):
        read(files, row(files, **changes))


def test_duplicate_run(files):
    with pytest.raises(PidflowError, match="run 544121 is listed twice; keep one row"):
        read(files, row(files), row(files))


def test_table_without_runs_and_without_file(files):
    with pytest.raises(PidflowError, match="no run is listed"):
        read(files)
    with pytest.raises(PidflowError, match=r"nowhere.tsv: the run table does not exist"):
        load_runs(files / "nowhere.tsv", "generated")


def test_files_of_a_run_are_looked_for_when_it_is_asked_for(files):
    table = write_table(files, row(files), row(files, run=2, data="nowhere/*.root"))
    runs = load_runs(table, "generated")
    assert list(runs) == [544121, 2] and len(runs) == 2
    assert runs[544121] is runs[544121]
    with pytest.raises(PidflowError, match="run 2: data file nowhere"):
        runs[2]
    with pytest.raises(PidflowError, match="run 2: data file nowhere"):
        check_runs(Config(), runs)


@pytest.mark.parametrize("column", ["data", "simulation"])
def test_missing_file_is_named(files, column):
    with pytest.raises(PidflowError, match=f"run 544121: {column} file .*absent.root does not exist"):
        read(files, row(files, **{column: files / "absent.root"}))


def test_glob_without_match_is_a_missing_file(files):
    with pytest.raises(PidflowError, match=r"other_\*.root does not exist"):
        read(files, row(files, data=files / "other_*.root"))


def test_generated_files_need_not_exist(files):
    runs = read(files, row(files, data="generated/5/data_001.root"))
    assert runs[544121].data == ("generated/5/data_001.root",)
    with pytest.raises(PidflowError, match=r"generated2/data_001\.root does not exist"):
        read(files, row(files, data="generated2/data_001.root"))


def test_globs_expand_sorted_and_lists_keep_their_order(files):
    (files / "a.root").write_text("")
    runs = read(files, row(files, simulation=files / "sim_*.root", data=f"{files}/data_1.root ; {files}/a.root"))
    assert runs[544121].simulation == (f"{files}/sim_1.root", f"{files}/sim_2.root")
    assert runs[544121].data == (f"{files}/data_1.root", f"{files}/a.root")


def test_recursive_glob(files):
    (files / "deep" / "er").mkdir(parents=True)
    (files / "deep" / "er" / "sim_3.root").write_text("")
    assert read(files, row(files, simulation=f"{files}/deep/**/*.root"))[544121].simulation == (
        f"{files}/deep/er/sim_3.root",
    )


@pytest.mark.parametrize("pattern", ["{0}/sim_1.root;{0}/sim_1.root", "{0}/sim_1.root;{0}/sim_*.root"])
def test_file_listed_twice(files, pattern):
    with pytest.raises(PidflowError, match=r"simulation file .*sim_1.root is listed twice"):
        read(files, row(files, simulation=pattern.format(files)))


@pytest.mark.parametrize(
    ("data", "simulation", "named"),
    [
        ("{0}/sim_1.root", "{0}/sim_1.root", "simulation file .*sim_1.root is listed twice, as data too; list it once"),
        (
            "{0}/data_1.root",
            "{0}/sim_1.root;{0}/../{1}/./sim_1.root",
            "simulation file .*sim_1.root is listed twice; list",
        ),
        (
            "root://h//a.root",
            "xroot://H:1094//a.root",
            r"simulation file xroot://H:1094//a\.root is listed twice, as data",
        ),
        (
            "https://h/a.root;https://h:443//a.root",
            "{0}/sim_1.root",
            r"data file https://h:443//a\.root is listed twice",
        ),
    ],
)
def test_file_listed_twice_in_other_words(files, data, simulation, named):
    with pytest.raises(PidflowError, match=f"run 544121: {named}"):
        read(files, row(files, data=data.format(files), simulation=simulation.format(files, files.name)))


def test_relative_and_absolute_path_are_one_file(files, monkeypatch):
    monkeypatch.chdir(files)
    with pytest.raises(PidflowError, match=r"simulation file sim_1\.root is listed twice; list it once"):
        read(files, row(files, simulation=f"{files}/sim_1.root;sim_1.root"))


def test_addresses_are_taken_as_they_are(files):
    uris = ("root://eospublic.cern.ch//eos/b/AO2D.root", "https://example.org/a/AO2D.root")
    run = read(files, row(files, data=";".join(uris)))[544121]
    assert run.data == uris
    assert run.files("data") == {file_key(uri): uri for uri in uris}
    assert len(run.files("data")) == 2


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("http://h/x.root", r"data http://h/x\.root: plain http is not encrypted; use https"),
        ("alien:///alice/x.root", "data alien:///alice/x.root: 'alien' is not supported"),
        ("https://h/*.root", "https servers cannot list files"),
        ("root://me:secret@h//x.root", r"data root://\.\.\.@h//x\.root: an address must not carry .*X509_USER_PROXY"),
        ("https://h/x.root?authz=secret", r"data https://h/x\.root\?\.\.\.: .*BEARER_TOKEN_FILE"),
    ],
)
def test_address_that_is_not_accepted(files, uri, sentence):
    (files / "list.txt").write_text(f"{uri}\n")
    for entry in (uri, f"@{files}/list.txt"):
        with pytest.raises(PidflowError, match=f"run 544121: .*{sentence}") as caught:
            read(files, row(files, data=entry))
        assert "secret" not in str(caught.value)


def test_list_of_files(files, monkeypatch):
    monkeypatch.chdir(files)
    lines = (
        "# made by hand",
        "sim_2.root",
        "",
        "  root://h//z.root ",
        "data_?.root",
        "# https://h/no.root",
        "generated/1.root",
    )
    (files / "list.txt").write_text("\r\n".join(lines))
    run = read(files, row(files, data="https://h/a.root;@list.txt", simulation="sim_1.root"))[544121]
    assert run.data == ("https://h/a.root", "sim_2.root", "root://h//z.root", "data_1.root", "generated/1.root")


def test_list_repeats_a_file(files):
    (files / "list.txt").write_text(f"{files}/sim_1.root\n")
    with pytest.raises(PidflowError, match=r"simulation file .*sim_1\.root is listed twice"):
        read(files, row(files, simulation=f"{files}/sim_1.root;@{files}/list.txt"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"data list .*list\.txt cannot be read; give the path of a text file after '@'"),
        (b"PAR1\xff\xfe", r"data list .*list\.txt cannot be read"),
        (b"", r"data list .*list\.txt names no file; give one per line"),
        (b"# none\n\n", r"data list .*list\.txt names no file"),
        (b"@other.txt\n", r"data list .*list\.txt names the list @other\.txt; name its files instead"),
        (b"absent.root\n", r"data file absent\.root does not exist; correct the path in the run table or its list"),
    ],
)
def test_bad_list(files, content, sentence):
    if content is not None:
        (files / "list.txt").write_bytes(content)
    with pytest.raises(PidflowError, match=f"run 544121: {sentence}"):
        read(files, row(files, data=f"@{files}/list.txt"))


def test_shipped_run_table():
    runs = load_runs(ROOT / "config/runs.tsv", Config().example.folder)
    assert sorted(runs) == [900001, 900002]
    assert all(len(run.data) == 3 and len(run.simulation) == 4 for run in runs.values())


CLOSURE = {"closure": {"truth": "{folder}/{stem}.truth.parquet"}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "run 544121 has no data to adapt to; .*'adapt.method' to none"),
        (CLOSURE | UNADAPTED, "run 544121 has no data for closure"),
    ],
)
def test_what_needs_data(files, content, sentence):
    config = validate(content, "here")
    check_runs(config, read(files, row(files)))
    with pytest.raises(PidflowError, match=sentence):
        check_runs(config, read(files, row(files, run=1), row(files, data="")))


def test_run_without_data_and_adaptation(files):
    check_runs(validate(UNADAPTED, "here"), read(files, row(files, data="")))


def test_file_key():
    digest = hashlib.sha256(b"/a/AO2D.root").hexdigest()[:8]
    assert file_key("/a/AO2D.root") == f"AO2D-{digest}"
    keys = [file_key(f"/{folder}/AO2D.root") for folder in "abcdef"]
    assert len(set(keys)) == 6
    wild = file_key("/a/" + "x" * 300 + " ü{}*?.root")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,69}", wild)


def test_file_key_does_not_depend_on_other_files(files):
    alone = read(files, row(files))[544121].files("simulation")
    both = read(files, row(files, simulation=files / "sim_*.root"))[544121].files("simulation")
    assert len(both) == 2
    assert alone.items() <= both.items()
