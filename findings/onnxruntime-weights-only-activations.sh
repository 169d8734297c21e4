#!/usr/bin/env bash
# Guess: a product with 8-bit weights and float activations, DequantizeLinear before MatMul, is float arithmetic in ONNX Runtime, for nothing in
# the file quantises the activations.
# Is: the pair is fused to MatMulNBits with accuracy level 4, which quantises the activations to 8 bits in blocks. The error grows by some
# thousand times. session.qdq_matmulnbits_accuracy_level=0 gives float. (MatMulNBits itself, without its attribute, is float.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
K, N = 128, 64
x, codes = rng.standard_normal((4, K)).astype(np.float32), rng.integers(-7, 8, (K, N))
print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
for kind in ("INT8", "INT4"):
    for name, shape, attributes in (("a scale per column", (N,), {"axis": 1}), ("a scale per 32 rows", (K // 32, N), {"axis": 0, "block_size": 32})):
        scale = rng.uniform(0.01, 0.02, shape).astype(np.float32)
        exact = x.astype(np.float64) @ (codes * (np.repeat(scale, 32, 0) if "block_size" in attributes else scale))
        weights = helper.make_tensor("w", getattr(TensorProto, kind), [K, N], codes.ravel().tolist())
        nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], **attributes), helper.make_node("MatMul", ["x", "d"], ["y"])]
        values = [helper.make_tensor_value_info(n, 1, [4, c]) for n, c in (("x", K), ("y", N))]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weights, numpy_helper.from_array(scale, "s")])
        data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
        seen = []
        for level in (None, "0"):
            options = ort.SessionOptions()
            options.optimized_model_filepath = "optimised.onnx"
            options.log_severity_level = 3
            if level:
                options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
            answer = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            error = abs(answer - exact).max() / abs(exact).mean()
            kind_of_sum = "float" if error < 1e-4 else "8-bit activations" if error > 1e-2 else error
            seen.append((kind_of_sum, [n.op_type for n in onnx.load("optimised.onnx").graph.node]))
        print(f"{kind}, {name}: {seen[0][0]} {seen[0][1]}, level 0: {seen[1][0]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
INT8, a scale per column: 8-bit activations ['MatMulNBits'], level 0: float
INT8, a scale per 32 rows: 8-bit activations ['MatMulNBits'], level 0: float
INT4, a scale per column: 8-bit activations ['MatMulNBits'], level 0: float
INT4, a scale per 32 rows: 8-bit activations ['MatMulNBits'], level 0: float
SEEN
