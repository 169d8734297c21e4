#!/usr/bin/env bash
# Guess: a Resize or a GridSample that converts without a warning is the one that was asked for.
# Is: MNN's bicubic Resize is wrong in the first row and column, where the source coordinate is below zero; and GridSample's padding_mode
# "reflection" is taken as "border". The converter says nothing about either.
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

def both(text, **feeds):
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g ' + text)
    onnx.save(model, "m.onnx")
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "x"])
    inputs = [expr.const(v, list(v.shape), expr.NCHW, expr.float) for v in feeds.values()]
    y = nn.load_module_from_file("m.mnn", list(feeds), ["y"]).forward(inputs)
    y = y[0] if isinstance(y, (list, tuple)) else y
    answer = np.array(expr.convert(y, expr.NCHW).read() if y.data_format == expr.NC4HW4 else y.read())
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0], answer

seen = [f"MNN {MNN.version()} onnx {onnx.__version__} onnxruntime {ort.__version__}"]
picture = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
right, answer = both('(float[1,1,8,8] x) => (float[1,1,16,16] y) <int64[4] s = {1, 1, 16, 16}> { y = Resize <mode="cubic"> (x, , , s) }', x=picture)
off = abs(answer - right)[0, 0]
seen.append(f"bicubic, 8×8 to 16×16: off by {off[0].max():.2f} in the first row, {off[1:, 0].max():.2f} in the first column, {off[1:, 1:].max():.2f} elsewhere")
outside = np.array([[[[-1.4, -1.4], [1.4, 1.3]]]], np.float32)
for padding in ("border", "reflection"):
    node = f'y = GridSample <mode="linear", padding_mode="{padding}"> (x, g)'
    right, answer = both(f"(float[1,1,8,8] x, float[1,1,2,2] g) => (float[1,1,1,2] y) {{ {node} }}", x=picture, g=outside)
    seen.append(f"GridSample {padding}: ONNX Runtime {right.ravel().round(1)}, MNN {answer.ravel().round(1)}")
os.dup2(stdout, 1)
print(*seen, sep="\n")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
MNN 3.6.1 onnx 1.23.2 onnxruntime 1.32.0
bicubic, 8×8 to 16×16: off by 6.96 in the first row, 0.77 in the first column, 0.00 elsewhere
GridSample border: ONNX Runtime [ 0. 63.], MNN [ 0. 63.]
GridSample reflection: ONNX Runtime [ 9.9 56.3], MNN [ 0. 63.]
SEEN
