"""The gate before publication: nothing goes out that O2Physics could not load or would evaluate otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.external_data_helper import uses_external_data

from pidflow.errors import PidflowError
from pidflow.files import sha256, write_json
from pidflow.model import ModelInfo
from pidflow.models import load
from pidflow.models.base import Model
from pidflow.publish import samples
from pidflow.publish.names import (
    COLUMNS_FILE,
    GATE_FILE,
    MODEL_PREFIX,
    SCALING_FILE,
    bundle_files,
    model_file,
    outside_default_join,
    p_limits,
    without_label,
)
from pidflow.publish.o2 import O2PidModel, O2Tracks
from pidflow.publish.samples import Floats
from pidflow.tracks import O2_MASKED, o2_label

MAX_IR = 9
MAX_OPSETS = {"": 17, "ai.onnx.ml": 3}
"""Latest operators by domain; the second holds tree ensembles and is part of every build of ONNX Runtime."""

_LOADER_TRACKS = 64
_SINGLES = 4
_MANY = 4096


@dataclass(frozen=True)
class _Case:
    name: str
    raw: Floats
    batch: int


def _structure(path: Path, features: int) -> None:
    """Raise `PidflowError` for a graph that the loader, or an older ONNX Runtime, would stumble over."""

    def defect(text: str) -> PidflowError:
        return PidflowError(f"{path}: {text}; export the model again")

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has no public base class for a parse error
        raise defect(f"it is no ONNX file ({type(error).__name__})") from None
    domains = {opset.domain: opset.version for opset in model.opset_import}
    beyond = any(version > MAX_OPSETS.get(domain, 0) for domain, version in domains.items())
    if model.ir_version > MAX_IR or beyond:
        raise defect(f"IR {model.ir_version} with operators {domains} is beyond IR {MAX_IR} and {MAX_OPSETS}")
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    if any(uses_external_data(tensor) for tensor in tensors):
        raise defect("its weights lie in another file, which O2Physics does not fetch")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise defect(f"the ONNX checker refuses it: {str(error).splitlines()[0]}") from None
    for kind, values, width in (("input", model.graph.input, features), ("output", model.graph.output, 1)):
        if len(values) != 1:
            raise defect(f"it has {len(values)} {kind}s instead of one")
        tensor = values[0].type.tensor_type
        sizes = tensor.shape.dim
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            raise defect(f"its {kind} is not float32")
        if len(sizes) != 2 or sizes[1].dim_value != width:
            raise defect(f"its {kind} is not [n, {width}] with a fixed second dimension")
        if sizes[0].WhichOneof("value") == "dim_value":
            raise defect(f"the number of tracks is frozen at {sizes[0].dim_value} in its {kind}")


def _files(folder: Path, info: ModelInfo) -> None:
    """Raise `PidflowError` if the folder's loadable files are not exactly those of the model's species."""
    expected = bundle_files(info.species)
    for name in expected:
        if not (folder / name).is_file():
            raise PidflowError(f"{folder / name}: the file is missing; export the model again")
    for path in sorted(folder.glob(f"{MODEL_PREFIX}*")):
        if path.name not in expected:
            raise PidflowError(f"{path}: the model has no such species; remove the file and export again")


def _loaded(folder: Path, info: ModelInfo, pdg: int) -> O2PidModel:
    """Return the model as O2Physics loads it, after comparing the two JSON files with the model's features."""
    model = O2PidModel(folder, pdg, limits=p_limits(info.masks))
    labels = tuple(o2_label(name) for name in info.features)
    if model.columns != labels:
        raise PidflowError(
            f"{folder / COLUMNS_FILE}: the columns {list(model.columns)} are not the model's {list(labels)} in this"
            " order; export the model again"
        )
    scaling = {label: (float(mean), float(std)) for label, (mean, std) in model.scaling.items()}
    if scaling != dict.fromkeys(labels, (0.0, 1.0)):
        raise PidflowError(
            f"{folder / SCALING_FILE}: the scaling is not mean 0 and deviation 1 for each column, although the graph"
            " scales; export the model again"
        )
    return model


