#!/usr/bin/env bash
# Guess: OpenCV 5, whose new importer reads transformers, honours or refuses attributes of ONNX operators.
# Is: Gelu with approximate="tanh" is computed as the exact Gelu, and Resize with antialias=1 as if it were 0, by its classic and its new engine
# alike.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile opencv-python-headless==5.0.0.93 onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import cv2, numpy as np, onnx, onnxruntime as ort

print("opencv", cv2.__version__, "onnx", onnx.__version__, "onnxruntime", ort.__version__)
bars = (np.arange(256).reshape(16, 16) % 4 == 0).reshape(1, 1, 16, 16) * np.float32(100)
cases = [("Gelu exact", "float[1,4]", "float[1,4]", "y = Gelu (x)", np.array([[-3, -1, 1, 3]], np.float32)),
         ("Gelu tanh", "float[1,4]", "float[1,4]", 'y = Gelu <approximate="tanh"> (x)', np.array([[-3, -1, 1, 3]], np.float32))]
for a in (0, 1):
    cases.append((f"Resize, antialias {a}", "float[1,1,16,16]", "float[1,1,4,4]", f'y = Resize <mode="linear", antialias={a}> (x, , , s)', bars))
for name, given, made, node, x in cases:
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g ({given} x) => ({made} y)
        <int64[4] s = {{1, 1, 4, 4}}> {{ {node} }}""")
    data = model.SerializeToString()
    right = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    print(f"{name}: ONNX Runtime {right.ravel()[:4].round(4)}", end="")
    for engine in ("CLASSIC", "NEW"):
        net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8), getattr(cv2.dnn, f"ENGINE_{engine}"))
        net.setInput(x)
        print(f", {engine.lower()} engine {net.forward().ravel()[:4].round(4)}", end="")
    print()
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
opencv 5.0.0 onnx 1.23.2 onnxruntime 1.32.0
Gelu exact: ONNX Runtime [-0.004  -0.1587  0.8413  2.996 ], classic engine [-0.004  -0.1587  0.8413  2.996 ], new engine [-0.004  -0.1587  0.8413  2.996 ]
Gelu tanh: ONNX Runtime [-0.0036 -0.1588  0.8412  2.9964], classic engine [-0.004  -0.1587  0.8413  2.996 ], new engine [-0.004  -0.1587  0.8413  2.996 ]
Resize, antialias 0: ONNX Runtime [0. 0. 0. 0.], classic engine [0. 0. 0. 0.], new engine [0. 0. 0. 0.]
Resize, antialias 1: ONNX Runtime [37.5   25.    25.    15.625], classic engine [0. 0. 0. 0.], new engine [0. 0. 0. 0.]
SEEN
