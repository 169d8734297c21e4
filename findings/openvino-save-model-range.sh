#!/usr/bin/env bash
# Guess: save_model, which stores weights in FP16 unless told otherwise, leaves in FP32 what FP16 cannot hold.
# Is: it does so for a number that stands alone, and for a matrix of which nine tenths are too small. One weight of 100,000 or of 1,000,000,000 in
# a matrix becomes 65,504, and infinity is not reached, so that nothing shows: the layer answers with a finite number that is wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile openvino==2026.4.1 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, openvino as ov, openvino.opset13 as op

weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
def scaled(rows, factor):
    copy = weights.copy()
    copy[:rows] *= np.float32(factor)
    return copy

print("openvino", ov.__version__.split("-")[0])
cases = {"as it is": weights, "58 of 64 rows × 1e-9": scaled(58, 1e-9), "one number, 1e9, alone": np.full((1, 1), 1e9, np.float32)}
for value in (1e5, 1e9):
    cases[f"one weight of {value:.0e} among 4,096"] = np.where(np.arange(4096).reshape(64, 64) == 5, np.float32(value), weights)
for name, tensor in cases.items():
    x = op.parameter([1, tensor.shape[1]], np.float32, name="x")
    ov.save_model(ov.Model([op.matmul(x, op.constant(tensor), False, True)], [x]), "m.xml")
    kept = next(o for o in ov.Core().read_model("m.xml").get_ordered_ops() if o.get_type_name() == "Constant")
    print(f"{name}: {kept.get_element_type().get_type_name()}, greatest {abs(tensor).max():.7g} became {abs(kept.data.astype(np.float64)).max():.7g}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1
as it is: f16, greatest 3.899422 became 3.900391
58 of 64 rows × 1e-9: f32, greatest 3.257199 became 3.257199
one number, 1e9, alone: f32, greatest 1e+09 became 1e+09
one weight of 1e+05 among 4,096: f16, greatest 100000 became 65504
one weight of 1e+09 among 4,096: f16, greatest 1e+09 became 65504
SEEN
