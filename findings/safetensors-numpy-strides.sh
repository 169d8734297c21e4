#!/usr/bin/env bash
# Guess: safetensors' NumPy side saves a transposed or strided array as what it is, or refuses it, as its torch side does.
# Is: it writes the memory under the array from the first element on, with the array's shape. A transposed matrix comes back as another matrix,
# Fortran order too, without an error; a weight that was turned with .T on its way from torch to a file is silently wrong. np.ascontiguousarray
# first is the way out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile safetensors==0.8.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import numpy as np, safetensors
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
print("safetensors", safetensors.__version__)
kinds = {"as it is": matrix, "transposed": matrix.T, "Fortran order": np.asfortranarray(matrix), "every second column": matrix[:, ::2]}
for name, array in kinds.items():
    for how, given in (("", array), (" made contiguous", np.ascontiguousarray(array))):
        back = load(save({"a": given}))["a"]
        print(f"{name}{how}: {'right' if (back == array).all() else f'{array.tolist()} came back as {back.tolist()}'}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
safetensors 0.8.0
as it is: right
as it is made contiguous: right
transposed: [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] came back as [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
transposed made contiguous: right
Fortran order: [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] came back as [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
Fortran order made contiguous: right
every second column: [[0.0, 2.0], [3.0, 5.0]] came back as [[0.0, 1.0], [2.0, 3.0]]
every second column made contiguous: right
SEEN
