#!/usr/bin/env bash
# Guess: where a runtime and ONNX's own ReferenceEvaluator differ, the runtime is wrong.
# Is: the evaluator takes MaxPool with auto_pad SAME_LOWER without its padding, against the standard's ceil(size ÷ stride); it takes the mean of
# FP16 numbers in FP16, so that 4,096 times 40 is inf; and Attention with a softcap gives the capped scores where the standard's mode 0 asks for
# the raw product of queries and keys. In all three ONNX Runtime is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")
print("onnx", onnx.__version__, "onnxruntime", ort.__version__)

def both(text, opset, output, **feeds):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {text}')
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, feeds)[output], session.run(None, feeds)[output]

pool = '(float[1,1,7,9] x) => (float[1,1,h,w] y) { y = MaxPool <kernel_shape=[4,4], strides=[2,2], auto_pad="SAME_LOWER"> (x) }'
reference, runtime = both(pool, 22, 0, x=np.zeros((1, 1, 7, 9), np.float32))
print("MaxPool 4×4, stride 2, SAME_LOWER on 7×9 (halves rounded up: 4×5): reference", reference.shape[2:], "ONNX Runtime", runtime.shape[2:])
mean = "(float16[1,4096] x) => (float16[1,1] y) <int64[1] axes = {1}> { y = ReduceMean (x, axes) }"
reference, runtime = both(mean, 18, 0, x=np.full((1, 4096), 40, np.float16))
print("mean of 4,096 times 40 in FP16: reference", reference.ravel(), "ONNX Runtime", runtime.ravel())
one = np.array([[[[3.0]]]], np.float32)
node = "y, , , s = Attention <softcap=2.0, scale=1.0, qk_matmul_output_mode=0> (q, k, k)"
attention = f"(float[1,1,1,1] q, float[1,1,1,1] k) => (float[1,1,1,1] y, float[1,1,1,1] s) {{ {node} }}"
reference, runtime = both(attention, 23, 1, q=one, k=one)
print("raw score of 3 and 3: reference", reference.ravel().round(3), "ONNX Runtime", runtime.ravel().round(3))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
MaxPool 4×4, stride 2, SAME_LOWER on 7×9 (halves rounded up: 4×5): reference (3, 4) ONNX Runtime (4, 5)
mean of 4,096 times 40 in FP16: reference [inf] ONNX Runtime [40.]
raw score of 3 and 3: reference [2.] ONNX Runtime [9.]
SEEN
