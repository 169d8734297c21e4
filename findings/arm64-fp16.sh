#!/usr/bin/env bash
# Guess: FP16 networks that run on x86 run on ARM64, and products of FP16 numbers are summed in FP32 there too.
# Is: on a core with FP16 arithmetic (Apple silicon, Graviton, Raspberry Pi 5; here an emulated Cortex-A76) ONNX Runtime sums MatMul in FP16:
# 1,024 terms of ±256 whose sum is 0 give inf. An FP16 AveragePool of opset 19 and later does not load at all, at opset 18 it does. On a core
# without FP16 arithmetic (Cortex-A57) and on x86 all is right.
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
import onnx

for opset in (18, 19):
    text = "(float16[1,1,2,2] x) => (float16[1,1,1,1] y) { y = AveragePool <kernel_shape=[2,2]> (x) }"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> g {text}'), f"pool{opset}.onnx")
text = "(float16[1,1024] x, float16[1024,1] w) => (float16[1,1] y) { y = MatMul (x, w) }"
onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> g {text}'), "sum.onnx")
PYTHON
cat >try.py <<'PYTHON'
import sys, numpy as np, onnxruntime as ort

def answer(name, **feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(name, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0].ravel()[0]
    except Exception as error:
        return "does not load: " + str(error).split(" : ")[-1].split(" (node")[0]

terms = np.repeat([1, -1], 512).astype(np.float16)[None] * np.float16(256)
print(f"{sys.argv[1]}, onnxruntime {ort.__version__}: sum of 1,024 terms", answer("sum.onnx", x=terms, w=np.ones((1024, 1), np.float16)))
for opset in (18, 19):
    print(f"  AveragePool of opset {opset}:", answer(f"pool{opset}.onnx", x=np.ones((1, 1, 2, 2), np.float16)))
PYTHON
on() {  # a core's name, its part number and features as Linux tells them
    printf 'processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: %s\nCPU revision\t: 0\n' \
        "$3" "$2" >device/proc/cpuinfo
    env -i QEMU_CPU="$1" PYTHONHOME="$work/device/usr" PYTHONPATH="$work/packages" ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 HOME="$work" TMPDIR="$work" \
        qemu/usr/bin/qemu-aarch64-static -L device -E LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu device/usr/bin/python3.11 try.py "$1" 2>>log
}
{ on cortex-a57 0xd07 "" && on cortex-a76 0xd0b "fphp asimdhp"; } >seen || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
cortex-a57, onnxruntime 1.32.0: sum of 1,024 terms 0.0
  AveragePool of opset 18: 1.0
  AveragePool of opset 19: 1.0
cortex-a76, onnxruntime 1.32.0: sum of 1,024 terms inf
  AveragePool of opset 18: 1.0
  AveragePool of opset 19: does not load: Failed to find kernel for com.ms.internal.nhwc.AveragePool(19)
SEEN
