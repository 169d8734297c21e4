#!/usr/bin/env bash
# Guess: the cache of compiled models notices that a model's file was replaced, by its content or at least by some sum of it.
# Is: the key is the file's name, time and size. A model replaced by another of the same size with its time kept (tar, rsync -t, cp -p,
# reproducible builds) is answered from the old blob; read_model before compile_model is not fooled.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import os, numpy as np, openvino as ov, openvino.opset13 as op

def write(operation):
    x = op.parameter([2], np.float32, name="x")
    two = op.constant(np.full(2, 2, np.float32), name="two")
    result = op.result(operation(x, two, name="y"), name="r")
    ov.save_model(ov.Model([result], [x], "m"), "m.xml", compress_to_fp16=False)
    for name in ("m.xml", "m.bin"):
        os.utime(name, (1_000_000_000, 1_000_000_000))
    return os.path.getsize("m.xml")

core = ov.Core()
core.set_property({"CACHE_DIR": "cache"})
five = [np.full(2, 5, np.float32)]
print("openvino", ov.__version__.split("-")[0])
print("minimum(5, 2):", write(op.minimum), "bytes,", core.compile_model("m.xml", "CPU")(five)[0])
print("replaced by maximum(5, 2):", write(op.maximum), "bytes,", core.compile_model("m.xml", "CPU")(five)[0])
print("without the cache:", ov.Core().compile_model("m.xml", "CPU")(five)[0])
print("read first:", core.compile_model(core.read_model("m.xml"), "CPU")(five)[0])
os.utime("m.xml")
print("with its new time:", core.compile_model("m.xml", "CPU")(five)[0])
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
openvino 2026.4.1
minimum(5, 2): 1363 bytes, [2. 2.]
replaced by maximum(5, 2): 1363 bytes, [2. 2.]
without the cache: [5. 5.]
read first: [5. 5.]
with its new time: [5. 5.]
SEEN
