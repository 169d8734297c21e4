#!/usr/bin/env bash
# Guess: the passes that onnxoptimizer runs by default change nothing that can be seen.
# Is: a Pad before a MaxPool becomes the pool's own padding, and its zeros minus infinity: right behind a ReLU, wrong behind a GELU. Before an
# AveragePool with padding of its own, the sum is counted as a whole. Two Reshapes become the second, whose 0 ("as it was") then means another
# axis: another shape, or a graph that does not run. (onnxsim 0.8.1 and onnxslim 0.1.98 leave all four right.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxoptimizer==0.4.2 \
    onnxsim==0.8.1 onnxslim==0.1.98 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
from importlib.metadata import version
import numpy as np, onnx, onnxoptimizer, onnxruntime as ort, onnxsim, onnxslim

def answer(model, x):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    except Exception as error:
        return type(error).__name__

def told(y):
    return y if isinstance(y, str) else f"{list(y.shape)} {[round(float(v), 2) for v in y.ravel()[:3]]}"

print(*(f"{name} {version(name)}" for name in ("onnxoptimizer", "onnxsim", "onnxslim", "onnx", "onnxruntime")))
pad = "int64[8] i = {0, 0, 1, 1, 0, 0, 1, 1}> { p = Pad (x, i)"
graphs = {
    "Pad and MaxPool": ("1,1,4,4", f"{pad} y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (p)"),
    "Pad and AveragePool": ("1,1,4,4", f"{pad} y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (p)"),
    "Reshape and Reshape, -1": ("2,5,8", "int64[3] i = {8, -1, 2}, int64[2] j = {0, -1}> { r = Reshape (x, i) y = Reshape (r, j)"),
    "Reshape and Reshape": ("2,5,8", "int64[2] i = {10, 8}, int64[3] j = {0, 2, 4}> { r = Reshape (x, i) y = Reshape (r, j)"),
}
for title, (shape, body) in graphs.items():
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 19]> g (float[{shape}] x) => (float y) <{body} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    x = -np.arange(1, 1 + np.prod([int(n) for n in shape.split(",")]), dtype=np.float32).reshape([int(n) for n in shape.split(",")])
    others = [np.array_equal(answer(model, x), answer(other, x)) for other in (onnxsim.simplify(model)[0], onnxslim.slim(model))]
    print(f"{title}: {told(answer(model, x))}, optimised {told(answer(onnxoptimizer.optimize(model), x))}; onnxsim and onnxslim right: {others}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnxoptimizer 0.4.2 onnxsim 0.8.1 onnxslim 0.1.98 onnx 1.23.2 onnxruntime 1.32.0
Pad and MaxPool: [1, 1, 3, 3] [0.0, 0.0, 0.0], optimised [1, 1, 3, 3] [-1.0, -2.0, -4.0]; onnxsim and onnxslim right: [True, True]
Pad and AveragePool: [1, 1, 3, 3] [-0.25, -1.0, -1.17], optimised [1, 1, 3, 3] [-0.11, -0.67, -0.78]; onnxsim and onnxslim right: [True, True]
Reshape and Reshape, -1: [8, 10] [-1.0, -2.0, -3.0], optimised [2, 40] [-1.0, -2.0, -3.0]; onnxsim and onnxslim right: [True, True]
Reshape and Reshape: [10, 2, 4] [-1.0, -2.0, -3.0], optimised Fail; onnxsim and onnxslim right: [True, True]
SEEN
