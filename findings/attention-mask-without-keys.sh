#!/usr/bin/env bash
# Guess: whichever opset the exporter writes, a query that may look at no key is answered as torch answers it, with zeros.
# Is: below opset 23 the mask becomes the lowest finite float, added to the scores; the softmax of equal numbers is uniform, and that query gets
# the mean of all values. The guard written behind it (IsNaN) can never act. From opset 23 on, one Attention node answers 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnxruntime as ort, onnxscript, torch

class Attend(torch.nn.Module):
    def forward(self, q, k, v, mask):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

torch.manual_seed(0)
q, k, v = (torch.randn(1, 1, 3, 4) for _ in range(3))
mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])[None, None]
print("torch", torch.__version__.split("+")[0], "onnxscript", onnxscript.__version__, "onnxruntime", ort.__version__)
print("torch, the query without keys:", Attend()(q, k, v, mask)[0, 0, 1].numpy().round(3) + 0)
print("the mean of all values:       ", v.mean(2)[0, 0].numpy().round(3))
for opset in (18, 22, 23):
    model = torch.onnx.export(Attend(), (q, k, v, mask), dynamo=True, opset_version=opset, verbose=False).model_proto
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = dict(zip((i.name for i in session.get_inputs()), (t.numpy() for t in (q, k, v, mask))))
    answer = session.run(None, feeds)[0][0, 0, 1].round(3) + 0
    print(f"opset {opset}: {answer}, IsNaN in the graph: {any(n.op_type == 'IsNaN' for n in model.graph.node)}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 onnxscript 0.7.2 onnxruntime 1.32.0
torch, the query without keys: [0. 0. 0. 0.]
the mean of all values:        [ 0.121  0.363 -0.997 -0.615]
opset 18: [ 0.121  0.363 -0.997 -0.615], IsNaN in the graph: True
opset 22: [ 0.121  0.363 -0.997 -0.615], IsNaN in the graph: True
opset 23: [0. 0. 0. 0.], IsNaN in the graph: False
SEEN