def _cases(base: Floats, info: ModelInfo) -> Iterator[_Case]:
    missing = samples.patterns(info.features)
    few = base[np.linspace(0, len(base) - 1, 7).astype(int)]
    for name, positions in missing.items():
        rows = samples.with_missing(few, positions)
        yield _Case(f"{name}, single tracks", rows[:_SINGLES], 1)
        yield _Case(f"{name}, 7 tracks", rows, 7)
        many = np.resize(base, (_MANY, base.shape[1]))
        yield _Case(f"{name}, {_MANY} tracks", samples.with_missing(many, positions), _MANY)
    for batch, count in ((1, len(missing)), (7, 7 * len(missing)), (_MANY, max(_MANY, len(base)))):
        rows = samples.mixed(base, list(missing.values()), count)
        yield _Case(f"mixed detectors, {batch} at a time", rows, batch)
    odd = samples.edges(base[0])
    yield _Case("odd values, single tracks", odd, 1)
    yield _Case("odd values, together", odd, len(odd))


def _reference(model: Model[Any], raw: Floats) -> Floats:
    """Return certainties [N, S], 0 for a track that the model cannot score."""
    return np.nan_to_num(model.score(raw), nan=0.0)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(path: Path, case: str, got: Floats, expected: Floats, tolerance: float) -> float:
    """Return the largest difference between certainties [n]; raise `PidflowError` for a defect."""
    if not np.isfinite(got).all():
        raise PidflowError(f"{path}: the certainty is not finite for {case}; mend the graph's masks or clamp")
    if got.min() < 0 or got.max() > 1:
        raise PidflowError(f"{path}: the certainty leaves [0, 1] for {case}; the graph must end with a sigmoid")
    worst = float(np.abs(got - expected).max())
    if not worst <= tolerance:
        raise PidflowError(
            f"{path}: it differs from the model by {worst:.2g} for {case}, more than 'publish.tolerance'"
            f" {tolerance:g}; export the model again"
        )
    return worst


def _evaluate(path: Path, session: onnxruntime.InferenceSession, case: _Case) -> Floats:
    name, batches = session.get_inputs()[0].name, []
    for start in range(0, len(case.raw), case.batch):
        raw = case.raw[start : start + case.batch]
        try:
            certainty = session.run(None, {name: raw})[0]
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise PidflowError(f"{path}: it fails for {case.name}: {error}; export the model again") from None
        if certainty.shape != (len(raw), 1):
            raise PidflowError(f"{path}: {len(raw)} tracks give {certainty.shape} for {case.name}; export it again")
        batches.append(certainty[:, 0])
    return np.concatenate(batches)


def _loader_tracks(base: Floats, info: ModelInfo, seed: int) -> tuple[O2Tracks, Floats]:
    """Return tracks as the framework holds them and the raw features [n, F] that the model must see for them.

    Momenta straddle the detector masks; what O2Physics does not mask itself is there, as its sentinels would be.
    """
    generator = np.random.default_rng(seed)
    raw = np.nan_to_num(np.resize(base, (_LOADER_TRACKS, base.shape[1])), nan=-999.0)
    limits = p_limits(info.masks)
    has_trd, has_tof = generator.random((2, len(raw))) < 0.7
    p = generator.choice([0.05, 3.0, *limits, *(0.99 * limit for limit in limits)], len(raw)).astype(np.float32)
    if "p" in info.features:
        raw[:, info.features.index("p")] = p
    columns = {o2_label(name): raw[:, index].copy() for index, name in enumerate(info.features)}
    for detector, seen, limit in (("tof", has_tof, limits[1]), ("trd", has_trd, limits[2])):
        hidden = ~seen | (p.astype(np.float64) < limit)
        for name in set(O2_MASKED[detector]) & set(info.features):
            raw[hidden, info.features.index(name)] = np.nan
    return O2Tracks(columns, p, has_trd, has_tof), raw


