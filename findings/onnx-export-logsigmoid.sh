#!/usr/bin/env bash
# Guess: LogSigmoid is exported in a form that is as stable as torch's own, since stability is why it exists.
# Is: the exporter writes Sigmoid and Log. ONNX Runtime's Sigmoid is cut off at -18 on x86, so that a logit of -20, which any detector has,
# answers -inf; OpenVINO does so from -88 on. A network that is compared on small logits looks right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, onnxruntime as ort, onnxscript, openvino as ov, torch

x = torch.tensor([5.0, -10, -20, -80, -100, -1000])
model = torch.onnx.export(torch.nn.LogSigmoid(), (x,), dynamo=True, opset_version=20, verbose=False).model_proto
data, name = model.SerializeToString(), model.graph.input[0].name
print("torch", torch.__version__.split("+")[0], "onnxscript", onnxscript.__version__, end=" ")
print("onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
print("graph:", [n.op_type for n in model.graph.node])
print("torch       ", torch.nn.functional.logsigmoid(x).numpy().round(4))
print("ONNX Runtime", ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {name: x.numpy()})[0].round(4))
print("OpenVINO    ", ov.compile_model(ov.Core().read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0].round(4))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 onnxscript 0.7.2 onnxruntime 1.32.0 openvino 2026.4.1
graph: ['Sigmoid', 'Log']
torch        [-6.7e-03 -1.0e+01 -2.0e+01 -8.0e+01 -1.0e+02 -1.0e+03]
ONNX Runtime [-6.70000e-03 -1.00002e+01         -inf         -inf         -inf
         -inf]
OpenVINO     [-6.7e-03 -1.0e+01 -2.0e+01 -8.0e+01     -inf     -inf]
SEEN
