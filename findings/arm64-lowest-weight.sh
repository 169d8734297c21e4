#!/usr/bin/env bash
# Guess: ARM64 has no trouble of x86's kind with sums of 8-bit products; a product with zeros is 0 on every core.
# Is: on a core without dot product instructions (Cortex-A53, A57, A72: Raspberry Pi 3 and 4, Jetson Nano) ONNX Runtime adds two products of signed codes
# in 16 bits, and -128 times -128 twice does not fit: two neighbouring weights of -128 turn round with two activations of the lowest code. For
# unsigned activations that is 0, as behind a ReLU: a product of 64 zeros is -2,097,152. Weights from -127 on are right everywhere, and a core with
# dot products (Cortex-A76) is right with all. (Weights of -128 come from quantisers that use the full range, side by side where they cut off.)
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "this emulates from an x86-64 machine with Debian 12's packages" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip env
python3 -m pip --python env/bin/python install --quiet --no-compile onnx==1.23.2 2>>log
python3 -m pip download --quiet --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --python-version 3.11 \
    --no-deps --dest wheels onnxruntime==1.32.0 numpy==2.3.5 flatbuffers==25.12.19 protobuf==7.36.2 packaging==26.4 2>>log
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" packages; done
get() {  # the packages of one architecture, unpacked into a folder
    local lists=(-qq -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o "Dir::State::Lists=$work/lists-$1" -o Dir::State::Status=/dev/null)
    lists+=(-o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives" -o APT::Sandbox::User=)
    mkdir -p "lists-$1/partial" archives/partial "debs-$1" "$2"
    (cd "debs-$1" && apt-get "${lists[@]}" update && apt-get "${lists[@]}" download "${@:3}") >>log 2>&1 || { tail -n 20 log >&2; exit 1; }
    for deb in "debs-$1"/*.deb; do dpkg -x "$deb" "$2"; done
}
get amd64 qemu qemu-user-static
get arm64 device libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
mkdir -p device/proc device/sys/devices/system/cpu
for name in possible present kernel_max; do echo 0 >device/sys/devices/system/cpu/$name; done
env/bin/python - <<'PYTHON'
import numpy as np, onnx

def save(name, text, **weights):
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]> g ' + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in weights.items())
    onnx.checker.check_model(model)
    onnx.save(model, name + ".onnx")

for lowest in (-128, -127):
    w, one, zero = np.full((64, 16), lowest, np.int8), np.float32(1), np.int8(0)
    save(f"MatMulInteger{lowest}", "(uint8[4,64] x) => (int32[4,16] y) { y = MatMulInteger (x, w) }", w=w)
    codes = "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) c = DequantizeLinear (w, s, v)"
    save(f"QDQ{lowest}", f"(float[4,64] x) => (float[4,16] y) {{ {codes} y = MatMul (b, c) }}", w=w, s=one, z=np.uint8(0), v=zero)
    conv = "(uint8[1,64,4,4] x) => (uint8[1,16,4,4] y) { y = QLinearConv (x, s, z, w, s, v, s, h) }"
    save(f"QLinearConv{lowest}", conv, w=w.T.reshape(16, 64, 1, 1).copy(), s=one, z=np.uint8(0), v=zero, h=np.uint8(128))
PYTHON
cat >try.py <<'PYTHON'
import sys, numpy as np, onnxruntime as ort

def answer(name, x):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return int(ort.InferenceSession(name + ".onnx", options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel()[0])

print(f"{sys.argv[1]}, onnxruntime {ort.__version__}, all activations 0")
for lowest in (-128, -127):
    whole = answer(f"MatMulInteger{lowest}", np.zeros((4, 64), np.uint8)), answer(f"QDQ{lowest}", np.zeros((4, 64), np.float32))
    conv = answer(f"QLinearConv{lowest}", np.zeros((1, 64, 4, 4), np.uint8))
    print(f"  weights {lowest}: MatMulInteger {whole[0]}, MatMul between Q/DQ {whole[1]}, QLinearConv {conv - 128}")
PYTHON
on() {  # a core's name, its part number and features as Linux tells them
    printf 'processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: %s\nCPU revision\t: 0\n' \
        "$3" "$2" >device/proc/cpuinfo
    env -i QEMU_CPU="$1" PYTHONHOME="$work/device/usr" PYTHONPATH="$work/packages" ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 HOME="$work" TMPDIR="$work" \
        qemu/usr/bin/qemu-aarch64-static -L device -E LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu device/usr/bin/python3.11 try.py "$1" 2>>log
}
{ on cortex-a72 0xd08 "" && on cortex-a76 0xd0b "fphp asimdhp asimddp"; } >seen || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
cortex-a72, onnxruntime 1.32.0, all activations 0
  weights -128: MatMulInteger -2097152, MatMul between Q/DQ -2097152, QLinearConv -128
  weights -127: MatMulInteger 0, MatMul between Q/DQ 0, QLinearConv 0
cortex-a76, onnxruntime 1.32.0, all activations 0
  weights -128: MatMulInteger 0, MatMul between Q/DQ 0, QLinearConv 0
  weights -127: MatMulInteger 0, MatMul between Q/DQ 0, QLinearConv 0
SEEN
