#!/usr/bin/env bash
# Guess: an ONNX file with bytes behind its end is damaged and refused, or they are ignored; for a graph's inner tensors it is parsed, changed
# and written anew.
# Is: what follows is a second message, and is merged into the first, by onnx and by both runtimes: a few bytes that hold nothing but one more
# output make a graph of any size give an inner tensor. A field that is there once is replaced, one that repeats grows: so do the opset imports.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip env
python3 -m pip --python env/bin/python install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.3.5 \
  2>>log || { tail -n 20 log >&2; exit 1; }
cat >try.py <<'PYTHON'
import numpy as np, onnx, onnxruntime, openvino
from onnx import TensorProto, helper

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__.split('-')[0]}")


def info(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3])


nodes = [helper.make_node("Relu", ["x"], ["inner"]), helper.make_node("Neg", ["inner"], ["y"])]
graph = helper.make_graph(nodes, "graph", [info("x")], [info("y")])
whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
more = onnx.ModelProto()
more.graph.output.append(info("inner"))
both = whole + more.SerializeToString()
print(f"  {len(both) - len(whole)} bytes behind {len(whole)}:")
print("  onnx reads the outputs", [each.name for each in onnx.load_from_string(both).graph.output])
session = onnxruntime.InferenceSession(both, providers=["CPUExecutionProvider"])
answers = session.run(None, {"x": np.array([[-1, 0, 2]], np.float32)})
print("  ONNX Runtime answers", {each.name: answer.tolist() for each, answer in zip(session.get_outputs(), answers)})
with open("both.onnx", "wb") as file:
    file.write(both)
compiled = openvino.Core().compile_model("both.onnx", "CPU")
print("  OpenVINO has the outputs", [each.get_any_name() for each in compiled.outputs])
again = onnx.ModelProto()
again.opset_import.append(helper.make_opsetid("", 13))
doubled = whole + again.SerializeToString()
print("  a second opset of the same domain:", [each.version for each in onnx.load_from_string(doubled).opset_import], end=", ")
print("and ONNX Runtime loads it:", bool(onnxruntime.InferenceSession(doubled, providers=["CPUExecutionProvider"])))
PYTHON
env/bin/python try.py >seen 2>>log || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2, onnxruntime 1.32.0, openvino 2026.4.1
  27 bytes behind 94:
  onnx reads the outputs ['y', 'inner']
  ONNX Runtime answers {'y': [[-0.0, -0.0, -2.0]], 'inner': [[0.0, 0.0, 2.0]]}
  OpenVINO has the outputs ['y', 'inner']
  a second opset of the same domain: [17, 13], and ONNX Runtime loads it: True
SEEN
