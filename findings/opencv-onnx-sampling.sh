#!/usr/bin/env bash
# Guess: a new name for an old mode, or the side that a padding is on, is read or refused.
# Is: opset 20 calls GridSample's mode "cubic" what was "bicubic" before, and OpenCV takes the new name for bilinear without a word. (The old one
# is not ONNX's either: a line 1.5 pixels away counts 0 instead of -0.09.) A pool with SAME_LOWER and an even window is padded as SAME_UPPER is:
# the map moves by a pixel.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 \
    opencv-python-headless==5.0.0.93 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import cv2, numpy as np, onnx, onnxruntime as ort

def both(title, text, opset, **feeds):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g ' + text)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    for name, value in feeds.items():
        network.setInput(value, name)
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    for name, y in (("ONNX Runtime", expected), ("OpenCV", network.forward())):
        print(f"{title}: {name}", [round(float(v), 3) for v in y.ravel()[:7]])

print("OpenCV", cv2.__version__, "onnx", onnx.__version__, "onnxruntime", ort.__version__)
grid = np.stack([np.linspace(-0.5, 0.5, 5), np.zeros(5)], -1).astype(np.float32).reshape(1, 1, 5, 2)
spike = np.zeros((1, 1, 7, 7), np.float32)
spike[..., 3] = 1
pictures = {"a line at 3": spike, "ones": np.ones_like(spike)}
for opset, mode in ((16, "bicubic"), (20, "cubic")):
    sample = f'{{ y = GridSample <mode="{mode}", align_corners=1> (x, k) }}'
    for what, picture in pictures.items():
        title = f'GridSample of opset {opset}, "{mode}", {what}'
        both(title, "(float[1,1,7,7] x, float[1,1,5,2] k) => (float[1,1,1,5] y) " + sample, opset, x=picture, k=grid)
ramp = np.tile(np.arange(7, dtype=np.float32), (7, 1)).reshape(1, 1, 7, 7)
for operator in ("MaxPool", "AveragePool"):
    for side in ("SAME_UPPER", "SAME_LOWER"):
        pool = f'{{ y = {operator} <kernel_shape=[2,2], auto_pad="{side}"> (x) }}'
        both(f"{operator} with {side}, columns 0 to 6", "(float[1,1,7,7] x) => (float[1,1,7,7] y) " + pool, 22, x=ramp)
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
OpenCV 5.0.0 onnx 1.23.2 onnxruntime 1.32.0
GridSample of opset 16, "bicubic", a line at 3: ONNX Runtime [-0.094, 0.262, 1.0, 0.262, -0.094]
GridSample of opset 16, "bicubic", a line at 3: OpenCV [0.0, 0.262, 1.0, 0.262, 0.0]
GridSample of opset 16, "bicubic", ones: ONNX Runtime [1.0, 1.0, 1.0, 1.0, 1.0]
GridSample of opset 16, "bicubic", ones: OpenCV [1.0, 1.0, 1.0, 1.0, 1.0]
GridSample of opset 20, "cubic", a line at 3: ONNX Runtime [-0.094, 0.262, 1.0, 0.262, -0.094]
GridSample of opset 20, "cubic", a line at 3: OpenCV [0.0, 0.25, 1.0, 0.25, 0.0]
GridSample of opset 20, "cubic", ones: ONNX Runtime [1.0, 1.0, 1.0, 1.0, 1.0]
GridSample of opset 20, "cubic", ones: OpenCV [1.0, 1.0, 1.0, 1.0, 1.0]
MaxPool with SAME_UPPER, columns 0 to 6: ONNX Runtime [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]
MaxPool with SAME_UPPER, columns 0 to 6: OpenCV [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]
MaxPool with SAME_LOWER, columns 0 to 6: ONNX Runtime [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
MaxPool with SAME_LOWER, columns 0 to 6: OpenCV [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]
AveragePool with SAME_UPPER, columns 0 to 6: ONNX Runtime [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]
AveragePool with SAME_UPPER, columns 0 to 6: OpenCV [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]
AveragePool with SAME_LOWER, columns 0 to 6: ONNX Runtime [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
AveragePool with SAME_LOWER, columns 0 to 6: OpenCV [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]
SEEN
