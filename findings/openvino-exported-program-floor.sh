#!/usr/bin/env bash
# Guess: x // 3 of whole numbers goes towards minus infinity in every runtime that reads torch's programs, as Python and torch do.
# Is: OpenVINO's reader of exported programs divides towards zero: -7 // 3 is -2. Relative positions, window indices and anchors with negative
# numbers come out one too large; by way of ONNX, whose exporter writes the correction, the answer is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnx==1.23.2 onnxscript==0.7.2 openvino==2026.4.1 packaging==26.4 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, openvino as ov, torch

class Floor(torch.nn.Module):
    def forward(self, x):
        return x // 3

x = torch.tensor([-7, -6, -1, 0, 5, 8])
program = torch.export.export(Floor(), (x,))
print("torch", torch.__version__.split("+")[0], "openvino", ov.__version__.split("-")[0])
print("torch:", Floor()(x).tolist())
print("OpenVINO, from the program:", ov.compile_model(ov.convert_model(program), "CPU")(x.numpy())[0].tolist())
model = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False).model_proto
print("OpenVINO, by way of ONNX:", ov.compile_model(ov.Core().read_model(io.BytesIO(model.SerializeToString())), "CPU")(x.numpy())[0].tolist())
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
torch 2.13.0 openvino 2026.4.1
torch: [-3, -2, -1, 0, 1, 2]
OpenVINO, from the program: [-2, -2, 0, 0, 1, 2]
OpenVINO, by way of ONNX: [-3, -2, -1, 0, 1, 2]
SEEN
