#!/usr/bin/env bash
# Guess: a translator refuses an argument that it does not know, or honours it.
# Is: coremltools reads only some arguments of an exported program. GELU(approximate="tanh") becomes the exact GELU, an interpolation with
# antialias=True the plain bilinear one, and the conversion succeeds. The same module, traced, keeps "tanh".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile coremltools==9.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import coremltools as ct, torch

F = torch.nn.functional

class Gelu(torch.nn.Module):
    def forward(self, x):
        return F.gelu(x, approximate="tanh")

class Shrink(torch.nn.Module):
    def forward(self, x):
        return F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True)

def operations(program):
    inputs = None if hasattr(program, "graph_module") else [ct.TensorType(shape=(1, 1, 8, 8))]
    package = ct.convert(program, inputs=inputs, minimum_deployment_target=ct.target.iOS17)
    steps = [o for o in package._mil_program.functions["main"].operations if o.op_type not in ("const", "cast")]
    return [(o.op_type, o.inputs["mode"].val if o.op_type == "gelu" else "") for o in steps]

print("torch", torch.__version__.split("+")[0], "coremltools", ct.__version__)
x = torch.randn(1, 1, 8, 8)
for module in (Gelu(), Shrink()):
    program = torch.export.export(module, (x,)).run_decompositions({})
    call = next(n for n in program.graph.nodes if n.op == "call_function")
    print("exported:", call.target, dict(call.kwargs), "→", operations(program))
print("traced Gelu →", operations(torch.jit.trace(Gelu(), x)))
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 coremltools 9.0
exported: aten.gelu.default {'approximate': 'tanh'} → [('gelu', 'EXACT')]
exported: aten._upsample_bilinear2d_aa.vec {} → [('upsample_bilinear', '')]
traced Gelu → [('gelu', 'TANH_APPROXIMATION')]
SEEN
