"""Entries of the configuration: their kinds, candidates made of steps, and names that follow from them."""

from typing import Any

import pytest
from config_sample import candidates, with_models

from pidflow.adapt import steps as adaptation
from pidflow.config import validate
from pidflow.config.models import Config
from pidflow.errors import PidflowError


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


ADAPTED = ("fse_calibrated", "fse_self_trained", "fse_adapted")


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
            | {"adapt": candidates(own=["dann"]) | {"model": "net", "method": "own"}}
            | {"evaluate": {"methods": ["gbdt"]}},
            "net_adapted", ("gbdt", "net_own", "net_adapted"), "net_adapted",
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
    validate(with_models(fse_self_trained={"kind": "gbdt"}) | {"adapt": {"method": "calibrated"}}, "here")


def test_needs_of_a_blend_are_its_members():
    config = validate(with_models(blend={"members": ["gbdt", "fse"]}), "here")
    assert config.models["blend"].needs == ("gbdt", "fse")
    assert config.models["fse"].needs == ()
