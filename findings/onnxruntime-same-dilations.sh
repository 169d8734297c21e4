#!/usr/bin/env bash
# Guess: a pool with auto_pad SAME_UPPER and stride 1 keeps the size of the map, dilated or not; what a runtime does not support it refuses.
# Is: ONNX Runtime reckons a pool's padding without the dilation: 9×10 becomes 7×8 where onnx's shape inference, OpenVINO and the standard's
# ceil(size ÷ stride) say 9×10. It warns that the shape is not the model's and answers. Conv with the same attributes loads and is refused at the
# first run. With the padding written out (`pads`) all three are right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, onnx, onnxruntime as ort, openvino as ov

ort.set_default_logger_severity(4)
print("onnx", onnx.__version__, "onnxruntime", ort.__version__, "openvino", ov.__version__.split("-")[0])
x = np.ones((1, 1, 9, 10), np.float32)
for pad in ('auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"', "pads=[2,2,2,2]"):
    for operator, weights in (("MaxPool", ""), ("AveragePool", ""), ("Conv", "float[1,1,3,3] w = {1, 1, 1, 1, 1, 1, 1, 1, 1}")):
        model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 22]> g (float[1,1,9,10] x) => (float[1,1,h,w] y) <{weights}>
            {{ y = {operator} <kernel_shape=[3,3], dilations=[2,2], strides=[1,1], {pad}> (x{", w" if weights else ""}) }}""")
        inferred = [d.dim_value for d in onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim]
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        try:
            runtime = list(session.run(None, {"x": x})[0].shape[2:])
        except Exception as error:
            runtime = type(error).__name__
        other = ov.compile_model(ov.Core().read_model(model.SerializeToString()), "CPU")(x)[0]
        print(f"{operator} with {pad}: inferred {inferred[2:]}, ONNX Runtime {runtime}, OpenVINO {list(other.shape[2:])}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 openvino 2026.4.1
MaxPool with auto_pad="SAME_UPPER": inferred [9, 10], ONNX Runtime [7, 8], OpenVINO [9, 10]
AveragePool with auto_pad="SAME_UPPER": inferred [9, 10], ONNX Runtime [7, 8], OpenVINO [9, 10]
Conv with auto_pad="SAME_UPPER": inferred [9, 10], ONNX Runtime InvalidArgument, OpenVINO [9, 10]
MaxPool with auto_pad="SAME_LOWER": inferred [9, 10], ONNX Runtime [7, 8], OpenVINO [9, 10]
AveragePool with auto_pad="SAME_LOWER": inferred [9, 10], ONNX Runtime [7, 8], OpenVINO [9, 10]
Conv with auto_pad="SAME_LOWER": inferred [9, 10], ONNX Runtime InvalidArgument, OpenVINO [9, 10]
MaxPool with pads=[2,2,2,2]: inferred [9, 10], ONNX Runtime [9, 10], OpenVINO [9, 10]
AveragePool with pads=[2,2,2,2]: inferred [9, 10], ONNX Runtime [9, 10], OpenVINO [9, 10]
Conv with pads=[2,2,2,2]: inferred [9, 10], ONNX Runtime [9, 10], OpenVINO [9, 10]
SEEN
