"""Export of a trained network to the files that O2Physics loads.

One graph per species: raw float32 features [n, F] with NaN where a detector is missing go in, the certainty
float32 [n, 1] comes out. Standardisation, clamp, mask and sigmoid are inside, so the published scaling is the
identity. Graphs are of opset 17 and IR 8, whole in one file.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from pidflow.errors import PidflowError
from pidflow.files import replacing, write_json
from pidflow.model import ModelInfo, model_digest, read_info
from pidflow.publish.names import COLUMNS_FILE, SCALING_FILE, model_file
from pidflow.tracks import o2_label
from pidflow.train.network import FeatureSetNetwork, load

OPSET = 17
INPUT_NAME, OUTPUT_NAME, BATCH_AXIS = "features", "certainty", "n"

_TRACED_TRACKS = 2  # the tracer takes a dimension of one for a constant


class SpeciesGraph(nn.Module):
    """The part of a network that one species' certainty depends on.

    Parameters
    ----------
    network
        Trained network in evaluation mode; left as it is.
    index
        Position of the species among its outputs.
    """

    def __init__(self, network: FeatureSetNetwork, index: int) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.heads = copy.deepcopy(network.heads)
        last = self.heads[-1]
        assert isinstance(last, nn.Linear)
        own = nn.Linear(last.in_features, 1)
        own.weight = nn.Parameter(last.weight[index : index + 1].detach().clone())
        own.bias = nn.Parameter(last.bias[index : index + 1].detach().clone())
        self.heads[-1] = own

    def forward(self, raw_NF: Tensor) -> Tensor:
        return torch.sigmoid(self.heads(self.encoder(raw_NF)))


def species_graph(network: FeatureSetNetwork, index: int) -> onnx.ModelProto:
    """Return the ONNX graph of one species of a network in evaluation mode."""
    features = network.encoder.mean.numel()
    example_NF = torch.zeros(_TRACED_TRACKS, features)
    example_NF[1, 0] = torch.nan
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "graph.onnx"
        # the tracing exporter is the one that writes opset 17 without a further dependency
        for message in ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed"):
            warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
        torch.onnx.export(
            SpeciesGraph(network, index).eval(),
            (example_NF,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: BATCH_AXIS}, OUTPUT_NAME: {0: BATCH_AXIS}},
        )
        return onnx.load(path)


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
        Model directory of a feature-set network.
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
    info, folder = read_info(model_dir), Path(output_dir)
    if info.kind != "fse":
        raise PidflowError(f"{model_dir}: a model of kind '{info.kind}' cannot be exported; publish the 'fse' model")
    network, digest = load(model_dir), model_digest(model_dir)
    written = []
    for index, pdg in enumerate(info.species):
        graph = species_graph(network, index)
        onnx.helper.set_model_props(graph, _metadata(info, pdg, digest))
        written.append(folder / model_file(pdg))
        with replacing(written[-1]) as temporary:
            temporary.write_bytes(graph.SerializeToString(deterministic=True))
    labels = [o2_label(name) for name in info.features]
    scaling = {"columns": ["column", "mean", "std"], "data": [[label, 0.0, 1.0] for label in labels]}
    write_json(folder / COLUMNS_FILE, {"columns_for_training": labels})
    write_json(folder / SCALING_FILE, scaling)
    return [*written, folder / COLUMNS_FILE, folder / SCALING_FILE]
