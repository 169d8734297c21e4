#!/usr/bin/env bash
# Guess: a product whose factors both go through FakeQuantize of 8 bits is computed in INT8, whatever the ranges are.
# Is: weights quantised to 256 levels between -1 and 1, whose zero lies between two levels, leave the product in FP32: quantised in value, and
# no faster. With 255 levels, or a range in which zero is a level, it is INT8. Activations may have either.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, openvino as ov
from openvino import opset13 as ops

print("openvino", ov.__version__.split("-")[0])
values = np.random.default_rng(0).uniform(-1, 1, (256, 256)).astype(np.float32)
RANGES = {"256 levels, -1 to 1": (-1, 1, 256), "255 levels, -1 to 1": (-1, 1, 255), "256 levels, -128/127 to 1": (-128 / 127, 1, 256)}

def quantised(what, low, high, levels):
    return ops.fake_quantize(what, np.float32(low), np.float32(high), np.float32(low), np.float32(high), levels)

for weights, of_weights in RANGES.items():
    found = {}
    for activations, of_activations in RANGES.items():
        x = ops.parameter([64, 256], np.float32)
        model = ov.Model([ops.matmul(quantised(x, *of_activations), quantised(ops.constant(values), *of_weights), False, False)], [x])
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
        (kind,) = {info["runtimePrecision"].astype(str) for info in layers if info["layerType"].astype(str) in ("FullyConnected", "MatMul")}
        found[activations] = {"f32": "FP32", "u8": "INT8", "i8": "INT8"}.get(kind, kind)
    print(f"weights of {weights}: " + "; ".join(f"activations of {name}: {kind}" for name, kind in found.items()))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1
weights of 256 levels, -1 to 1: activations of 256 levels, -1 to 1: FP32; activations of 255 levels, -1 to 1: FP32; activations of 256 levels, -128/127 to 1: FP32
weights of 255 levels, -1 to 1: activations of 256 levels, -1 to 1: INT8; activations of 255 levels, -1 to 1: INT8; activations of 256 levels, -128/127 to 1: INT8
weights of 256 levels, -128/127 to 1: activations of 256 levels, -1 to 1: INT8; activations of 255 levels, -1 to 1: INT8; activations of 256 levels, -128/127 to 1: INT8
SEEN
