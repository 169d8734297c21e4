#!/usr/bin/env bash
# Guess: a converter reads the module; afterwards it is what it was.
# Is: coremltools reckons hard_swish of a parameter (the gate of a layer) in place: every value below -3 becomes 0 in the torch module itself, traced
# or exported, so that training goes on from other weights and a parity check made after the conversion compares with the changed module.
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

class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Parameter(torch.tensor([1.0, -2.0, -6.0, 4.0]))

    def forward(self, x):
        return x * torch.nn.functional.hardswish(self.gate)

print("torch", torch.__version__.split("+")[0], "coremltools", ct.__version__)
x = torch.ones(4)
for kind in ("exported", "traced"):
    module = Gated().eval()
    before = module.gate.tolist()
    program = torch.jit.trace(module, x) if kind == "traced" else torch.export.export(module, (x,)).run_decompositions({})
    inputs = [ct.TensorType(shape=(4,))] if kind == "traced" else None
    ct.convert(program, inputs=inputs, minimum_deployment_target=ct.target.iOS17)
    print(f"{kind}: gate {before} before the conversion, {module.gate.tolist()} after it")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 coremltools 9.0
exported: gate [1.0, -2.0, -6.0, 4.0] before the conversion, [1.0, -2.0, 0.0, 4.0] after it
traced: gate [1.0, -2.0, -6.0, 4.0] before the conversion, [1.0, -2.0, 0.0, 4.0] after it
SEEN
