#!/usr/bin/env bash
# Guess: a NaN inside a network reaches the outputs, so that a check of the outputs finds it.
# Is: OpenVINO's CPU plugin makes 0 of it in Relu and a bound in Clip; max-pooling loses it everywhere; ONNX Runtime's ReduceMax of (1, NaN, -3,
# 2) is 1, neither NaN nor the greatest number; and ONNX's own reference leaves it out of an average. A broken network (an FP16 overflow, say)
# then answers plausible numbers. (On x86-64, whose instructions for greatest and least take the second operand.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, platform, sys, numpy as np, onnx, onnxruntime as ort, openvino as ov
from onnx.reference import ReferenceEvaluator

if platform.machine() != "x86_64":
    sys.exit("seen on x86-64 only")
x = np.array([[[1, np.nan, -3, 2]]], np.float32)
nodes = {"Relu": "y = Relu (x)", "Clip": "y = Clip (x, low, high)",
         "MaxPool": "y = MaxPool <kernel_shape=[2], strides=[2]> (x)", "ReduceMax": "y = ReduceMax (x, axes)",
         "AveragePool": "y = AveragePool <kernel_shape=[2], strides=[2]> (x)"}
print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0], "· x =", x.ravel())
for name, node in nodes.items():
    width = {"MaxPool": 2, "AveragePool": 2, "ReduceMax": 1}.get(name, 4)
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,1,4] x) => (float[1,1,{width}] y)
        <float low = {{-1}}, float high = {{1}}, int64[1] axes = {{2}}> {{ {node} }}""")
    data = model.SerializeToString()
    a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel()
    b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0].ravel()
    print(f"{name}: ONNX's reference {ReferenceEvaluator(model).run(None, {'x': x})[0].ravel()}, ONNX Runtime {a}, OpenVINO {b}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1 · x = [ 1. nan -3.  2.]
Relu: ONNX's reference [ 1. nan  0.  2.], ONNX Runtime [ 1. nan  0.  2.], OpenVINO [1. 0. 0. 2.]
Clip: ONNX's reference [ 1. nan -1.  1.], ONNX Runtime [ 1. nan -1.  1.], OpenVINO [ 1. -1. -1.  1.]
MaxPool: ONNX's reference [1. 2.], ONNX Runtime [1. 2.], OpenVINO [1. 2.]
ReduceMax: ONNX's reference [nan], ONNX Runtime [1.], OpenVINO [2.]
AveragePool: ONNX's reference [ 1.  -0.5], ONNX Runtime [ nan -0.5], OpenVINO [ nan -0.5]
SEEN
