#!/usr/bin/env bash
# Guess: a Softmax below opset 13 normalises over all axes from `axis` on, as its text says (the picture is flattened first), and what reads
# ONNX looks at the opset to know that; the reference evaluator surely does.
# Is: ONNX Runtime does. OpenVINO does for LogSoftmax and Hardmax and not for Softmax; OpenCV and onnx's own reference evaluator do for none of
# the three: they normalise over the one axis, as from opset 13 on. The weights of a map of attention then sum to 63 instead of 1, and a
# comparison with the reference calls the one right answer wrong. On the last axis, the usual one, all agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 \
    opencv-python-headless==5.0.0.93 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import cv2, numpy as np, onnx, onnx.reference, onnxruntime as ort, openvino as ov

print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0], "OpenCV", cv2.__version__)
x = np.random.default_rng(0).normal(size=(1, 4, 7, 9)).astype(np.float32)
for opset in (11, 13):
    for operator in ("Softmax", "LogSoftmax", "Hardmax"):
        model = onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[1,4,7,9] x) => (float[1,4,7,9] y) {{ y = {operator} <axis=1> (x) }}')
        data = model.SerializeToString()
        network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        network.setInput(x)
        answers = {
            "onnx": onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0],
            "ONNX Runtime": ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0],
            "OpenVINO": ov.compile_model(ov.Core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0],
            "OpenCV": network.forward(),
        }
        sums = {name: np.exp(y).sum() if operator == "LogSoftmax" else y.sum() for name, y in answers.items()}
        print(f"opset {opset}, {operator} of 4×7×9 from axis 1: weights sum to", ", ".join(f"{s:.2f} in {name}" for name, s in sums.items()))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1 OpenCV 5.0.0
opset 11, Softmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 1.00 in ONNX Runtime, 63.00 in OpenVINO, 63.00 in OpenCV
opset 11, LogSoftmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 1.00 in ONNX Runtime, 1.00 in OpenVINO, 63.00 in OpenCV
opset 11, Hardmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 1.00 in ONNX Runtime, 1.00 in OpenVINO, 63.00 in OpenCV
opset 13, Softmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 63.00 in ONNX Runtime, 63.00 in OpenVINO, 63.00 in OpenCV
opset 13, LogSoftmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 63.00 in ONNX Runtime, 63.00 in OpenVINO, 63.00 in OpenCV
opset 13, Hardmax of 4×7×9 from axis 1: weights sum to 63.00 in onnx, 63.00 in ONNX Runtime, 63.00 in OpenVINO, 63.00 in OpenCV
SEEN
