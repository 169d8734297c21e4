"""From the exported program, or from ONNX, to an OpenVINO IR."""
