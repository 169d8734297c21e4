#!/usr/bin/env bash
# Guess: an INT8 Softmax rounds its weights; over any number of tokens their sum stays near 1.
# Is: LiteRT holds the weights in steps of 1/256 and takes no other step, so that nothing below 1/512 is left. An attention that looks at all
# tokens alike gives twice their mean at 512 tokens and 0 at 513; of scores with a standard deviation of 1.5 over 4,096 tokens (a picture of
# 64×64 patches) less than a third of the weight is left, in 73 tokens. Codes of 16 bits are right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.4.6 flatbuffers==25.12.19 ai-edge-litert==2.3.0 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
from importlib.metadata import version
import flatbuffers, numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

def tensor(tokens, kind, scale, zero):
    made = schema.TensorT()
    made.shape, made.type, made.name, made.quantization = [1, tokens], kind, "t", schema.QuantizationParametersT()
    made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
    return made

def softmax(codes, step, kind, out):  # the weights that a model of one Softmax gives
    model, code, graph, node = schema.ModelT(), schema.OperatorCodeT(), schema.SubGraphT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    code.version = 2
    graph.tensors = [tensor(codes.shape[1], kind, step, 0), tensor(codes.shape[1], kind, *out)]
    node.opcodeIndex, node.inputs, node.outputs = 0, [0], [1]
    node.builtinOptionsType, node.builtinOptions = schema.BuiltinOptions.SoftmaxOptions, schema.SoftmaxOptionsT()
    node.builtinOptions.beta = 1.0
    graph.operators, graph.inputs, graph.outputs = [node], [0], [1]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, codes)
    interpreter.invoke()
    return (interpreter.get_tensor(1).astype(int) - out[1]) * out[0]

print("ai-edge-litert", version("ai-edge-litert"))
INT8, INT16 = schema.TensorType.INT8, schema.TensorType.INT16
for tokens in (64, 512, 513):
    equal = softmax(np.zeros((1, tokens), np.int8), 0.1, INT8, (1 / 256, -128))
    print(f"{tokens} equal scores: INT8 weights sum to {equal.sum():.3f}")
for tokens in (197, 1024, 4096):
    scores = np.random.default_rng(0).normal(size=(1, tokens)) * 1.5
    weights = softmax(np.clip(np.round(scores / 0.05), -128, 127).astype(np.int8), 0.05, INT8, (1 / 256, -128))
    wide = softmax(np.round(scores / 0.0005).astype(np.int16), 0.0005, INT16, (1 / 32768, 0))
    print(f"{tokens} scores: INT8 weights sum to {weights.sum():.2f} in {np.count_nonzero(weights)} tokens, INT16 to {wide.sum():.2f}")
try:
    softmax(np.zeros((1, 1024), np.int8), 0.1, INT8, (1 / 4096, -128))
except RuntimeError as error:
    print("a step of 1/4096:", str(error).split("activations.cc")[-1].split(" ", 1)[1].split("Node")[0])
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
ai-edge-litert 2.3.0
64 equal scores: INT8 weights sum to 1.000
512 equal scores: INT8 weights sum to 2.000
513 equal scores: INT8 weights sum to 0.000
197 scores: INT8 weights sum to 0.96 in 104 tokens, INT16 to 1.00
1024 scores: INT8 weights sum to 0.68 in 124 tokens, INT16 to 1.00
4096 scores: INT8 weights sum to 0.30 in 73 tokens, INT16 to 1.00
a step of 1/4096: output->params.scale not near 1.f / 256 (0.000244 != 0.003906)
SEEN
