#!/usr/bin/env bash
# Guess: importing a simplifier or a quantiser reads files and writes none.
# Is: `import onnxsim` imports ONNX Runtime, and that leaves a device's identifier and a database under ~/.cache/Microsoft and a session's in the
# temporary folder; `import nncf` imports OpenVINO, which leaves a client's identifier under ~/intel. ORT_DISABLE_TELEMETRY=1 stops the first;
# onnxslim, which does the same work as onnxsim, writes nothing. (The imports run behind a proxy that is not there, so that nothing is sent.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile torch==2.13.0 2>>"$work/log"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile onnxsim==0.8.1 onnxruntime==1.32.0 onnx==1.23.2 onnxslim==0.1.98 nncf==3.4.0 openvino==2026.4.1 numpy==2.3.5 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import importlib.metadata, os, pathlib, subprocess, sys, tempfile

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("onnxsim", "onnxruntime", "nncf", "openvino", "onnxslim")))
nowhere = "http://127.0.0.1:9"
for package, setting in (("onnxsim", ""), ("onnxsim", "ORT_DISABLE_TELEMETRY"), ("nncf", ""), ("onnxslim", "")):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, temporary = pathlib.Path(folder, "home"), pathlib.Path(folder, "tmp")
        home.mkdir(), temporary.mkdir()
        kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
        proxies = {name: nowhere for name in ("http_proxy", "https_proxy", "all_proxy")}
        environment = kept | proxies | {"HOME": str(home), "TMPDIR": str(temporary)} | ({setting: "1"} if setting else {})
        subprocess.run([sys.executable, "-c", f"import {package}"], env=environment, check=True, capture_output=True)
        written = sorted(str(p.relative_to(folder)) for p in pathlib.Path(folder).rglob("*") if p.is_file())
        print(f"import {package}{f' with {setting}=1' if setting else ''}:", ", ".join(written) or "nothing")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
onnxsim 0.8.1 onnxruntime 1.32.0 nncf 3.4.0 openvino 2026.4.1 onnxslim 0.1.98
import onnxsim: home/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid, home/.cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db, tmp/.ses
import onnxsim with ORT_DISABLE_TELEMETRY=1: nothing
import nncf: home/intel/openvino_ga_cid, home/intel/stats
import onnxslim: nothing
SEEN
