#!/usr/bin/env bash
# Guess: ELU, SELU and CELU of a small negative number are nearly that number (times a constant), in FP32 to seven digits, as in torch.
# Is: ONNX Runtime and OpenVINO take exp(x) - 1 as it stands: at -1e-7 a fifth is wrong, at -1e-6 a hundredth, and what is nearer to 0 is one
# of a few numbers. ONNX has no expm1 either, so that torch's is exported as Exp and Sub, with the same loss.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, onnxruntime as ort, openvino as ov

print("onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
scales = {"Elu": 1.0, "Selu": 1.0507009873554805 * 1.6732632423543772, "Celu <alpha = 1.0>": 1.0}
for name, scale in scales.items():
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g (float[16] x) => (float[16] y) { y = ' + name + " (x) }")
    data = model.SerializeToString()
    for point in (-1e-6, -1e-7):
        x = np.full(16, point, np.float32)
        a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0][0]
        b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0][0]
        right = scale * np.expm1(float(x[0]))
        print(f"{name} at {point:g}: off by {abs(a / right - 1):.1%} in ONNX Runtime, {abs(b / right - 1):.1%} in OpenVINO")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnxruntime 1.32.0 openvino 2026.4.1
Elu at -1e-06: off by 1.3% in ONNX Runtime, 1.3% in OpenVINO
Elu at -1e-07: off by 19.2% in ONNX Runtime, 19.2% in OpenVINO
Selu at -1e-06: off by 1.3% in ONNX Runtime, 1.3% in OpenVINO
Selu at -1e-07: off by 19.2% in ONNX Runtime, 19.2% in OpenVINO
Celu <alpha = 1.0> at -1e-06: off by 1.3% in ONNX Runtime, 1.3% in OpenVINO
Celu <alpha = 1.0> at -1e-07: off by 19.2% in ONNX Runtime, 19.2% in OpenVINO
SEEN
