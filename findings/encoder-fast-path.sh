#!/usr/bin/env bash
# Guess: TransformerEncoder's fast path (eval, no gradients) is faster, and its answers are those of the slow one.
# Is: at padded places the fast path answers 0 and the slow one what the layers make of the padding, and an exported program always takes the slow
# one, under no_grad as well. So the mean over all tokens is another number as soon as gradients are off, and a module's answer is not its export's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import torch

print("torch", torch.__version__.split("+")[0])
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
encoder = torch.nn.TransformerEncoder(layer, 2).eval()
x = torch.randn(2, 4, 8)
padding = torch.tensor([[False, False, False, True], [False, False, True, True]])
slow = encoder(x, src_key_padding_mask=padding).detach()
with torch.no_grad():
    fast = encoder(x, src_key_padding_mask=padding)
    program = torch.export.export(encoder, (x,), {"src_key_padding_mask": padding})
    exported = program.module()(x, src_key_padding_mask=padding)
for name, y in (("slow", slow), ("fast", fast), ("exported", exported)):
    real = torch.allclose(y[~padding], slow[~padding], atol=1e-5)
    mean = torch.allclose(y.mean(1), slow.mean(1), atol=1e-2)
    print(f"{name}: real places as the slow path: {real}; padded places all 0: {bool((y[padding] == 0).all())}; means as the slow path: {mean}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0
slow: real places as the slow path: True; padded places all 0: False; means as the slow path: True
fast: real places as the slow path: True; padded places all 0: True; means as the slow path: False
exported: real places as the slow path: True; padded places all 0: False; means as the slow path: True
SEEN
