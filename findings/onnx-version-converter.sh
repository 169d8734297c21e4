#!/usr/bin/env bash
# Guess: onnx's version converter keeps what a model answers, or says that it cannot.
# Is: from opset 11 on, Resize's coordinates are half-pixel by default and were asymmetric before; the converter leaves the attribute out, so that
# each linear Resize (and each Upsample before it) of an old detector or segmentation network shifts by up to half a pixel. Hardmax, whose axis
# meant "flatten from here", loses that meaning at 13 where Softmax gets its Flatten. And GroupNormalization from 18 to 21 keeps its scales per
# group where channels are due: no error, and a model that does not load.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort
from onnx import version_converter

def run(model, x):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel().round(2)
    except Exception as error:
        return type(error).__name__

row = np.arange(3, dtype=np.float32).reshape(1, 1, 1, 3)
cube = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.float32).reshape(2, 2, 2)
channels = np.arange(8, dtype=np.float32).reshape(1, 4, 2, 1)
groups = "(float[1,4,2,1] x) => (float[1,4,2,1] y) <float[2] w = {1, 2}, float[2] b = {0, 1}> { y = GroupNormalization <num_groups=2> (x, w, b) }"
resize = '<mode="linear"> (x, s)'
cases = [("Resize", 10, 13, f"(float[1,1,1,3] x) => (float[1,1,1,6] y) <float[4] s = {{1, 1, 1, 2}}> {{ y = Resize {resize} }}", row),
         ("Upsample", 9, 13, f"(float[1,1,1,3] x) => (float[1,1,1,6] y) <float[4] s = {{1, 1, 1, 2}}> {{ y = Upsample {resize} }}", row),
         ("Softmax", 11, 13, "(float[2,2,2] x) => (float[2,2,2] y) { y = Softmax <axis=1> (x) }", cube),
         ("Hardmax", 11, 13, "(float[2,2,2] x) => (float[2,2,2] y) { y = Hardmax <axis=1> (x) }", cube),
         ("GroupNormalization", 18, 21, groups, channels)]
print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
for name, old, new, graph, x in cases:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {old}]> g {graph}')
    before, after = run(model, x), run(version_converter.convert_version(model, new), x)
    print(f"{name}, opset {old}: {before}, converted to {new}: {'the same' if np.array_equal(before, after) else after}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
Resize, opset 10: [0.  0.5 1.  1.5 2.  2. ], converted to 13: [0.   0.25 0.75 1.25 1.75 2.  ]
Upsample, opset 9: [0.  0.5 1.  1.5 2.  2. ], converted to 13: [0.   0.25 0.75 1.25 1.75 2.  ]
Softmax, opset 11: [0.25 0.03 0.68 0.03 0.02 0.94 0.   0.05], converted to 13: the same
Hardmax, opset 11: [0. 0. 1. 0. 0. 1. 0. 0.], converted to 13: [0. 1. 1. 0. 1. 1. 0. 0.]
GroupNormalization, opset 18: [-1.34 -0.45  0.45  1.34 -1.68  0.11  1.89  3.68], converted to 21: Fail
SEEN
