#!/usr/bin/env bash
# Guess: an integer product of 8-bit codes has one right answer, and so the same one on every x86 CPU.
# Is: on a CPU with AVX2 and without VNNI, ONNX Runtime adds pairs of unsigned × signed products in 16 bits, which saturate: of 64 products of 255
# × 127 about half of the sum is lost. MatMulInteger is exact by definition; session.x64quantprecision=1 makes it so. An accuracy that was
# measured on a new server does not hold for an old PC. (The old CPU is an emulated Haswell; the new one is this one, if it has VNNI.)
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "this needs an x86-64 machine" >&2; exit 1; }
grep -qwE 'avx512_vnni|avx_vnni' /proc/cpuinfo || { echo "this compares with a CPU that has VNNI, and this one has none" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 2>>"$work/log"
cd "$work"
mkdir -p lists/partial archives/partial
apt=(apt-get -qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives" -o APT::Sandbox::User=)
{ "${apt[@]}" update && "${apt[@]}" download qemu-user-static && dpkg -x qemu-user-static_*.deb qemu; } >>log 2>&1 || { tail -n 20 log >&2; exit 1; }
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 PYTHONPATH
PYTHONPATH=$(echo "$work"/env/lib/python3*/site-packages)
cat >product.py <<'PYTHON'
import sys, numpy as np, onnx, onnxruntime as ort

model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (uint8[1,64] x) => (int32[1,16] y)
    <int8[64,16] w = {{{", ".join(["127"] * 1024)}}}> {{ y = MatMulInteger (x, w) }}""")
for precise in ("0", "1"):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", precise)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer = int(session.run(None, {"x": np.full((1, 64), 255, np.uint8)})[0][0, 0])
    print(f"{sys.argv[1]}, x64quantprecision={precise}: {answer} of {64 * 255 * 127}")
PYTHON
{
    echo "onnxruntime $(env/bin/python -c 'import onnxruntime; print(onnxruntime.__version__)')"
    env/bin/python product.py "a CPU with VNNI"
    QEMU_CPU=Haswell qemu/usr/bin/qemu-x86_64-static "$(readlink -f env/bin/python)" product.py "Haswell"
} >seen 2>>log || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnxruntime 1.32.0
a CPU with VNNI, x64quantprecision=0: 2072640 of 2072640
a CPU with VNNI, x64quantprecision=1: 2072640 of 2072640
Haswell, x64quantprecision=0: 1048544 of 2072640
Haswell, x64quantprecision=1: 2072640 of 2072640
SEEN
