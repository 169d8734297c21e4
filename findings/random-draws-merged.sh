#!/usr/bin/env bash
# Guess: optimisers merge equal nodes, but not those that draw at random: equal attributes are no equal values.
# Is: onnxsim makes one node of two draws, and onnxslim does or puts one draw into the file as a constant, the same at every run. ONNX Runtime keeps
# them, except that its default level merges two draws of Bernoulli. So the difference of two noises is 0, and two places share one mask.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 onnxsim==0.8.1 onnxslim==0.1.98 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import importlib.metadata
import numpy as np, onnx, onnxruntime as ort, onnxsim, onnxslim

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("onnx", "onnxruntime", "onnxsim", "onnxslim")))
ort.set_default_logger_severity(4)
x = np.zeros((1, 1000), np.float32)

def judged(model, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (first, second), (again, _) = session.run(None, {"x": x}), session.run(None, {"x": x})
    return "constant" if (first == again).all() else "one draw" if (first == second).all() else "two draws"

off, default = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
for draw in ("RandomNormalLike (x)", "RandomNormal <shape=[1,1000]> ()", "Bernoulli (half)", "Multinomial <dtype=7> (x)"):
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]> g (float[1,1000] x) => (float[1,n] y, float[1,n] z)
        <float h = {{0.5}}> {{ half = Add (x, h)  a = {draw}  b = {draw}  c = Cast <to=1> (a)  d = Cast <to=1> (b)
                              y = Add (c, x)  z = Sub (d, x) }}""")
    simple, slim = onnxsim.simplify(model)[0], onnxslim.slim(model)
    print(f"{draw}: ONNX Runtime unoptimised {judged(model, off)}, by default {judged(model, default)};",
          f"after onnxsim {judged(simple, off)}, after onnxslim {judged(slim, off)}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnx 1.23.2 onnxruntime 1.32.0 onnxsim 0.8.1 onnxslim 0.1.98
RandomNormalLike (x): ONNX Runtime unoptimised two draws, by default two draws; after onnxsim one draw, after onnxslim one draw
RandomNormal <shape=[1,1000]> (): ONNX Runtime unoptimised two draws, by default two draws; after onnxsim one draw, after onnxslim constant
Bernoulli (half): ONNX Runtime unoptimised two draws, by default one draw; after onnxsim one draw, after onnxslim one draw
Multinomial <dtype=7> (x): ONNX Runtime unoptimised two draws, by default two draws; after onnxsim one draw, after onnxslim one draw
SEEN
