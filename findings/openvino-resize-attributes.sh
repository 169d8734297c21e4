#!/usr/bin/env bash
# Guess: OpenVINO resizes as an ONNX Resize says, or refuses what it does not know.
# Is: it reads antialias=1 into its model (Interpolate of mode linear_onnx, antialias true), and the CPU plugin takes no notice: a picture made
# four times smaller is sampled, not averaged. It does not read keep_aspect_ratio_policy at all, and answers in another shape than the file
# declares.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, onnxruntime as ort, openvino as ov
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
x = np.tile((np.arange(16) % 4 == 0) * np.float32(100), (1, 1, 16, 1))  # one column in four is bright
cases = {  # the node, and the shape that ONNX says
    "antialias=0": ('mode="linear", antialias=0> (x, , , sizes)', 16),
    "antialias=1": ('mode="linear", antialias=1> (x, , , sizes)', 16),
    "keep_aspect_ratio_policy": ('mode="linear", keep_aspect_ratio_policy="not_larger", axes=[2, 3]> (x, , , box)', 4),
}
for name, (node, height) in cases.items():
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,1,16,16] x) => (float[1,1,{height},4] y)
        <int64[4] sizes = {{1, 1, 16, 4}}, int64[2] box = {{8, 4}}> {{ y = Resize <{node} }}""")
    data = model.SerializeToString()
    read = ov.Core().read_model(io.BytesIO(data))
    kept = [o.get_attributes() for o in read.get_ops() if o.get_type_name() == "Interpolate"][0]
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    answers = [ReferenceEvaluator(model).run(None, {"x": x})[0], session.run(None, {"x": x})[0],
               ov.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]]
    print(name, f"(read as {kept['mode']}, antialias {kept['antialias']})")
    for runtime, y in zip(("ONNX's reference", "ONNX Runtime", "OpenVINO"), answers):
        print(f"  {runtime}: shape {y.shape[2:]}", y[0, 0, 0].round(2))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
antialias=0 (read as linear_onnx, antialias False)
  ONNX's reference: shape (16, 4) [0. 0. 0. 0.]
  ONNX Runtime: shape (16, 4) [0. 0. 0. 0.]
  OpenVINO: shape (16, 4) [0. 0. 0. 0.]
antialias=1 (read as linear_onnx, antialias True)
  ONNX's reference: shape (16, 4) [37.5  25.   25.   15.62]
  ONNX Runtime: shape (16, 4) [37.5  25.   25.   15.62]
  OpenVINO: shape (16, 4) [0. 0. 0. 0.]
keep_aspect_ratio_policy (read as linear_onnx, antialias False)
  ONNX's reference: shape (4, 4) [0. 0. 0. 0.]
  ONNX Runtime: shape (4, 4) [0. 0. 0. 0.]
  OpenVINO: shape (8, 4) [0. 0. 0. 0.]
SEEN
