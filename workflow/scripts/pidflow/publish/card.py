"""The model card: what a published model is for, how good it is, and how to load it, in Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidflow.errors import PidflowError
from pidflow.files import read_json, write_text
from pidflow.model import ModelInfo
from pidflow.physics import charge_sign, species_of
from pidflow.publish.configuration import INTERFACE_FILE, ML_RESPONSE_FILE, interface
from pidflow.publish.names import default_working_point, model_file, outside_default_join, p_limits
from pidflow.tracks import BY_NAME, o2_label

_RATES = ("purity", "efficiency", "f1", "auc")
_MACRO = {"f1": "F1", "f1_hadrons": "F1, π K p", "auc": "AUC"}
_ABSENT = "–"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _interval(number: Mapping[str, Any] | float | None) -> str:
    """Return ``value [low, high]``, the value alone where there is no interval, or a dash."""
    if not isinstance(number, Mapping):
        return _ABSENT if number is None else f"{number:.4f}"
    if number.get("value") is None:
        return _ABSENT
    low, high = number.get("low"), number.get("high")
    bounds = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    return f"{number['value']:.4f}{bounds}"


def _species_name(pdg: int) -> str:
    return f"{species_of(pdg).key}{'+' if charge_sign(pdg) > 0 else '-'}"


def _features(info: ModelInfo) -> str:
    rows: list[tuple[object, ...]] = []
    for position, name in enumerate(info.features):
        column, label = BY_NAME[name], f"`{o2_label(name)}`"
        rows.append((position, name, label, column.unit or "1", column.detector, column.missing, column.doc))
    return _table(("#", "feature", "O2 label", "unit", "detector", "missing", "meaning"), rows)


def _metrics(title: str, path: str | Path) -> str:
    content = read_json(path)
    try:
        rows: list[tuple[object, ...]] = [
            (_species_name(record["pdg"]), record["pdg"], *(_interval(record["overall"].get(rate)) for rate in _RATES))
            for record in content["species"]
        ]
        means = content["macro"]
        macro = ", ".join(f"{label} {_interval(means[key])}" for key, label in _MACRO.items() if key in means)
    except (KeyError, TypeError) as error:
        raise PidflowError(f"{path}: the metrics have no {error}; evaluate the model again") from None
    return f"### {title}\n\n{_table(('species', 'PDG', *_RATES), rows)}\n\nMean over species: {macro or _ABSENT}.\n"


def _warning(code: str) -> tuple[str, ...]:
    """Return the warning of a publication whose code is not in the repository's history."""
    reasons = {"uncommitted": "was not committed", "unknown": "is not known to be in a git repository"}
    if code not in reasons:
        return ()
    return (f"> **Warning: code that made this model {reasons[code]}.** `provenance.json` names the steps.",)


def _code(surroundings: Mapping[str, Any]) -> str:
    return f"code {surroundings['code']}, at commit `{surroundings['git']['commit'] or 'unknown'}`"


def _adaptation(info: ModelInfo) -> str:
    if not info.adaptation:
        return "None: the model knows simulation only, and its certainties on data carry the simulation's defects."
    steps = []
    for number, step in enumerate(info.adaptation, 1):
        settings = ", ".join(f"{key} = {value}" for key, value in step.items() if key != "kind")
        steps.append(f"{number}. `{step['kind']}` ({settings or 'default settings'})")
    return (
        "From simulation to the run's own tracks without labels; no label of data was used to train, select or stop."
        " Steps, in this order:\n\n" + "\n".join(steps)
    )


def _choice(path: str | Path) -> str:
    """Return why this model was chosen among the candidates."""
    choice = read_json(path)
    rows: list[tuple[object, ...]] = [
        (name, _interval(found["auc"]), _interval(found["gain"]), found["reason"] or "accepted")
        for name, found in choice["candidates"].items()
    ]
    domain = choice["domain_auc"][choice["yardstick"]]["value"]
    warning = (
        ""
        if choice["trusted"]
        else "\n\n> **Warning: no simulated sample resembles the data well.** Look at the calibration before use."
    )
    return (
        f"Chosen among the candidates: `{choice['adapted']}`; {choice['reason']}. That sample is"
        f" `{choice['yardstick']}`: a classifier tells data from it with an AUC of {domain:.3f} (0.5 if there is no"
        " difference).\n\n"
        f"{_table(('candidate', 'macro AUC there', 'gain', 'verdict'), rows)}{warning}"
    )


