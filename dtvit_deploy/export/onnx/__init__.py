"""From the exported program to ONNX: names, simplification, FP16, Q/DQ."""
