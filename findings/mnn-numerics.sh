#!/usr/bin/env bash
# Guess: MNN computes in FP32 what the ONNX file says, and the exact form of Gelu is exact.
# Is: its Gelu is the tanh form whatever the attribute says, five times too small in the tail; Round goes away from zero at halves, where ONNX
# says to the even number, and so do the codes of QuantizeLinear (which come out as signed bytes).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile MNN==3.6.1 numpy==2.3.5 onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import os, sys

stdout = os.dup(1)
os.dup2(2, 1)  # MNN's own messages
import _tools, MNN, MNN.expr as expr, MNN.nn as nn, numpy as np, onnx, onnxruntime as ort

def mnn(model, x):
    onnx.save(model, "m.onnx")
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "x"])
    y = nn.load_module_from_file("m.mnn", ["x"], ["y"]).forward([expr.const(x, list(x.shape), expr.NCHW, expr.float)])
    return np.array((y[0] if isinstance(y, (list, tuple)) else y).read()).ravel()

seen = [f"MNN {MNN.version()} onnx {onnx.__version__} onnxruntime {ort.__version__}"]
halves = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]], np.float32)
cases = [("Gelu", "y = Gelu (x)", "float", halves * 1.5), ("Gelu, tanh", 'y = Gelu <approximate="tanh"> (x)', "float", halves * 1.5),
         ("Round", "y = Round (x)", "float", halves), ("QuantizeLinear", "y = QuantizeLinear (x, s, z)", "uint8", halves)]
for name, node, kind, x in cases:
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,6] x) => ({kind}[1,6] y)
        <float s = {{1}}, uint8 z = {{128}}> {{ {node} }}""")
    right = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel()
    answer = mnn(model, x)
    if kind == "uint8":
        answer = answer.astype(np.int32) % 256
    seen.append(f"{name}: ONNX Runtime {[round(float(v), 4) for v in right]}, MNN {[round(float(v), 4) for v in answer]}")
os.dup2(stdout, 1)
print(*seen, sep="\n")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
MNN 3.6.1 onnx 1.23.2 onnxruntime 1.32.0
Gelu: ONNX Runtime [-0.0003, -0.0275, -0.17, 0.58, 2.2225, 3.7497], MNN [-0.0001, -0.0272, -0.17, 0.58, 2.2228, 3.7499]
Gelu, tanh: ONNX Runtime [-0.0002, -0.0272, -0.17, 0.58, 2.2228, 3.7498], MNN [-0.0001, -0.0272, -0.17, 0.58, 2.2228, 3.7499]
Round: ONNX Runtime [-2.0, -2.0, -0.0, 0.0, 2.0, 2.0], MNN [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]
QuantizeLinear: ONNX Runtime [126.0, 126.0, 128.0, 128.0, 130.0, 130.0], MNN [125.0, 126.0, 127.0, 129.0, 130.0, 131.0]
SEEN
