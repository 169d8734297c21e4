#!/usr/bin/env bash
# Guess: what TensorRT cannot do as the ONNX file says, its parser refuses; it has an error for most such things.
# Is: TensorRT-RTX's parser takes unsigned codes with zero point 0 as INT8, so that everything above half of the range is cut off (unsigned codes
# with zero point 128 are refused); and a max-pool with ceil_mode whose last window would begin in the padding gets a row and a column more than
# ONNX, and the file, say. No GPU is needed to see it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile tensorrt-rtx==1.7.1.116 onnx==1.23.2 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import onnx, tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.INTERNAL_ERROR)

def parse(text, opset):
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        return "refused: " + parser.get_error(0).desc().split(". ")[0].split(": ")[-1]
    kinds = ("QUANTIZE", "POOLING")
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [f"{l.type.name} gives {l.get_output(0).dtype.name} {tuple(l.get_output(0).shape)}" for l in layers if l.type.name in kinds]

print("tensorrt_rtx", trt.__version__, "onnx", onnx.__version__)
for zero in (0, 128):
    graph = f"(float[1,4] x) => (float[1,4] y) <float s = {{0.1}}, uint8 z = {{{zero}}}> {{ q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }}"
    print(f"UINT8, zero point {zero}:", parse(graph, 19))
pool = "<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1> (x)"
for kind in ("MaxPool", "AveragePool"):
    print(f"{kind}, 7×7, declared 4×4:", parse(f"(float[1,1,7,7] x) => (float[1,1,4,4] y) {{ y = {kind} {pool} }}", 22))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
tensorrt_rtx 1.7.1.116 onnx 1.23.2
UINT8, zero point 0: ['QUANTIZE gives INT8 (1, 4)']
UINT8, zero point 128: refused: Non-zero zero point is not supported
MaxPool, 7×7, declared 4×4: ['POOLING gives FLOAT (1, 1, 5, 5)']
AveragePool, 7×7, declared 4×4: refused: API Usage Error (Output shape can not be computed for node node_of_y
SEEN
