#!/usr/bin/env bash
# Guess: quantize_static leaves LayerNormalization's gain and bias alone, or gives each the step that its own range needs.
# Is: the bias gets the step of the input times that of the gain, as if it were added to a sum of products. Where one channel of the input is large
# (as in the residual stream of a transformer) that step is larger than the bias: all of it becomes 0. The gain gets one step for all channels,
# per_channel=True or not, and one gain of 20 makes 0.16 the smallest.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)

print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
print("gain [1, 0.07, 0.3, 20], bias [0.05, -0.04, 0.03, 0.02]")
ort.set_default_logger_severity(4)
x = np.array([[0.5, -1.0, 1.5, 100.0], [-0.5, 1.0, 2.0, -100.0]], np.float32)
onnx.save(onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]> g (float[2,4] x) => (float[2,4] y)
    <float[4] gain = {1, 0.07, 0.3, 20}, float[4] bias = {0.05, -0.04, 0.03, 0.02}> { y = LayerNormalization (x, gain, bias) }"""), "plain.onnx")
for per_channel in (False, True):
    quantize_static("plain.onnx", "codes.onnx", Reader(x), per_channel=per_channel, activation_type=QuantType.QUInt8)
    graph = onnx.load("codes.onnx").graph
    value = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    for name in ("gain", "bias"):
        node = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == f"{name}_quantized")
        codes, step = (value[i] for i in node.input[:2])
        values = [round(float(v), 3) for v in codes * step]
        print(f"per_channel={per_channel}, {name}: step {float(step.max()):.3f}, {codes.dtype} codes {codes.tolist()}, so {values}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
gain [1, 0.07, 0.3, 20], bias [0.05, -0.04, 0.03, 0.02]
per_channel=False, gain: step 0.157, int8 codes [6, 0, 2, 127], so [0.945, 0.0, 0.315, 20.0]
per_channel=False, bias: step 0.124, int32 codes [0, 0, 0, 0], so [0.0, 0.0, 0.0, 0.0]
per_channel=True, gain: step 0.157, int8 codes [6, 0, 2, 127], so [0.945, 0.0, 0.315, 20.0]
per_channel=True, bias: step 0.124, int32 codes [0, 0, 0, 0], so [0.0, 0.0, 0.0, 0.0]
SEEN
