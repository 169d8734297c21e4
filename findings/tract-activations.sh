#!/usr/bin/env bash
# Guess: an inference engine for small ARM boards that loads a file without a word computes what the file says, to six digits or so.
# Is: tract takes Swish's `alpha` for 1, and Celu's only inside the exponential (half the answer at alpha 2). LogSoftmax is the logarithm of a
# Softmax: below about -87 its values are noise and the order of the classes is lost. Softplus of 100 is inf.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
from importlib.metadata import version
import numpy as np, onnx, onnxruntime as ort, tract

print(*(f"{name} {version(name)}" for name in ("tract", "onnx", "onnxruntime")))
x = np.array([[-3, -1, 1, 88, 100]], np.float32)
print("x:", x[0].tolist())
for operator, opset in (("Swish <alpha=1.5>", 24), ("Celu <alpha=2.0>", 20), ("LogSoftmax", 20), ("Softplus", 20)):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[1,5] x) => (float[1,5] y) {{ y = {operator} (x) }}')
    onnx.save(model, "m.onnx")
    loaded = tract.onnx().load("m.onnx")
    answer = loaded.into_model().into_runnable().run([x])[0].to_numpy()
    expected = ort.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    for name, y in (("ONNX Runtime", expected), ("tract", answer)):
        print(f"{operator}: {name}", [float(f"{v:.4g}") for v in y[0]])
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
tract 0.23.9 onnx 1.23.2 onnxruntime 1.32.0
x: [-3.0, -1.0, 1.0, 88.0, 100.0]
Swish <alpha=1.5>: ONNX Runtime [-0.03296, -0.1824, 0.8176, 88.0, 100.0]
Swish <alpha=1.5>: tract [-0.1423, -0.2689, 0.7311, 88.0, 100.0]
Celu <alpha=2.0>: ONNX Runtime [-1.554, -0.7869, 1.0, 88.0, 100.0]
Celu <alpha=2.0>: tract [-0.7769, -0.3935, 1.0, 88.0, 100.0]
LogSoftmax: ONNX Runtime [-103.0, -101.0, -99.0, -12.0, -6.199e-06]
LogSoftmax: tract [-87.06, -87.14, -87.22, -12.0, -6.199e-06]
Softplus: ONNX Runtime [0.04859, 0.3133, 1.313, 88.0, 100.0]
Softplus: tract [0.04859, 0.3133, 1.313, 88.0, inf]
SEEN
