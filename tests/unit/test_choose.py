"""From a requested purity or efficiency to O2Physics' configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_publish_documents import fragment, make_card, make_info
from test_registry import PATH, put
from test_registry_compare import publish_documents

from pidflow.errors import PidflowError
from pidflow.files import read_json, write_json
from pidflow.publish.choose import choose
from pidflow.publish.registry import Entry

HEADER = (
    "pdg,charge,criterion,requested,threshold,purity,purity_low,purity_high,"
    "efficiency,efficiency_low,efficiency_high,f1,reached\n"
)
RATES = "0.9,0.89,0.91,0.8,0.79,0.81,0.85"
TABLE = HEADER + "".join(
    f"{pdg},{charge},{criterion},{requested},{threshold},{RATES if reached == 'True' else ',,,,,,'},{reached}\n"
    for pdg, charge, criterion, requested, threshold, reached in (
        (211, 1, "purity", 0.95, 0.7, "True"),
        (211, 1, "purity", 0.8, 0.4, "True"),
        (211, 1, "purity", 0.9, 0.6, "True"),
        (211, 1, "purity", 0.99, "", "False"),
        (211, 1, "efficiency", 0.8, 0.3, "True"),
        (211, 1, "efficiency", 0.9, 0.2, "True"),
        (211, 1, "fixed", 0.5, 0.5, "True"),
        (211, 1, "max_f1", "", 0.45, "True"),
        (-2212, -1, "purity", 0.9, 0.65, "True"),
        (-2212, -1, "max_f1", "", 0.35, "True"),
    )
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def put_model(store: Path, table: str | None = TABLE, **documents: Any) -> Entry:
    model = {"model_json": make_info(masks={"tof": 0.4, "trd": 0.9}).model_dump(mode="json")}
    points = {} if table is None else {"working_points_csv": table}
    return publish_documents(store, "a", ["fP"], **(documents or model), **points)


def test_the_choice_of_two_species(store: Path) -> None:
    entry = put_model(store)
    choice = choose(store, PATH, 150, {-2212: {"purity": 0.9}, 211: {"efficiency": 0.8}})
    assert choice.species == (211, -2212) and choice.certainties == (0.3, 0.65)
    assert choice.p_limits == (0.0, 0.4, 0.9)
    assert (choice.path, choice.timestamp, choice.run, choice.created) == (PATH, 150, "5", entry.created)
    assert choice.points[0].purity == 0.9 and choice.points[0].efficiency_high == 0.81


@pytest.mark.parametrize(
    ("request_", "certainty"),
    [
        ({"purity": 0.9}, 0.6),
        ({"purity": 0.85}, 0.6),
        ({"purity": 0.3}, 0.4),
        ({"purity": 0.91}, 0.7),
        ({"purity": 0.1 * 8}, 0.4),
        ({"purity": 0.9 + 1e-12}, 0.6),
        ({"efficiency": 0.81}, 0.2),
        ({"fixed": 0.5}, 0.5),
        ({"max_f1": None}, 0.45),
    ],
)
def test_the_same_or_the_next_stricter_point(store: Path, request_: dict[str, float | None], certainty: float) -> None:
    put_model(store)
    assert choose(store, PATH, 150, {211: request_}).certainties == (certainty, 0.35)


@pytest.mark.parametrize(
    ("pdg", "request_", "message"),
    [
        (
            211,
            {"purity": 0.96},
            r"working point of 211 has purity 0\.96; take one that was reached \(0\.8, 0\.9, 0\.95\)",
        ),
        (211, {"purity": 0.99}, r"has purity 0\.99"),
        (211, {"fixed": 0.4}, r"has fixed 0\.4; take one that was reached \(0\.5\)"),
        (-2212, {"efficiency": 0.5}, r"\(none\)"),
        (321, {"purity": 0.5}, "the model has no species 321; ask for 211, -2212"),
        (211, {"purity": 1.5}, "above 0 and up to 1"),
        (211, {"purity": float("nan")}, "above 0 and up to 1"),
        (211, {"purity": None}, "above 0 and up to 1"),
        (211, {"recall": 0.5}, "exactly one of max_f1, purity, efficiency, fixed"),
        (211, {"purity": 0.9, "efficiency": 0.9}, "exactly one of"),
        (211, {}, "exactly one of"),
    ],
)
def test_wishes_that_cannot_be_met(store: Path, pdg: int, request_: dict[str, float | None], message: str) -> None:
    put_model(store)
    with pytest.raises(PidflowError, match=message):
        choose(store, PATH, 150, {pdg: request_})


def test_the_time_decides_about_the_publication(store: Path) -> None:
    put_model(store)
    for timestamp in (99, 200):
        with pytest.raises(PidflowError, match=f"nothing is published for time {timestamp} ms"):
            choose(store, PATH, timestamp, {})
    with pytest.raises(PidflowError, match="nothing is published"):
        choose(store, "Users/p/other", 150, {})
    newer = publish_documents(
        store,
        "b",
        ["fP"],
        model_json=make_info().model_dump(mode="json"),
        working_points_csv=TABLE.replace("0.45", "0.46"),
    )
    choice = choose(store, PATH, 150, {})
    assert choice.created == newer.created and choice.certainties == (0.46, 0.35)


def test_a_species_without_best_f1_is_left_out_unless_asked_for(store: Path) -> None:
    without = "".join(line for line in TABLE.splitlines(True) if not line.startswith("-2212,-1,max_f1"))
    put_model(store, without)
    assert choose(store, PATH, 150, {}).species == (211,)
    with pytest.raises(PidflowError, match="of -2212 has max_f1"):
        choose(store, PATH, 150, {-2212: {"max_f1": None}})


def test_nothing_was_reached(store: Path) -> None:
    put_model(store, HEADER)
    with pytest.raises(PidflowError, match="no working point of any species was reached"):
        choose(store, PATH, 150, {})


def test_a_model_without_its_description_is_known_by_gate_and_provenance(store: Path) -> None:
    """Trees are published without ``model.json``."""
    masks = {"config": {"dataset": {"masks": {"tof": 0.3}}}}
    put_model(store, provenance_json=masks)
    with pytest.raises(PidflowError, match="do not tell the model's species and masks"):
        choose(store, PATH, 150, {})
    folder = store.parent / "bundle_a"
    gate = {**read_json(folder / "gate.json"), "species": [{"pdg": -2212}, {"pdg": 211}]}
    write_json(folder / "gate.json", gate)
    put(store, folder, metadata={"run": "5", "code": "b"})
    choice = choose(store, PATH, 150, {})
    assert choice.species == (-2212, 211) and choice.p_limits == (0.0, 0.3, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("211,1,purity,0.95,0.7", "211,1,purity,0.95,1.7", "line 2: column 'threshold'"),
        ("211,1,purity,0.95,0.7", "211,1,purity,0.95,nan", "line 2: column 'threshold'"),
        ("211,1,purity,0.95,0.7", "211,1,purity,0.95,", "line 2: reached, but without threshold"),
        ("211,1,purity,0.8", "pion,1,purity,0.8", "line 3: column 'pdg'"),
        (",reached\n", "\n", "line 2: column 'reached'"),
    ],
)
def test_tables_that_do_not_fit(store: Path, old: str, new: str, message: str) -> None:
    put_model(store, TABLE.replace(old, new, 1))
    with pytest.raises(PidflowError, match=f"working_points.csv, {message}"):
        choose(store, PATH, 150, {})


def test_a_publication_without_table(store: Path) -> None:
    put_model(store, None)
    with pytest.raises(PidflowError, match=r"has no working_points\.csv"):
        choose(store, PATH, 150, {211: {"purity": 0.9}})


def test_the_configuration_is_that_of_the_card(store: Path, tmp_path: Path) -> None:
    put_model(store)
    found = choose(store, PATH, 150, {211: {"purity": 0.95}}).fragment()["simple-apply-pid-onnx-interface"]
    card = fragment(make_card(tmp_path, make_info(masks={"tof": 0.4, "trd": 0.9})))
    changed = {"fixedTimestamp": "150", "mlIdentCertaintyThresholds": {"values": ["0.7", "0.35"]}, "autoMode": "false"}
    assert found == {**card, **changed}
