"""Ready configurations of O2Physics tasks for a published model.

Sources: O2Physics ``Tools/PIDML/pidOnnxInterface.h`` (keys of the interface), ``Tools/ML/MlResponse.h`` and the tasks
that use it (keys, and what directions of a cut mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pidflow.files import write_json
from pidflow.model import ModelInfo
from pidflow.physics import object_key
from pidflow.publish.names import model_file, model_object, p_limits
from pidflow.tracks import o2_label

INTERFACE_FILE = "o2physics_interface.json"
ML_RESPONSE_FILE = "o2physics_mlresponse.json"

DETECTOR_MODES = ("TPC", "TPC + TOF", "TPC + TOF + TRD")
"""O2Physics' names of the columns of the momentum limits."""

_REJECT_SMALLER = 1
"""``cuts_ml::CutSmaller``: a score below the cut is rejected."""


def interface(
    certainties: Mapping[int, float], limits: Sequence[float], *, path: str, timestamp: int
) -> dict[str, Any]:
    """Return the configuration of ``o2-analysis-simple-apply-pid-onnx-interface``.

    Parameters
    ----------
    certainties
        Certainty from which a track is accepted, by PDG code, in the model's order.
    limits
        Momentum in GeV/c from which TPC, TOF and TRD are given to the model. O2Physics calls their table ``ptCuts``.
    path
        Path of the objects in the CCDB.
    timestamp
        A time at which they are valid, ms.
    """
    task = {
        "useCcdb": "false",
        "localPath": "PIDML",
        "ccdbPath": path,
        "useFixedTimestamp": "true",
        "fixedTimestamp": str(timestamp),
        "pdgPids": {"values": [str(pdg) for pdg in certainties]},
        "mlIdentCertaintyThresholds": {"values": [str(certainty) for certainty in certainties.values()]},
        "autoMode": "false",
        "ptCuts": {
            "labels_rows": [object_key(pdg) for pdg in certainties],
            "labels_cols": list(DETECTOR_MODES),
            "values": [[str(limit) for limit in limits]] * len(certainties),
        },
    }
    return {"simple-apply-pid-onnx-interface": task}


def ml_response(
    info: ModelInfo, *, path: str, timestamp: int, certainties: Mapping[int, float], pt: Sequence[float]
) -> dict[str, Any]:
    """Return what a task with an ``MlResponse`` is configured by, for each species by the key of its object.

    Such a task hands the features to the graph as they are, in this order. It has to put NaN in place of what the
    model must not see: TOF and TRD features of tracks without that detector, or below the momentum in ``pLimits``.

    Parameters
    ----------
    info
        The published model.
    path, timestamp, certainties
        As of `interface`.
    pt
        Lowest and highest transverse momentum, GeV/c: one bin, outside of which the task has no model.
    """
    features = {"values": [o2_label(name) for name in info.features]}
    _, tof, trd = p_limits(info.masks)
    return {
        object_key(pdg): {
            "binsPtMl": {"values": [str(edge) for edge in pt]},
            "cutDirMl": {"values": [str(_REJECT_SMALLER)]},
            "cutsMl": {"labels_rows": ["pT bin 0"], "labels_cols": ["score"], "values": [[str(certainties[pdg])]]},
            "nClassesMl": "1",
            "namesInputFeatures": features,
            "onnxFileNames": {"values": [model_file(pdg)]},
            "modelPathsCCDB": {"values": [f"{path}/{model_object(pdg)}"]},
            "timestampCCDB": str(timestamp),
            "loadModelsFromCCDB": "false",
            "pLimits": {"tof": tof, "trd": trd},
        }
        for pdg in info.species
    }


def write_configurations(
    folder: str | Path,
    info: ModelInfo,
    *,
    path: str,
    timestamp: int,
    certainties: Mapping[int, float],
    pt: Sequence[float],
) -> None:
    """Write both configurations into the folder of a publication.

    Parameters
    ----------
    folder
        Where `INTERFACE_FILE` and `ML_RESPONSE_FILE` go.
    info, path, timestamp, certainties, pt
        As of `interface` and `ml_response`.
    """
    place: dict[str, Any] = {"path": path, "timestamp": timestamp}
    write_json(Path(folder) / INTERFACE_FILE, interface(certainties, p_limits(info.masks), **place))
    write_json(Path(folder) / ML_RESPONSE_FILE, ml_response(info, certainties=certainties, pt=pt, **place))
