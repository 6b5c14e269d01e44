"""Export of a trained model to the files that O2Physics loads.

One graph per species (`pidflow.models.base.Model.graph`). Scaling, masks and calibration are inside, so the published
scaling is the identity.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from pidflow.files import replacing, write_json
from pidflow.model import ModelInfo, model_digest
from pidflow.models import load
from pidflow.publish.names import COLUMNS_FILE, SCALING_FILE, model_file
from pidflow.tracks import o2_label


def _metadata(info: ModelInfo, pdg: int, model_digest: str) -> dict[str, str]:
    return {
        "run": str(info.run),
        "pdg": str(pdg),
        "features": json.dumps([o2_label(name) for name in info.features]),
        "masks": json.dumps(info.masks, sort_keys=True),
        "model": model_digest,
    }


def export_bundle(model_dir: str | Path, output_dir: str | Path) -> list[Path]:
    """Write the files that O2Physics loads.

    Each graph carries, in its metadata, the digest of the model directory, which the provenance of the
    publication repeats.

    Parameters
    ----------
    model_dir
        Model directory.
    output_dir
        Folder of the bundle; made if need be.

    Returns
    -------
    list of Path
        One graph per species in the model's order, then the columns and the scaling.

    Raises
    ------
    PidflowError
        If the model is of a kind that has no graph.
    """
    model, digest, folder = load(model_dir), model_digest(model_dir), Path(output_dir)
    info = model.info
    written = []
    for index, pdg in enumerate(info.species):
        graph = model.graph(index)
        onnx.helper.set_model_props(graph, _metadata(info, pdg, digest))
        written.append(folder / model_file(pdg))
        with replacing(written[-1]) as temporary:
            temporary.write_bytes(graph.SerializeToString(deterministic=True))
    labels = [o2_label(name) for name in info.features]
    scaling = {"columns": ["column", "mean", "std"], "data": [[label, 0.0, 1.0] for label in labels]}
    write_json(folder / COLUMNS_FILE, {"columns_for_training": labels})
    write_json(folder / SCALING_FILE, scaling)
    return [*written, folder / COLUMNS_FILE, folder / SCALING_FILE]
