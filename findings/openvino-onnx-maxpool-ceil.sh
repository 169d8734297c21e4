#!/usr/bin/env bash
# Guess: runtimes disagree about ceil_mode for average pools, if anywhere.
# Is: it is max-pooling. ONNX leaves out a last window that would begin in the padding, as torch does. OpenVINO's reader does so for AveragePool
# and keeps it for MaxPool: the answer has a row and a column more than the file declares, of -3.4e38, which the next convolution then adds up.
# (2×2, stride 2, padding 1 on 7×7.)
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
x = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)
for kind in ("MaxPool", "AveragePool"):
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 22]> g (float[1,1,7,7] x) => (float[1,1,4,4] y)
        {{ y = {kind} <kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1> (x) }}""")
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    a = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    b = ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    print(f"{kind}: ONNX Runtime {a.shape[2:]}, OpenVINO {b.shape[2:]}, OpenVINO's last row {b[0, 0, -1]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
MaxPool: ONNX Runtime (4, 4), OpenVINO (5, 5), OpenVINO's last row [-3.4028235e+38 -3.4028235e+38 -3.4028235e+38 -3.4028235e+38
 -3.4028235e+38]
AveragePool: ONNX Runtime (4, 4), OpenVINO (4, 4), OpenVINO's last row [38.5 40.  42.  44. ]
SEEN
