"""What O2Physics does with a published model, step by step, without O2Physics.

Source: O2Physics ``Tools/PIDML/pidOnnxModel.h``, ``pidOnnxInterface.h`` and ``pidUtils.h``. What is a fatal error or an
uncaught exception there raises `PidflowError` here; what is logged and answered with a number there is counted here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from pidflow.errors import PidflowError
from pidflow.publish import registry as store
from pidflow.publish.names import (
    COLUMNS_FILE,
    COLUMNS_OBJECT,
    P_LIMITS,
    SCALING_FILE,
    SCALING_OBJECT,
    model_file,
    model_object,
)

Floats = NDArray[np.float32]

_TRD_LABELS = ("fTRDSignal", "fTRDPattern")
_TOF_LABELS = ("fTOFSignal", "fBeta")
_ORT_ERRORS = (
    ort.EPFail, ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.InvalidProtobuf, ort.NoSuchFile,
    ort.NotImplemented, ort.RuntimeException,
)  # fmt: skip


@dataclass(frozen=True)
class O2Tracks:
    """Tracks as the framework holds them.

    Attributes
    ----------
    columns
        Values by O2 label, each [n]; an absent value is the framework's own sentinel, not NaN.
    p
        Momentum in GeV/c, [n].
    has_trd, has_tof
        Whether the detector saw the track, bool [n].
    """

    columns: Mapping[str, NDArray[Any]]
    p: NDArray[Any]
    has_trd: NDArray[np.bool_]
    has_tof: NDArray[np.bool_]


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _document(path: Path) -> Any:
    """Parse a file as rapidjson does with default flags; None if the file is missing, which the loader survives."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except ValueError as error:
        raise PidflowError(f"{path}: O2Physics cannot parse it: {error}; export the bundle again") from None


