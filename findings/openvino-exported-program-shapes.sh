#!/usr/bin/env bash
# Guess: a program that torch exported with static shapes becomes a model with those shapes, for nothing else was ever asked for.
# Is: OpenVINO's convert_model makes every size dynamic that the network's weights do not fix, and so takes other pictures in silence. A network
# that names its sizes answers four pictures of 4×4 as if they were one of 8×8; torch refuses them. example_input changes nothing, input=[…] does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile openvino==2026.4.1 packaging==26.4 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, openvino as ov, torch

class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.conv(x).reshape(1, 2, 64).mean(2)

torch.manual_seed(0)
one = torch.randn(1, 3, 8, 8)
program = torch.export.export(Head().eval(), (one,))
model = ov.convert_model(program)
print("torch", torch.__version__.split("+")[0], "openvino", ov.__version__.split("-")[0])
print("exported with", list(one.shape), "· converted:", model.input().partial_shape, "· with example_input:",
      ov.convert_model(program, example_input=(one,)).input().partial_shape, "· with input:", ov.convert_model(program, input=[1, 3, 8, 8]).input().partial_shape)
four = torch.randn(4, 3, 4, 4)
try:
    print("torch:", program.module()(four).shape)
except Exception as error:
    print("torch, four pictures of 4×4:", type(error).__name__)
print("OpenVINO, four pictures of 4×4: one answer of shape", ov.compile_model(model, "CPU")(four.numpy())[0].shape)
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 openvino 2026.4.1
exported with [1, 3, 8, 8] · converted: [?,3,?,?] · with example_input: [?,3,?,?] · with input: [1,3,8,8]
torch, four pictures of 4×4: AssertionError
OpenVINO, four pictures of 4×4: one answer of shape (1, 2)
SEEN
