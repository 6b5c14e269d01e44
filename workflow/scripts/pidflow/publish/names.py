"""Names and formats that O2Physics fixes for a published model.

Source: O2Physics ``Tools/PIDML/pidOnnxModel.h`` (``getModelPaths``, ``loadInputFiles``): a folder holds
``attention_model_<key>.onnx`` and two JSON files; object paths in the CCDB are the same names without extension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pidflow.physics import object_key
from pidflow.tracks import BY_NAME, o2_label

COLUMNS_OBJECT = "columns_for_training"
SCALING_OBJECT = "scaling_params"
MODEL_PREFIX = "attention_model_"

COLUMNS_FILE = f"{COLUMNS_OBJECT}.json"
SCALING_FILE = f"{SCALING_OBJECT}.json"
GATE_FILE = "gate.json"
SUMS_FILE = "SHA256SUMS"

P_LIMITS = (0.0, 0.5, 0.8)
"""O2Physics' default momentum limits in GeV/c: TPC (unused), TOF, TRD (``defaultModelPLimits``)."""

_DEFAULT_CERTAINTY = 0.5


def model_object(pdg: int) -> str:
    """Return the object name of a species' model: -211 → ``attention_model_0211``."""
    return f"{MODEL_PREFIX}{object_key(pdg)}"


def model_file(pdg: int) -> str:
    """Return the local file name of a species' model."""
    return f"{model_object(pdg)}.onnx"


def bundle_files(species: Iterable[int]) -> tuple[str, ...]:
    """Return the names of the files that O2Physics loads for these species."""
    return (*(model_file(pdg) for pdg in species), COLUMNS_FILE, SCALING_FILE)


def p_limits(masks: dict[str, float]) -> tuple[float, float, float]:
    """Return the momentum limits in GeV/c that repeat a model's own detector masks in O2Physics."""
    return (0.0, masks.get("tof", 0.0), masks.get("trd", 0.0))


def without_label(features: Sequence[str]) -> list[str]:
    """Return the features that O2Physics cannot deliver at all: its loader would stop the job."""
    return [name for name in features if BY_NAME[name].o2 is None]


def outside_default_join(features: Sequence[str]) -> list[str]:
    """Return the O2 labels that need more tables than the example tasks of O2Physics join.

    The tasks join ``FullTracks, TracksDCA, pidTOFbeta, TrackSelection, TOFSignal``: that has no nσ and no ITS dE/dx.
    """
    return [o2_label(name) for name in features if "_nsigma_" in name or name == "its_signal"]


def default_working_point(masks: dict[str, float], certainty: float) -> bool:
    """Return whether O2Physics' automatic mode reproduces these masks and this certainty."""
    return p_limits(masks) == P_LIMITS and certainty == _DEFAULT_CERTAINTY
