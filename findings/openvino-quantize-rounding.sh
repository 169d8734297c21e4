#!/usr/bin/env bash
# Guess: QuantizeLinear means round(x / scale) + zero point everywhere, halves to the even number.
# Is: OpenVINO's CPU plugin rounds the sum, so that with an odd zero point every half goes the other way; and codes of int16 are cut off towards
# zero, not rounded, as a FakeQuantize of 65,536 levels is. With an even zero point and 8 bits it agrees with ONNX.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, onnxruntime as ort, openvino as ov

x = np.array([[-2.75, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.75]], np.float32)
print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
print("x:", x[0].tolist())
for kind, zero in (("int8", 0), ("int8", 3), ("uint8", 128), ("uint8", 113), ("int16", 0)):
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]> g (float[1,8] x) => ({kind}[1,8] y)
        <float s = {{1}}, {kind} z = {{{zero}}}> {{ y = QuantizeLinear (x, s, z) }}""")
    data = model.SerializeToString()
    a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    codes = [(y.astype(int) - zero)[0].tolist() for y in (a, b)]
    print(f"{kind}, zero point {zero}: codes less the zero point, ONNX Runtime {codes[0]}, OpenVINO {codes[1]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
x: [-2.75, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.75]
int8, zero point 0: codes less the zero point, ONNX Runtime [-3, -2, -2, 0, 0, 2, 2, 3], OpenVINO [-3, -2, -2, 0, 0, 2, 2, 3]
int8, zero point 3: codes less the zero point, ONNX Runtime [-3, -2, -2, 0, 0, 2, 2, 3], OpenVINO [-3, -3, -1, -1, 1, 1, 3, 3]
uint8, zero point 128: codes less the zero point, ONNX Runtime [-3, -2, -2, 0, 0, 2, 2, 3], OpenVINO [-3, -2, -2, 0, 0, 2, 2, 3]
uint8, zero point 113: codes less the zero point, ONNX Runtime [-3, -2, -2, 0, 0, 2, 2, 3], OpenVINO [-3, -3, -1, -1, 1, 1, 3, 3]
int16, zero point 0: codes less the zero point, ONNX Runtime [-3, -2, -2, 0, 0, 2, 2, 3], OpenVINO [-2, -2, -1, 0, 0, 1, 2, 2]
SEEN
