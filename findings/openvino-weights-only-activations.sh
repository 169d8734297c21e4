#!/usr/bin/env bash
# Guess: with INFERENCE_PRECISION_HINT f32, a model whose weights alone were compressed to 8 bits is computed in float from the decompressed
# weights.
# Is: the CPU plugin quantises the activations too, in groups of 32 to 8 bits, on every core with VNNI (avx512_vnni or avx_vnni, which the script
# checks): answers are off by some per cent. The f32 hint does not stop it; DYNAMIC_QUANTIZATION_GROUP_SIZE 0 or EXECUTION_MODE_HINT ACCURACY
# does.
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
if not {"avx512_vnni", "avx_vnni"} & set(open("/proc/cpuinfo").read().split()):
    sys.exit("this shows itself on CPUs with avx512_vnni or avx_vnni only, and this one has neither")
rng = np.random.default_rng(0)
x = op.parameter([-1, 256], np.float32)
weights = rng.standard_normal((256, 256)).astype(np.float32)
model = ov.Model([op.matmul(x, op.constant(weights), False, True)], [x])
stdout, sys.stdout = sys.stdout, sys.stderr
model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
sys.stdout = stdout
rows = rng.standard_normal((4, 256)).astype(np.float32)
q = next(o for o in model.get_ordered_ops() if o.get_type_name() == "Constant" and o.get_element_type() == ov.Type.i8).data
scale = next(o for o in model.get_ordered_ops() if o.get_type_name() == "Constant" and list(o.shape) == [256, 1]).data
exact = rows.astype(np.float64) @ (q.astype(np.float64) * scale).T
print("openvino", ov.__version__.split("-")[0], "nncf", nncf.__version__)
for options in ({}, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}, {"EXECUTION_MODE_HINT": "ACCURACY"}):
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})
    error = abs(compiled(rows)[0] - exact).max() / abs(exact).mean()
    group = compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
    print("f32 and", options or "nothing else", "· group", group, "· error above 1 %:", error > 0.01, "· below 1e-5:", error < 1e-5)
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1 nncf 3.4.0
f32 and nothing else · group 32 · error above 1 %: True · below 1e-5: False
f32 and {'DYNAMIC_QUANTIZATION_GROUP_SIZE': '0'} · group 0 · error above 1 %: False · below 1e-5: True
f32 and {'EXECUTION_MODE_HINT': 'ACCURACY'} · group 0 · error above 1 %: False · below 1e-5: True
SEEN
