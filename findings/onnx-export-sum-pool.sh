#!/usr/bin/env bash
# Guess: an average pool with divisor_override is exported as a sum and a division, or refused, as ONNX has no such attribute.  Is: it is
# exported as a plain AveragePool. A sum pool (divisor_override=1, the usual use) comes out four times too small, with no word about it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import onnx, onnxruntime as ort, onnxscript, torch

x = torch.arange(16.0).reshape(1, 1, 4, 4)
pool = torch.nn.AvgPool2d(2, divisor_override=1)
print("torch", torch.__version__.split("+")[0], "onnxscript", onnxscript.__version__, "onnxruntime", ort.__version__)
model = torch.onnx.export(pool, (x,), dynamo=True, opset_version=20, verbose=False).model_proto
print("graph:", [n.op_type for n in model.graph.node])
print("torch       ", pool(x).numpy().ravel())
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("ONNX Runtime", session.run(None, {model.graph.input[0].name: x.numpy()})[0].ravel())
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 onnxscript 0.7.2 onnxruntime 1.32.0
graph: ['AveragePool']
torch        [10. 18. 42. 50.]
ONNX Runtime [ 2.5  4.5 10.5 12.5]
SEEN
