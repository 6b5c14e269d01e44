"""ONNX graphs: what O2Physics loads, one species each.

Raw float32 features [n, F] with NaN where a value is missing go in, the certainty float32 [n, 1] comes out.
Graphs are of opset 17 and IR 8, whole in one file.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper
from torch import Tensor, nn

from pidflow.networks.calibration import Calibrated

OPSET, OPSET_ML, IR = 17, 3, 8
INPUT_NAME, OUTPUT_NAME, BATCH_AXIS = "features", "certainty", "n"

_TRACED_TRACKS = 2  # the tracer takes a dimension of one for a constant


class _OneSpecies(nn.Module):
    def __init__(self, network: Calibrated, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, raw_NF: Tensor) -> Tensor:
        certainty: Tensor = self.network(raw_NF)
        return certainty[:, self.number : self.number + 1]


def network_graph(network: Calibrated, number: int, features: int) -> onnx.ModelProto:
    """Return the graph of one species of a calibrated network in evaluation mode."""
    example_NF = torch.zeros(_TRACED_TRACKS, features)
    example_NF[1, 0] = torch.nan
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "graph.onnx"
        # the tracing exporter is the one that writes opset 17 without a further dependency
        for message in ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed"):
            warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
        torch.onnx.export(
            _OneSpecies(network, number).eval(),
            (example_NF,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: BATCH_AXIS}, OUTPUT_NAME: {0: BATCH_AXIS}},
        )
        return onnx.load(path)


def average_graph(graphs: Sequence[onnx.ModelProto], weights: Sequence[float]) -> onnx.ModelProto:
    """Return the graph of the weighted sum of other graphs' certainties; all take the same features."""
    whole: onnx.ModelProto | None = None
    outputs = []
    for number, graph in enumerate(graphs):
        part = compose.add_prefix(graph, f"member{number}/")
        outputs.append(part.graph.output[0].name)
        taken = part.graph.input[0].name
        for node in part.graph.node:
            node.input[:] = [INPUT_NAME if name == taken else name for name in node.input]
        part.graph.input[0].name = INPUT_NAME
        if whole is None:
            whole = part
            continue
        whole.graph.node.extend(part.graph.node)
        whole.graph.initializer.extend(part.graph.initializer)
        known = {opset.domain for opset in whole.opset_import}
        whole.opset_import.extend(opset for opset in part.opset_import if opset.domain not in known)
    assert whole is not None
    for number, (output, weight) in enumerate(zip(outputs, weights, strict=True)):
        name = f"weight{number}"
        whole.graph.initializer.append(numpy_helper.from_array(np.array(weight, np.float32), name))
        whole.graph.node.append(helper.make_node("Mul", [output, name], [f"weighted{number}"]))
    # weights are rounded to float32, so that their sum may exceed 1 by as much
    total = [f"weighted{number}" for number in range(len(outputs))]
    whole.graph.node.append(helper.make_node("Sum", total, ["sum"]))
    for name, bound in (("low", 0.0), ("high", 1.0)):
        whole.graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), name))
    whole.graph.node.append(helper.make_node("Clip", ["sum", "low", "high"], [OUTPUT_NAME]))
    del whole.graph.output[:], whole.graph.value_info[:]
    shape = [BATCH_AXIS, 1]
    whole.graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, shape))
    return whole
