#!/usr/bin/env bash
# Guess: OpenVINO resizes an ONNX Resize with antialias=1 as ONNX Runtime does, or refuses it.
# Is: its model holds Interpolate of mode linear_onnx with antialias true, and the CPU plugin takes no notice: a picture made four times smaller
# is sampled, not averaged.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, onnxruntime as ort, openvino as ov
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
x = (np.arange(16, dtype=np.float32) % 4 == 0).reshape(1, 1, 1, 16) * np.float32(100)  # one pixel in four is bright
for antialias in (0, 1):
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,1,1,16] x) => (float[1,1,1,4] y)
        <int64[4] sizes = {{1, 1, 1, 4}}> {{ y = Resize <mode="linear", antialias={antialias}> (x, , , sizes) }}""")
    data = model.SerializeToString()
    read = ov.Core().read_model(io.BytesIO(data))
    kept = [o.get_attributes() for o in read.get_ops() if o.get_type_name() == "Interpolate"][0]
    print(f"antialias={antialias}")
    print("  ONNX's reference", ReferenceEvaluator(model).run(None, {"x": x})[0].ravel().round(2))
    print("  ONNX Runtime    ", ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel().round(2))
    print("  OpenVINO        ", ov.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0].ravel().round(2),
          f"read as {kept['mode']}, antialias {kept['antialias']}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
antialias=0
  ONNX's reference [0. 0. 0. 0.]
  ONNX Runtime     [0. 0. 0. 0.]
  OpenVINO         [0. 0. 0. 0.] read as linear_onnx, antialias False
antialias=1
  ONNX's reference [37.5  25.   25.   15.62]
  ONNX Runtime     [37.5  25.   25.   15.62]
  OpenVINO         [0. 0. 0. 0.] read as linear_onnx, antialias True
SEEN
