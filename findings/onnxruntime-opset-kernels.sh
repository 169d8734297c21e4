#!/usr/bin/env bash
# Guess: a runtime that loads models of an opset has every operator that it had in the opset before.
# Is: operators get a new version when a type is added, and a kernel that was not renewed is gone: ONNX Runtime's CPU provider has RoiAlign up
# to opset 21 and none from 22 on, and at opset 28, which it takes for other operators and which onnx writes by default, neither QuantizeLinear
# nor DequantizeLinear: a Q/DQ model made with onnx's defaults does not load.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import onnx, onnxruntime as ort

Q = "(float[4] x) => (float[4] y) <float s = {1}, int8 z = {0}> { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"
graphs = {
    "Relu": "(float[4] x) => (float[4] y) { y = Relu (x) }",
    "RoiAlign": "(float[1,1,4,4] x, float[1,4] r, int64[1] b) => (float[1,1,1,1] y) { y = RoiAlign (x, r, b) }",
    "QuantizeLinear, DequantizeLinear": Q,
}
print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "· onnx's default opset", onnx.defs.onnx_opset_version())
for name, graph in graphs.items():
    seen = []
    for opset in (21, 22, 25, 28):
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {graph}')
        onnx.checker.check_model(model, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            seen.append(f"{opset} loads")
        except Exception as error:
            seen.append(f"{opset} {'has no kernel' if 'Could not find an implementation' in str(error) else error}")
    print(f"{name}: opset", ", ".join(seen))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 · onnx's default opset 28
Relu: opset 21 loads, 22 loads, 25 loads, 28 loads
RoiAlign: opset 21 loads, 22 has no kernel, 25 has no kernel, 28 has no kernel
QuantizeLinear, DequantizeLinear: opset 21 loads, 22 loads, 25 loads, 28 has no kernel
SEEN