def _columns(path: Path) -> tuple[str, ...]:
    document = _document(path)
    if document is None:
        return ()
    labels = document.get("columns_for_training") if isinstance(document, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise PidflowError(f"{path}: 'columns_for_training' is not a list of names; export the bundle again")
    return tuple(labels)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scaling(path: Path) -> dict[str, tuple[np.float32, np.float32]]:
    document = _document(path)
    if document is None:
        return {}
    rows = document.get("data") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise PidflowError(f"{path}: 'data' is not a list of rows; export the bundle again")
    scaling = {}
    for row in rows:
        if not (isinstance(row, list) and len(row) > 2 and isinstance(row[0], str) and all(map(_is_number, row[1:3]))):
            raise PidflowError(f"{path}: row {row!r} is not [name, mean, std]; export the bundle again")
        scaling[row[0]] = (np.float32(row[1]), np.float32(row[2]))
    return scaling


class O2PidModel:
    """One species' model as ``PidONNXModel`` loads and applies it.

    Parameters
    ----------
    folder
        Local folder (``localPath``).
    pdg
        Species.
    min_certainty
        Certainty from which a track is accepted.
    limits
        Momentum in GeV/c from which TPC (unused), TOF and TRD are given to the model.

    Attributes
    ----------
    columns
        O2 labels in the order of the inputs.
    scaling
        Mean and standard deviation by label; a label without an entry goes in raw.
    failures
        Tracks whose inference raised, which O2Physics answers with certainty 0.
    last_error
        Message of the latest of them, or empty.

    Raises
    ------
    PidflowError
        Where O2Physics would stop: no or unreadable graph, malformed JSON, not one input and one output.
    """

    def __init__(
        self, folder: str | Path, pdg: int, *, min_certainty: float = 0.5, limits: Sequence[float] = P_LIMITS
    ) -> None:
        self.path = Path(folder) / model_file(pdg)
        self.pdg, self.min_certainty, self.limits = pdg, min_certainty, tuple(limits)
        self.columns = _columns(Path(folder) / COLUMNS_FILE)
        self.scaling = _scaling(Path(folder) / SCALING_FILE)
        self.failures, self.last_error = 0, ""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise PidflowError(f"{self.path}: ONNX Runtime cannot load it: {error}; export the bundle again") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise PidflowError(
                f"{self.path}: it has {len(inputs)} inputs and {len(outputs)} outputs where O2Physics asserts one of"
                " each; export the bundle again"
            )
        self._input, self._output = inputs[0].name, outputs[0].name
        # a dynamic dimension reads as -1 in C++
        self._shape = [size if isinstance(size, int) else -1 for size in inputs[0].shape]

    @classmethod
    def from_registry(
        cls, registry: str | Path, path: str, timestamp: int, folder: str | Path, pdg: int, **settings: Any
    ) -> O2PidModel:
        """Fetch the three objects valid at `timestamp` (ms) into `folder`, as with ``useCCDB``, and load them."""
        for name, local in (
            (model_object(pdg), model_file(pdg)),
            (COLUMNS_OBJECT, COLUMNS_FILE),
            (SCALING_OBJECT, SCALING_FILE),
        ):
            store.retrieve(registry, f"{path}/{name}", timestamp, Path(folder) / local)
        return cls(folder, pdg, **settings)

    def inputs(self, tracks: O2Tracks) -> Floats:
        """Return what the loader puts together for the tracks, float32 [n, columns] (``getValues``)."""
        p = np.asarray(tracks.p, np.float32).astype(np.float64)
        use_tof, use_trd = tracks.has_tof & (p >= self.limits[1]), tracks.has_trd & (p >= self.limits[2])
        values = np.empty((len(p), len(self.columns)), np.float32)
        for index, label in enumerate(self.columns):
            if label not in tracks.columns:
                raise PidflowError(f"{self.path.parent / COLUMNS_FILE}: O2Physics has no column {label}; remove it")
            column = np.asarray(tracks.columns[label]).astype(np.float32)
            if label in self.scaling:
                mean, std = self.scaling[label]
                with np.errstate(all="ignore"):
                    column = (column - mean) / std
            if label in _TRD_LABELS:
                column = np.where(use_trd, column, np.float32(np.nan))
            elif label in _TOF_LABELS:
                column = np.where(use_tof, column, np.float32(np.nan))
            values[:, index] = column
        return values

    def _run_one(self, values: Floats) -> float:
        shape = [1, *self._shape[1:]]
        needed = math.prod(shape)
        if min(shape) < 0 or needed > values.size:
            raise PidflowError(
                f"{self.path}: O2Physics cannot make a tensor {shape} of {values.size} columns; export the bundle again"
            )
        try:
            # a longer buffer is cut without a word
            answer = self._session.run([self._output], {self._input: values[:needed].reshape(shape)})[0]
        except _ORT_ERRORS as error:
            self.failures += 1
            self.last_error = str(error)
            return 0.0
        return float(np.asarray(answer).reshape(-1)[0])

    def apply(self, tracks: O2Tracks) -> Floats:
        """Return certainties float32 [n], one inference per track (``applyModel``)."""
        return np.array([self._run_one(row) for row in self.inputs(tracks)], np.float32)

    def apply_batch(self, tracks: O2Tracks) -> Floats:
        """Return certainties float32 [n] by one inference for all tracks, which O2Physics foresees.

        Raises
        ------
        PidflowError
            If the graph does not take the batch.
        """
        try:
            answer = self._session.run([self._output], {self._input: self.inputs(tracks)})[0]
        except _ORT_ERRORS as error:
            raise PidflowError(f"{self.path}: it does not take a batch: {error}; export the bundle again") from None
        return np.asarray(answer, np.float32).reshape(-1)

    def accept(self, tracks: O2Tracks) -> NDArray[np.bool_]:
        """Return which tracks are accepted, bool [n] (``applyModelBoolean``)."""
        return self.apply(tracks).astype(np.float64) >= self.min_certainty


class O2PidInterface:
    """Several species' models as ``PidONNXInterface`` holds them; species of no model have certainty -1."""

    def __init__(self, models: Sequence[O2PidModel]) -> None:
        codes = [model.pdg for model in models]
        if not codes or len(set(codes)) != len(codes):
            raise PidflowError(f"species {codes}: O2Physics needs at least one and none twice; correct the list")
        self.models = {model.pdg: model for model in models}

    def apply(self, tracks: O2Tracks, pdg: int) -> Floats:
        """Return certainties float32 [n] of a species."""
        if pdg not in self.models:
            return np.full(len(tracks.p), -1, np.float32)
        return self.models[pdg].apply(tracks)
