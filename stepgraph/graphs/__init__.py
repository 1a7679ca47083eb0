"""ONNX graphs: written, searched, folded."""
