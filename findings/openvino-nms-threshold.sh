#!/usr/bin/env bash
# Guess: non-maximum suppression with a threshold of 0 keeps boxes that do not touch, in every runtime.
# Is: ONNX takes a box out when its overlap is greater than the threshold, OpenVINO when it is greater or equal. With a threshold of 0, which
# stands for "no overlap at all", OpenVINO keeps one box of a whole picture; with 0.5, boxes of which one is half of the other (anchors often are)
# come out differently.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, onnxruntime as ort, openvino as ov

print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
scores = np.array([[[0.9, 0.8]]], np.float32)
apart, half = [5, 5, 6, 6], [0, 0, 2, 1]
for name, other, threshold in (("apart", apart, 0), ("apart", apart, 0.01), ("half of it", half, 0.5), ("half of it", half, 0.51)):
    boxes = np.array([[[0, 0, 2, 2], other]], np.float32)
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,2,4] b, float[1,1,2] s) => (int64[N,3] y)
        <int64 m = {{10}}, float i = {{{threshold}}}> {{ y = NonMaxSuppression (b, s, m, i) }}""")
    data = model.SerializeToString()
    a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"b": boxes, "s": scores})[0]
    b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})((boxes, scores))[0]
    kept = [y[y[:, 2] >= 0, 2].tolist() for y in (a, b)]
    print(f"second box {name}, threshold {threshold}: kept by ONNX Runtime {kept[0]}, by OpenVINO {kept[1]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
second box apart, threshold 0: kept by ONNX Runtime [0, 1], by OpenVINO [0]
second box apart, threshold 0.01: kept by ONNX Runtime [0, 1], by OpenVINO [0, 1]
second box half of it, threshold 0.5: kept by ONNX Runtime [0, 1], by OpenVINO [0]
second box half of it, threshold 0.51: kept by ONNX Runtime [0, 1], by OpenVINO [0, 1]
SEEN
