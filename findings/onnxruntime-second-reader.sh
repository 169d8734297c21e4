#!/usr/bin/env bash
# Guess: whether a quantised product runs in integers depends on the product, not on who else reads its input; and signed codes are the better
# supported ones.
# Is: in ONNX Runtime on x86 a second reader of a dequantised signed tensor (a Softmax, a skip connection) moves the product to float, and takes
# its DequantizeLinear along. The same graph with unsigned codes stays an integer product. Neither is said in any log.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort

print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
for kind, zero in (("int8", 0), ("uint8", 128)):
    for reader in ("", "y2 = Softmax (d)"):
        model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[2,2] x) => (float[2,2] y{", float[2,2] y2" if reader else ""})
            <float s = {{0.05}}, {kind} z = {{{zero}}}, int8[2,2] w = {{1, 2, 3, 4}}, int8 wz = {{0}}>
            {{ q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  v = DequantizeLinear (w, s, wz)
               p = MatMul (d, v)  r = QuantizeLinear (p, s, z)  y = DequantizeLinear (r, s, z) {reader} }}""")
        options = ort.SessionOptions()
        options.optimized_model_filepath = "optimised.onnx"
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        product = [n.op_type for n in onnx.load("optimised.onnx").graph.node if "MatMul" in n.op_type]
        print(f"{kind}, {'second reader' if reader else 'one reader'}: {product[0]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
int8, one reader: QLinearMatMul
int8, second reader: MatMul
uint8, one reader: QLinearMatMul
uint8, second reader: QLinearMatMul
SEEN
