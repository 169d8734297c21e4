#!/usr/bin/env bash
# Guess: safetensors.torch.load (bytes) reads what save (bytes) wrote, as load_file does.
# Is: the formats of the microscaling types are known to save, save_file and load_file, but not to load: it raises a bare KeyError with the type's
# name. A checkpoint that came over a network or out of an archive must be written to disk first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile safetensors==0.8.0 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import safetensors, safetensors.torch, torch

print("torch", torch.__version__.split("+")[0], "safetensors", safetensors.__version__)
for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2):
    tensors = {"scale": torch.tensor([1, 2, 127, 128], dtype=torch.uint8).view(dtype)}
    data = safetensors.torch.save(tensors)
    safetensors.torch.save_file(tensors, "x.safetensors")
    answers = []
    for load, source in ((safetensors.torch.load_file, "x.safetensors"), (safetensors.torch.load, data)):
        try:
            same = torch.equal(load(source)["scale"].view(torch.uint8), tensors["scale"].view(torch.uint8))
            answers.append("the same bytes" if same else "other bytes")
        except Exception as error:
            answers.append(repr(error))
    print(f"{dtype}: load_file: {answers[0]}; load: {answers[1]}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 safetensors 0.8.0
torch.float8_e4m3fn: load_file: the same bytes; load: the same bytes
torch.float8_e5m2: load_file: the same bytes; load: the same bytes
torch.float8_e8m0fnu: load_file: the same bytes; load: KeyError('F8_E8M0')
torch.float4_e2m1fn_x2: load_file: the same bytes; load: KeyError('F4')
SEEN
