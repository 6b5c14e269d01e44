"""Export to ONNX, the gate that O2Physics' loader sets, and the registry."""
