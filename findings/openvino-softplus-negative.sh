#!/usr/bin/env bash
# Guess: softplus is positive, and Erf and Mish of a small or a large negative number are right to a few units in the last place.
# Is: OpenVINO's CPU plugin computes them by formulas with an absolute error of about 1e-7 to 2e-6: Softplus of -20 is negative, so that its
# square root or logarithm (the deviation of a distribution's head, say) is NaN; Erf of 1e-7 is 0, and Mish of -20 too. In FP32, as asked for.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, platform, sys, numpy as np, onnx, onnxruntime as ort, openvino as ov

if platform.machine() != "x86_64":
    sys.exit("seen on x86-64 only")
print("onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
for text, point, right in [("Softplus (x)", -20, "2.06e-09"), ("Sqrt (Softplus (x))", -20, "4.54e-05"), ("Mish (x)", -20, "-4.12e-08"), ("Erf (x)", 1e-7, "1.13e-07")]:
    body = "{ s = Softplus (x) y = Sqrt (s) }" if text.startswith("Sqrt") else "{ y = " + text + " }"
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g (float[16] x) => (float[16] y) ' + body)
    data, x = model.SerializeToString(), np.full(16, point, np.float32)
    a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0][0]
    b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0][0]
    wrong = "not a number" if np.isnan(b) else "negative" if b < 0 and not right.startswith("-") else "0" if b == 0 else "right"
    print(f"{text} at {point}: {right}; ONNX Runtime {a:.3g}, OpenVINO: {wrong}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnxruntime 1.32.0 openvino 2026.4.1
Softplus (x) at -20: 2.06e-09; ONNX Runtime 2.06e-09, OpenVINO: negative
Sqrt (Softplus (x)) at -20: 4.54e-05; ONNX Runtime 4.54e-05, OpenVINO: not a number
Mish (x) at -20: -4.12e-08; ONNX Runtime -4.12e-08, OpenVINO: 0
Erf (x) at 1e-07: 1.13e-07; ONNX Runtime 1.13e-07, OpenVINO: 0
SEEN
