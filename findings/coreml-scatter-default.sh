#!/usr/bin/env bash
# Guess: a scatter without a mode overwrites, as its documentation says ("Default value is ``update``").
# Is: it adds. coremltools' `scatter` says in its text that the default is `update`, for iOS 15 and for iOS 17, and writes `add` into the
# program; `scatter_along_axis` and `scatter_nd` say and write `add`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile coremltools==9.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import re
import coremltools as ct, numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

print("coremltools", ct.__version__)
for release in (ct.target.iOS15, ct.target.iOS17):
    @mb.program(input_specs=[mb.TensorSpec((3,)), mb.TensorSpec((1,))], opset_version=release)
    def program(data, updates):
        return mb.scatter(data=data, indices=np.array([0], np.int32), updates=updates, name="out")

    (op,) = (op for op in program.functions["main"].operations if op.op_type == "scatter")
    said = re.search(r"mode: .*?[Dd]efault(?: value is| to) ``(\w+)``", type(op).__doc__, re.DOTALL).group(1)
    print(f"{release.name}: the documentation says {said}, the program {op.mode.val}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
coremltools 9.0
iOS15: the documentation says update, the program add
iOS17: the documentation says update, the program add
SEEN
