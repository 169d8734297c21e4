#!/usr/bin/env bash
# Guess: each runtime orders equal scores in its own way, or all take the lower index first, as ONNX's standard asks.
# Is: ONNX Runtime keeps to the standard. OpenVINO does too for few scores, but from the same graph with a dynamic dimension, or with all of 64
# scores asked for, it puts index 0 behind the others. torch.topk gives any order. So the fifth class of a network without an opinion, or the query
# that a detector keeps, depends on the runtime and on whether the size was fixed.
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

def order(found):
    return "by index" if (found == np.arange(found.size)).all() else "index 0 last" if found[-1] == 0 else "otherwise"

print("torch", torch.__version__.split("+")[0], "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
for size, k in ((5, 3), (64, 5), (1000, 5), (64, 64)):
    x = np.ones((1, size), np.float32)
    seen = []
    for dimension in (size, "n"):
        model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,{dimension}] x) => (float[1,{k}] v, int64[1,{k}] i)
            <int64[1] k = {{{k}}}> {{ v, i = TopK <sorted=1> (x, k) }}""").SerializeToString()
        runtime = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["i"], {"x": x})[0][0]
        other = ov.compile_model(ov.Core().read_model(model), "CPU")(x)[1][0]
        seen.append(f"{'static' if dimension == size else 'dynamic'}: ONNX Runtime {order(runtime)}, OpenVINO {order(other)}")
    eager = torch.topk(torch.from_numpy(x), k)[1][0].numpy()
    print(f"{k} of {size} equal scores,", "; ".join(seen) + f"; torch {'by index' if order(eager) == 'by index' else 'not by index'}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 onnxruntime 1.32.0 openvino 2026.4.1
3 of 5 equal scores, static: ONNX Runtime by index, OpenVINO by index; dynamic: ONNX Runtime by index, OpenVINO index 0 last; torch not by index
5 of 64 equal scores, static: ONNX Runtime by index, OpenVINO by index; dynamic: ONNX Runtime by index, OpenVINO index 0 last; torch not by index
5 of 1000 equal scores, static: ONNX Runtime by index, OpenVINO by index; dynamic: ONNX Runtime by index, OpenVINO index 0 last; torch not by index
64 of 64 equal scores, static: ONNX Runtime by index, OpenVINO index 0 last; dynamic: ONNX Runtime by index, OpenVINO index 0 last; torch not by index
SEEN
