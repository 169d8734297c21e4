#!/usr/bin/env bash
# Guess: a compiler is slower or faster than a runtime, and its FP32 answers are the same to six digits; what its importer cannot do it refuses.
# Is: TVM's LayerNormalization takes E[x²] - E[x]², and is wrong beside a large mean (a large activation of a token, which vision transformers
# have), and so is its GroupNormalization; MeanVarianceNormalization of a constant map is NaN. QuantizeLinear turns halves away from zero where
# its own Round goes to the even number. Resize's `antialias` is read by nobody.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 apache-tvm==0.27.0.post1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 TVM_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
from importlib.metadata import version
import numpy as np, onnx, onnxruntime as ort, tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

def both(title, text, x, opset=21):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g ' + text)
    onnx.checker.check_model(model)
    expected = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    machine = relax.VirtualMachine(tvm.compile(from_onnx(model, keep_params_in_input=False), target="llvm"), tvm.cpu())
    answer = machine["main"](tvm.runtime.tensor(x))
    answer = (answer if hasattr(answer, "numpy") else answer[0]).numpy()
    for name, y in (("ONNX Runtime", expected), ("TVM", answer)):
        print(f"{title}: {name}", [round(float(v), 3) for v in y.ravel()[:8]])

print(*(f"{name} {version(name)}" for name in ("apache-tvm", "onnx", "onnxruntime")))
ramp = np.arange(8, dtype=np.float32)[None]
norm = "(float[1,8] x) => (float[1,8] y) <float[8] g = {1, 1, 1, 1, 1, 1, 1, 1}> { y = LayerNormalization (x, g) }"
both("LayerNormalization of 0 to 7", norm, ramp)
both("LayerNormalization of 10000 to 10007", norm, ramp + np.float32(10000))
group = "(float[1,2,2,2] x) => (float[1,2,2,2] y) <float[2] g = {1, 1}, float[2] b = {0, 0}> { y = GroupNormalization <num_groups=1> (x, g, b) }"
both("GroupNormalization of the same", group, (ramp + np.float32(10000)).reshape(1, 2, 2, 2))
mvn = "(float[1,1,2,2] x) => (float[1,1,2,2] y) { y = MeanVarianceNormalization (x) }"
both("MeanVarianceNormalization of 0.1", mvn, np.full((1, 1, 2, 2), 0.1, np.float32), 13)
halves = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]], np.float32)
both("Round of the halves from -2.5", "(float[1,6] x) => (float[1,6] y) { y = Round (x) }", halves)
both("QuantizeLinear of them", "(float[1,6] x) => (int8[1,6] y) <float s = {1}, int8 z = {0}> { y = QuantizeLinear (x, s, z) }", halves)
small = "<int64[4] s = {1, 1, 1, 4}> { y = Resize <mode=\"linear\", antialias=1> (x, , , s) }"
both("Resize of 16 to 4, antialias", f"(float[1,1,1,16] x) => (float[1,1,1,4] y) {small}", np.eye(16, dtype=np.float32)[2].reshape(1, 1, 1, 16), 19)
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
apache-tvm 0.27.0.post1 onnx 1.23.2 onnxruntime 1.32.0
LayerNormalization of 0 to 7: ONNX Runtime [-1.528, -1.091, -0.655, -0.218, 0.218, 0.655, 1.091, 1.528]
LayerNormalization of 0 to 7: TVM [-1.528, -1.091, -0.655, -0.218, 0.218, 0.655, 1.091, 1.528]
LayerNormalization of 10000 to 10007: ONNX Runtime [-1.528, -1.091, -0.655, -0.218, 0.218, 0.655, 1.091, 1.528]
LayerNormalization of 10000 to 10007: TVM [-1.528, -1.091, -0.655, -0.218, 0.218, 0.655, 1.091, 1.528]
GroupNormalization of the same: ONNX Runtime [-1106.797, -790.569, -474.342, -158.114, 158.114, 474.342, 790.569, 1106.797]
GroupNormalization of the same: TVM [-1106.797, -790.569, -474.342, -158.114, 158.114, 474.342, 790.569, 1106.797]
MeanVarianceNormalization of 0.1: ONNX Runtime [nan, nan, nan, nan]
MeanVarianceNormalization of 0.1: TVM [nan, nan, nan, nan]
Round of the halves from -2.5: ONNX Runtime [-2.0, -2.0, -0.0, 0.0, 2.0, 2.0]
Round of the halves from -2.5: TVM [-2.0, -2.0, -0.0, 0.0, 2.0, 2.0]
QuantizeLinear of them: ONNX Runtime [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0]
QuantizeLinear of them: TVM [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0]
Resize of 16 to 4, antialias: ONNX Runtime [0.219, 0.031, 0.0, 0.0]
Resize of 16 to 4, antialias: TVM [0.5, 0.0, 0.0, 0.0]
SEEN
