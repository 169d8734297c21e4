#!/usr/bin/env bash
# Guess: static quantisation takes each range from the calibration data; attention over many tokens, whose weights are small, gets a small step.
# Is: ONNX Runtime's quantiser sets the range of every Softmax to 0 to 1, whatever was calibrated. The step is 1/255, or 1/127 when symmetric, and
# an attention that looks at 1,024 tokens nearly alike becomes 0; at 256 tokens a ninth is missing when symmetric. Left out of
# `op_types_to_quantize`, the same Softmax keeps its calibrated range, and its output is quantised all the same, for the product that reads it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

class Scores(CalibrationDataReader):
    def __init__(self, pictures):
        self.left = iter(pictures)

    def get_next(self):
        return next(self.left, None)

def answer(name, feeds):
    return ort.InferenceSession(name, providers=["CPUExecutionProvider"]).run(None, feeds)[0].ravel()[0]

print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
values = {"UInt8": QuantType.QUInt8, "symmetric Int8": QuantType.QInt8}
for tokens in (64, 256, 1024):
    body = "{ s = Softmax <axis=-1> (x) y = MatMul (s, v) }"
    text = f"(float[1,{tokens}] x, float[{tokens},4] v) => (float[1,4] y) {body}"
    onnx.save(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g ' + text), "float.onnx")
    rng = np.random.default_rng(0)
    draw = lambda: {"x": rng.normal(size=(1, tokens)).astype(np.float32) * np.float32(0.1), "v": np.ones((tokens, 4), np.float32)}
    pictures = [draw() for _ in range(4)]
    seen = [f"float {answer('float.onnx', pictures[0]):.2f}"]
    for title, kind in values.items():
        for left, types in (("all", None), ("MatMul alone", ["MatMul"])):
            quantize_static("float.onnx", "int8.onnx", Scores(pictures), quant_format=QuantFormat.QDQ, activation_type=kind, weight_type=QuantType.QInt8,
                op_types_to_quantize=types, extra_options={"ActivationSymmetric": kind == QuantType.QInt8})
            model = onnx.load("int8.onnx")
            step = next(float(onnx.numpy_helper.to_array(t)) for t in model.graph.initializer if t.name == "s_scale")
            width = f"1/{round(1 / step)}" if step > 0.001 else "below 1/1000"
            seen.append(f"{title}, {left}: {answer('int8.onnx', pictures[0]):.2f}, step {width}")
    print(f"{tokens} tokens, mean of ones:", "; ".join(seen))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0
64 tokens, mean of ones: float 1.00; UInt8, all: 1.00, step 1/255; UInt8, MatMul alone: 1.00, step below 1/1000; symmetric Int8, all: 1.00, step 1/127; symmetric Int8, MatMul alone: 1.00, step below 1/1000
256 tokens, mean of ones: float 1.00; UInt8, all: 1.00, step 1/255; UInt8, MatMul alone: 1.00, step below 1/1000; symmetric Int8, all: 0.89, step 1/127; symmetric Int8, MatMul alone: 1.00, step below 1/1000
1024 tokens, mean of ones: float 1.00; UInt8, all: 0.00, step 1/255; UInt8, MatMul alone: 1.00, step below 1/1000; symmetric Int8, all: 0.00, step 1/127; symmetric Int8, MatMul alone: 1.00, step below 1/1000
SEEN