def _check_species(
    folder: Path, pdg: int, certainty: Sequence[tuple[_Case, Floats]], loader: tuple[O2PidModel, O2Tracks, Floats],
    tolerance: float,
) -> dict[str, Any]:  # fmt: skip
    path = folder / model_file(pdg)
    session = _session(path)
    worst, where, checks = -1.0, "", 0
    for case, expected in certainty:
        difference = _difference(path, case.name, _evaluate(path, session, case), expected, tolerance)
        worst, where = max((worst, where), (difference, case.name), key=lambda pair: pair[0])
        checks += len(expected)
    model, tracks, expected = loader
    through_loader = model.apply(tracks)
    if model.failures:
        raise PidflowError(f"{path}: the loader's inference fails: {model.last_error}; export the model again")
    difference = _difference(path, "tracks through the loader", through_loader, expected, tolerance)
    worst, where = max((worst, where), (difference, "tracks through the loader"), key=lambda pair: pair[0])
    return {
        "pdg": pdg,
        "file": path.name,
        "n_checks": checks + len(expected),
        "worst_difference": worst,
        "worst_case": where,
    }


def check_bundle(
    bundle_dir: str | Path,
    model_dir: str | Path,
    tolerance: float,
    *,
    dataset: str | Path,
    rows: int = 4096,
    seed: int = 0,
) -> dict[str, Any]:
    """Check a bundle against the model it was made of, and write ``gate.json`` into it if it passes.

    Parameters
    ----------
    bundle_dir
        Folder that `pidflow.publish.export.export_bundle` wrote.
    model_dir
        Model directory.
    tolerance
        Largest difference between a graph's and the model's certainty that passes.
    dataset
        Dataset whose first tracks are tried, and others around them.
    rows
        Tracks of each of these two.
    seed
        Seed of the generated tracks.

    Returns
    -------
    dict
        Content of ``gate.json``: number of comparisons, worst difference, detector patterns, one record per species,
        the labels that O2Physics' example tasks do not join, and the SHA-256 of each file that passed.

    Raises
    ------
    PidflowError
        Naming the file and its first defect; an earlier ``gate.json`` is removed.
    """
    folder, model = Path(bundle_dir), load(model_dir)
    info = model.info
    (folder / GATE_FILE).unlink(missing_ok=True)
    if foreign := without_label(info.features):
        raise PidflowError(f"{model_dir}: O2Physics delivers no '{foreign[0]}'; remove it from 'features.candidates'")
    _files(folder, info)
    for pdg in info.species:
        _structure(folder / model_file(pdg), len(info.features))
    loaded = [_loaded(folder, info, pdg) for pdg in info.species]
    observed = samples.from_dataset(dataset, info.features, rows)
    base = np.concatenate([observed, samples.around(observed, rows, seed)])
    cases = [(case, _reference(model, case.raw)) for case in _cases(base, info)]
    tracks, seen = _loader_tracks(base, info, seed)
    through_loader = _reference(model, seen)
    species = []
    for index, (pdg, one) in enumerate(zip(info.species, loaded, strict=True)):
        expected = [(case, certainty[:, index]) for case, certainty in cases]
        species.append(_check_species(folder, pdg, expected, (one, tracks, through_loader[:, index]), tolerance))
    report = {
        "run": info.run,
        "tolerance": tolerance,
        "n_checks": sum(record["n_checks"] for record in species),
        "worst_difference": max(record["worst_difference"] for record in species),
        "patterns": list(samples.patterns(info.features)),
        "outside_default_join": outside_default_join(info.features),
        "species": species,
        "files": {name: sha256(folder / name) for name in bundle_files(info.species)},
    }
    write_json(folder / GATE_FILE, report)
    return report
