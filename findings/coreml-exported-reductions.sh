#!/usr/bin/env bash
# Guess: what is reduced over everything from an exported program means what it meant in torch, as it does with dim given.
# Is: coremltools leaves a part out, without a word. std() and var() divide by n, not n - 1; argmax() and argmin() search the last axis alone;
# mean(dtype=float32) of whole numbers is a whole number. With dim given the variance and the index are right. (The reductions read a constant here,
# so that the translator itself reckons the answer, which needs no Mac.)
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

class Reduced(torch.nn.Module):
    def __init__(self, reduction, values):
        super().__init__()
        self.reduction = reduction
        self.register_buffer("values", values)

    def forward(self, x):
        return self.reduction(self.values), x * 2

print("torch", torch.__version__.split("+")[0], "coremltools", ct.__version__)
whole = torch.arange(6, dtype=torch.int32).reshape(2, 3)
real = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.5, -6.0]])
for text, reduction, values in (
    ("x.std()", lambda v: v.std(), real),
    ("x.var()", lambda v: v.var(), real),
    ("x.var(1)", lambda v: v.var(1), real),
    ("x.argmax()", lambda v: v.argmax(), real),
    ("x.argmax(1)", lambda v: v.argmax(1), real),
    ("x.mean(dtype=float32) of 0…5", lambda v: v.mean(dtype=torch.float32), whole),
):
    program = torch.export.export(Reduced(reduction, values), (torch.zeros(1),)).run_decompositions({})
    model = ct.convert(program, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)
    answer = model._mil_program.functions["main"].outputs[0].val
    print(text, "torch:", reduction(values).numpy().round(3).tolist(), "coremltools:", answer.round(3).tolist())
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 coremltools 9.0
x.std() torch: 4.270999908447266 coremltools: 3.8989999294281006
x.var() torch: 18.242000579833984 coremltools: 15.201000213623047
x.var(1) torch: [6.333000183105469, 39.08300018310547] coremltools: [6.333000183105469, 39.08300018310547]
x.argmax() torch: 4 coremltools: [2, 1]
x.argmax(1) torch: [2, 1] coremltools: [2, 1]
x.mean(dtype=float32) of 0…5 torch: 2.5 coremltools: 2
SEEN
