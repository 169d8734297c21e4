#!/usr/bin/env bash
# Guess: ncnn computes in FP32 on x86 unless it is asked for less; if it stores FP16, it rounds to the nearest.
# Is: weights are stored in FP16 by default on x86 too (use_fp16_storage), and they are cut off, not rounded: each one becomes smaller in
# magnitude, by 0.035 % on the mean, so that a network loses gain from layer to layer, and the error is twice that of FP16 weights elsewhere. The
# arithmetic is FP32 all the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile ncnn==1.0.20261020 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import sys, ncnn, numpy as np

if "f16c" not in open("/proc/cpuinfo").read().split():
    sys.exit("this shows itself on CPUs with f16c only")
rng = np.random.default_rng(0)
size = 64
weights, x = rng.standard_normal((size, size)).astype(np.float32), rng.standard_normal(size).astype(np.float32)
open("m.param", "w").write(f"7767517\n2 2\nInput in0 0 1 in0\nInnerProduct ip 1 1 in0 out0 0={size} 1=0 2={size * size}\n")
open("m.bin", "wb").write(b"\0\0\0\0" + weights.tobytes())  # the flag of raw FP32 weights, then the weights
rounded = weights.astype(np.float16)
cut = (weights.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)  # the ten bits that FP16 keeps
sums = {"FP32": weights, "FP16 rounded to nearest": rounded, "FP16 cut off": cut}
print("ncnn", ncnn.__version__, f"· cut off, a weight loses {np.mean(1 - cut / weights):.3%} on the mean, rounded {abs(np.mean(1 - rounded / weights)):.3%}")
for options in ({}, {"use_fp16_storage": False}):
    net = ncnn.Net()
    net.opt.num_threads = 1
    for key, value in options.items():
        setattr(net.opt, key, value)
    net.load_param("m.param")
    net.load_model("m.bin")
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x))
    answer = np.array(extractor.extract("out0")[1])
    fits = [name for name, w in sums.items() if abs(answer - w.astype(np.float64) @ x).max() < 1e-5]
    print(options or "as it comes", "· fits, to 1e-5, weights in", *fits)
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
ncnn 1.0.20261020 · cut off, a weight loses 0.035% on the mean, rounded 0.001%
as it comes · fits, to 1e-5, weights in FP16 cut off
{'use_fp16_storage': False} · fits, to 1e-5, weights in FP32
SEEN
