#!/usr/bin/env bash
# Guess: from an exported program each operator gives the shape and type that torch gives it, and each output of the module is an output.
# Is: coremltools makes a matrix of diagonal()'s vector, 2.7 of full_like(2.7) in whole numbers (torch: 2), and log_softmax stops at -103.28, for
# it is written as Log of Softmax. Two outputs that are clones of one value become two of one name: a dictionary of answers holds one.
# (The operators read a constant here, so that the translator itself reckons the answer, which needs no Mac.)
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

class Applied(torch.nn.Module):
    def __init__(self, function, values):
        super().__init__()
        self.function = function
        self.register_buffer("values", values)

    def forward(self, x):
        return self.function(self.values), x * 2

class Twice(torch.nn.Module):
    def forward(self, x):
        y = x.relu()
        return y.clone(), y.clone()

def convert(module):
    program = torch.export.export(module, (torch.zeros(1),)).run_decompositions({})
    return ct.convert(program, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)

print("torch", torch.__version__.split("+")[0], "coremltools", ct.__version__)
for text, function, values in (
    ("diagonal() of 0…8", lambda v: v.diagonal(), torch.arange(9.0).reshape(3, 3)),
    ("full_like(int32, 2.7)", lambda v: torch.full_like(v, 2.7), torch.zeros(2, dtype=torch.int32)),
    ("log_softmax of 0 and 400", lambda v: v.log_softmax(0), torch.tensor([0.0, 400.0])),
):
    answer = convert(Applied(function, values))._mil_program.functions["main"].outputs[0].val
    print(text, "torch:", function(values).tolist(), "coremltools:", answer.round(2).tolist())
print("outputs of y.clone(), y.clone():", [output.name for output in convert(Twice()).get_spec().description.output])
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 coremltools 9.0
diagonal() of 0…8 torch: [0.0, 4.0, 8.0] coremltools: [[0.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 8.0]]
full_like(int32, 2.7) torch: [2, 2] coremltools: [2.700000047683716, 2.700000047683716]
log_softmax of 0 and 400 torch: [-400.0, 0.0] coremltools: [-103.27999877929688, 0.0]
outputs of y.clone(), y.clone(): ['relu', 'relu']
SEEN