def _efficiency(path: str | Path) -> str:
    """Return the efficiencies to be expected on data, over all pT."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    widest: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["pdg"] not in widest or float(row["pt_high"]) - float(row["pt_low"]) >= _width(widest[row["pdg"]]):
            widest[row["pdg"]] = row
    errors = ("statistical", "systematic", "response", "methods")
    lines: list[tuple[object, ...]] = [
        (_species_name(int(pdg)), pdg, *(f"{float(row[name]):.4f}" for name in ("efficiency", *errors, "unadapted")))
        for pdg, row in widest.items()
    ]
    header = ("species", "PDG", "efficiency", *(f"± {name}" for name in errors), "plain simulation says")
    return (
        "Share of the true tracks of a species in data that are accepted, estimated on simulation adapted to the run."
        " Systematic: `response` (the adaptation varied within its errors) and `methods` (half the range over all"
        f" accepted candidates) in quadrature. In bins of pT: `efficiency.csv`.\n\n{_table(header, lines)}"
    )


def _width(row: Mapping[str, str]) -> float:
    return float(row["pt_high"]) - float(row["pt_low"])


def _loading(info: ModelInfo, registry_path: str, timestamp: int, certainty: float) -> str:
    certainties = dict.fromkeys(info.species, certainty)
    fragment = interface(certainties, p_limits(info.masks), path=registry_path, timestamp=timestamp)
    text = json.dumps(fragment, indent=2, ensure_ascii=False)
    return (
        "Configuration of `o2-analysis-simple-apply-pid-onnx-interface`, with the files below in the folder"
        f" `localPath`. Once the objects are in a CCDB at `{registry_path}`, set `useCcdb` to true. The table `ptCuts`"
        " holds limits on p in spite of its name.\n\n"
        f"```json\n{text}\n```\n\nFiles: {', '.join(f'`{model_file(pdg)}`' for pdg in info.species)},"
        " `columns_for_training.json`, `scaling_params.json` (identity: the graphs scale). The same configuration is"
        f" `{INTERFACE_FILE}`; that of a task with an `MlResponse` is `{ML_RESPONSE_FILE}`.\n"
    )


def _limits(info: ModelInfo, certainty: float) -> str:
    lines = [
        "Certainties are one-vs-all: a track can be accepted as more than one species, or as none.",
        "Valid for this run, its reconstruction pass and this selection: other conditions shift the response.",
        "Track parameters must be those at the vertex (propagated tracks), as in training.",
        "An absent value that O2Physics does not mask arrives as the framework's sentinel: clamped, not recognised.",
    ]
    if extra := outside_default_join(info.features):
        lines.append(f"The example tasks of O2Physics do not join {', '.join(extra)}: add the tables that hold them.")
    if not default_working_point(info.masks, certainty):
        lines.append("The masks or the certainty are not O2Physics' defaults: `autoMode` must stay off.")
    approximate = [f"`{name}`: {BY_NAME[name].approximate}" for name in info.features if BY_NAME[name].approximate]
    return "\n".join(f"- {line}" for line in [*lines, *approximate])


def write_card(
    output_md: str | Path,
    *,
    run: Mapping[str, Any],
    info: ModelInfo,
    metrics: Mapping[str, str | Path],
    gate: Mapping[str, Any],
    provenance: Mapping[str, Any],
    registry_path: str,
    selection: Mapping[str, Any],
    certainty: float = 0.5,
    choice: str | Path | None = None,
    efficiency: str | Path | None = None,
) -> None:
    """Write the model card.

    Parameters
    ----------
    output_md
        File to write.
    run
        Row of the run table: run, period, pass, system, year, bz, valid_from, valid_until.
    info
        Model description.
    metrics
        Metrics file by title, such as ``{"simulation, test set": "metrics.json"}``.
    gate
        Report of the gate.
    provenance
        Record of the publication.
    registry_path
        Path of the objects, without object.
    selection
        Track selection as configured.
    certainty
        Certainty from which a track is accepted.
    choice, efficiency
        Why this model was chosen among candidates of adaptation, and the efficiencies to be expected on data
        (`pidflow.adapt.choice.select`); None for a model that was not adapted.

    Raises
    ------
    PidflowError
        If a metrics file lacks a part.
    """
    versions = ", ".join(f"{name} {' and '.join(found)}" for name, found in provenance["packages"].items())
    cuts: list[tuple[object, ...]] = [(key, _ABSENT if cut is None else cut) for key, cut in selection.items()]
    masks = ", ".join(f"{name.upper()} below p = {limit:g} GeV/c" for name, limit in sorted(info.masks.items()))
    parts = (
        f"# Particle identification for run {info.run}",
        *_warning(provenance["surroundings"]["code"]),
        "## Intended use\n\nCertainty in [0, 1] that a charged track is "
        f"{', '.join(map(_species_name, info.species))}, per track, for analyses of this run in O2Physics. Not meant"
        " for other runs, other reconstruction passes or triggers.",
        "## Data\n\n" + _table(("field", "value"), [(key, value) for key, value in run.items()]),
        f"## Selection and masks\n\n{_table(('cut', 'value'), cuts)}\n\nHidden from the model: {masks or 'nothing'}.",
        f"## Features\n\n{_features(info)}",
        "## Performance\n\nIntervals in brackets. Tracks are accepted from certainty "
        f"{certainty:g}.\n\n" + "\n".join(_metrics(title, path) for title, path in metrics.items()),
        f"## Adaptation\n\n{_adaptation(info)}" + (f"\n\n{_choice(choice)}" if choice else ""),
        *([f"## Efficiency on data\n\n{_efficiency(efficiency)}"] if efficiency else []),
        f"## Limits\n\n{_limits(info, certainty)}",
        f"## Loading in O2Physics\n\n{_loading(info, registry_path, int(run['valid_from']), certainty)}",
        f"## Checks\n\n{gate['n_checks']} comparisons with the network over {len(gate['patterns'])} detector patterns;"
        f" largest difference {gate['worst_difference']:.2g}, allowed {gate['tolerance']:g}.",
        f"## Provenance\n\nModel kind `{info.kind}`, seed {info.seed};"
        f" {_code(provenance['surroundings'])}; {len(provenance['inputs'])} inputs (checksums in `provenance.json`);"
        f" {versions}.",
    )
    write_text(output_md, "\n\n".join(part.strip() for part in parts) + "\n")
