#!/usr/bin/env bash
# Guess: NNCF gives each activation one range, with a range per channel for weights only, as integer kernels need.
# Is: the input of a depth-wise convolution gets a range per channel. It runs faster and better in OpenVINO, and cannot be had in ONNX Q/DQ for
# TensorRT, whose activations are per tensor: ranges of an NNCF model cannot be carried over as they are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile openvino==2026.4.1 nncf==3.4.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import logging, sys, nncf, numpy as np, openvino as ov, openvino.opset13 as op

logging.disable(logging.CRITICAL)
rng = np.random.default_rng(0)
def constant(*shape):
    return op.constant(rng.standard_normal(shape).astype(np.float32))

x = op.parameter([1, 4, 8, 8], np.float32, name="picture")
y = op.relu(op.convolution(x, constant(8, 4, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1], name="dense"))
y = op.group_convolution(y, constant(8, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1], name="depthwise")
y = op.convolution(y, constant(4, 8, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1], name="pointwise")
pictures = [rng.standard_normal((1, 4, 8, 8)).astype(np.float32) for _ in range(4)]
stdout, sys.stdout = sys.stdout, sys.stderr
quantised = nncf.quantize(ov.Model([y], [x]), nncf.Dataset(pictures))
sys.stdout = stdout
print("openvino", ov.__version__.split("-")[0], "nncf", nncf.__version__)
for node in quantised.get_ordered_ops():
    if node.get_type_name() == "FakeQuantize":
        reader = next(iter(node.output(0).get_target_inputs())).get_node()
        print(f"range of the input of {reader.get_friendly_name()}: shape {list(node.input_value(1).get_shape())}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1 nncf 3.4.0
range of the input of dense: shape []
range of the input of depthwise: shape [1, 8, 1, 1]
range of the input of pointwise: shape []
SEEN
