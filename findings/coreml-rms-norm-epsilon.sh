#!/usr/bin/env bash
# Guess: RMSNorm of a row of zeros is zeros in Core ML as in torch, since that is what epsilon is for.
# Is: coremltools divides each row by its greatest magnitude first and adds epsilon after that. A row of zeros divides 0 by 0, and epsilon grows
# with the square of the row: for a row of ±1e-3 and epsilon 1e-6, torch answers ±0.707 and the package ±1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile coremltools==9.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import coremltools as ct, numpy as np, torch

norm = torch.nn.RMSNorm(4, eps=1e-6).eval()
program = torch.export.export(norm, (torch.randn(1, 4),)).run_decompositions({})
package = ct.convert(program, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)
steps = [o for o in package._mil_program.functions["main"].operations if o.op_type != "const"]
run = {
    "abs": lambda x: abs(x), "reduce_max": lambda x: x.max(-1, keepdims=True), "reduce_mean": lambda x: x.mean(-1, keepdims=True),
    "square": lambda x: x * x, "sqrt": np.sqrt, "real_div": lambda x, y: x / y, "add": lambda x, y: x + y, "mul": lambda x, y: x * y,
}

def answer(x):
    values = {"x": x}
    for o in steps:  # in the package's order; its constants are in the operations' inputs
        values[o.outputs[0].name] = run[o.op_type](*(values.get(i.name, i.val) for k, i in o.inputs.items() if k in "xy"))
    return values[steps[-1].outputs[0].name][0]

np.seterr(all="ignore")
print("torch", torch.__version__.split("+")[0], "coremltools", ct.__version__)
print("order in the package:", *(o.op_type for o in steps))
for row in ([0, 0, 0, 0], [1e-3, -1e-3, 1e-3, -1e-3], [1, -1, 1, -1]):
    x = np.array([row], np.float32)
    print(f"{row}: torch {norm(torch.from_numpy(x)).detach().numpy()[0].round(3)}, package {answer(x).round(3)}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 coremltools 9.0
order in the package: abs reduce_max real_div square reduce_mean add sqrt mul real_div mul
[0, 0, 0, 0]: torch [0. 0. 0. 0.], package [nan nan nan nan]
[0.001, -0.001, 0.001, -0.001]: torch [ 0.707 -0.707  0.707 -0.707], package [ 1. -1.  1. -1.]
[1, -1, 1, -1]: torch [ 1. -1.  1. -1.], package [ 1. -1.  1. -1.]
SEEN
