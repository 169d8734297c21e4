#!/usr/bin/env bash
# Guess: the mean of equal values is that value, to a rounding or two; so InstanceNormalization of an empty (constant) channel is 0.
# Is: ONNX Runtime and OpenVINO add a map up in few lanes: the mean of 112×112 times 0.1 is off by 400 and 100 roundings (torch: 1). Normalised,
# what is left is divided by the root of epsilon: an empty channel of 1000.1 answers 0.77 and 0.38. (AVX2 or AVX-512; other lanes, other errors.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort, openvino as ov, torch

def answers(text, x):
    graph = f'<ir_version: 10, opset_import: ["" : 20]> g (float[1,2,h,w] x) => (float[1,2,a,b] y) {text}'
    model = onnx.parser.parse_model(graph).SerializeToString()
    yield "ONNX Runtime", ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    yield "OpenVINO", ov.compile_model(ov.Core().read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]

print("torch", torch.__version__.split("+")[0], "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
ort.set_default_logger_severity(4)
x = np.full((1, 2, 112, 112), 0.1, np.float32)
rounding = np.spacing(np.float32(0.1))
for name, mean in (*answers("{ y = GlobalAveragePool (x) }", x), ("torch", torch.from_numpy(x).mean((2, 3)).numpy())):
    error = abs(float(mean.ravel()[0]) - float(np.float32(0.1))) / rounding
    print(f"mean of 112×112 times 0.1, {name}: {'over 50' if error > 50 else 'under 5' if error < 5 else round(error)} roundings off")
x = np.full((1, 2, 56, 56), 1000.1, np.float32)
norm = "<float[2] s = {1, 1}, float[2] b = {0, 0}> { y = InstanceNormalization <epsilon=0.00001> (x, s, b) }"
for name, y in (*answers(norm, x), ("torch", torch.nn.functional.instance_norm(torch.from_numpy(x)).numpy())):
    print(f"InstanceNormalization of 56×56 times 1000.1, {name}: {'over 0.1' if abs(y).max() > 0.1 else 'under 0.02'}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 onnxruntime 1.32.0 openvino 2026.4.1
mean of 112×112 times 0.1, ONNX Runtime: over 50 roundings off
mean of 112×112 times 0.1, OpenVINO: over 50 roundings off
mean of 112×112 times 0.1, torch: under 5 roundings off
InstanceNormalization of 56×56 times 1000.1, ONNX Runtime: over 0.1
InstanceNormalization of 56×56 times 1000.1, OpenVINO: over 0.1
InstanceNormalization of 56×56 times 1000.1, torch: under 0.02
SEEN
