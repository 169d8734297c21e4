#!/usr/bin/env bash
# Guess: a picture with NaN or an infinite value among the calibration data is refused, or left out with a warning.
# Is: NNCF leaves NaN out silently, so that a broken preprocessing is not seen; and one infinite value makes a range from -inf to inf, with which
# the quantised model answers 0 to every picture, in all places. quantize() returns as usual both times.
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
x = op.parameter([1, 3, 8, 8], np.float32, name="x")
y = op.convolution(x, op.constant(rng.standard_normal((8, 3, 3, 3)).astype(np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
model = ov.Model([y], [x])
pictures = [rng.standard_normal((1, 3, 8, 8)).astype(np.float32) for _ in range(4)]
lines = [f"openvino {ov.__version__.split('-')[0]} nncf {nncf.__version__}"]
stdout, sys.stdout = sys.stdout, sys.stderr
for bad in (0, np.nan, np.inf):
    data = [p.copy() for p in pictures]
    data[1][0, 0, 0, 0] = bad
    quantised = nncf.quantize(model, nncf.Dataset(data))
    fakes = [o for o in quantised.get_ordered_ops() if o.get_type_name() == "FakeQuantize"]
    fake = next(o for o in fakes if o.input_value(0).get_node().get_type_name() == "Parameter")
    low, high = (float(fake.input_value(i).get_node().data.ravel()[0]) for i in (1, 2))
    answer = ov.compile_model(quantised, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pictures[0])[0]
    lines.append(f"one value of {bad}: range of the input {low:.2f} to {high:.2f}, greatest answer {abs(answer).max():.1f}")
sys.stdout = stdout
print(*lines, sep="\n")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1 nncf 3.4.0
one value of 0: range of the input -3.30 to 3.28, greatest answer 17.2
one value of nan: range of the input -3.30 to 3.28, greatest answer 17.2
one value of inf: range of the input -inf to inf, greatest answer 0.0
SEEN
