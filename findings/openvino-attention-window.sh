#!/usr/bin/env bash
# Guess: a runtime refuses an attribute that came with a newer opset than it knows.
# Is: OpenVINO reads an Attention of the newer opset and leaves its window out: with left_window_size=1 each query should look at itself
# and one key before it, and looks at all of them.  No error and no warning; ONNX's reference and the sum written out agree with each other.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, numpy as np, onnx, openvino as ov
from onnx.reference import ReferenceEvaluator

version = onnx.defs.get_schema("Attention").since_version
print("onnx", onnx.__version__, "openvino", ov.__version__.split("-")[0], "· Attention of opset", version)
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 1, 4, 8)).astype(np.float32) for _ in range(3))

def by_hand(left):
    scores = (q @ k.swapaxes(2, 3))[0, 0] / np.sqrt(8)
    distance = np.arange(4)[:, None] - np.arange(4)
    seen = np.where((distance >= 0) & ((distance <= left) | (left < 0)), scores, -np.inf)
    weights = np.exp(seen - seen.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v[0, 0]

for left in (-1, 1):
    shapes = ", ".join(f"float[1,1,4,8] {n}" for n in "qkv")
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : {version}]> g ({shapes}) => (float[1,1,4,8] y)
        {{ y = Attention <is_causal=1, left_window_size={left}> (q, k, v) }}""")
    reference = ReferenceEvaluator(model).run(None, {"q": q, "k": k, "v": v})[0][0, 0]
    read = ov.Core().read_model(io.BytesIO(model.SerializeToString()))
    answer = ov.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})((q, k, v))[0][0, 0]
    print(f"left_window_size={left}: the reference agrees with the sum by hand {np.allclose(reference, by_hand(left), atol=1e-5)},",
          f"OpenVINO with it {np.allclose(answer, by_hand(left), atol=1e-5)}, with the sum without window {np.allclose(answer, by_hand(-1), atol=1e-5)}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 openvino 2026.4.1 · Attention of opset 25
left_window_size=-1: the reference agrees with the sum by hand True, OpenVINO with it True, with the sum without window True
left_window_size=1: the reference agrees with the sum by hand True, OpenVINO with it False, with the sum without window True
SEEN
