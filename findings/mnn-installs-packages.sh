#!/usr/bin/env bash
# Guess: a model converter that comes as a wheel has what it needs, and works on files alone.
# Is: mnnconvert, when it starts, runs "pip install -U" in a shell for the client of a log service, in whatever environment the shell's pip
# belongs to; where that succeeds, it reports its arguments, the model's size and the machine's id after each conversion (MNN/tools/utils/log.py).
# Here a pip that only writes down what it is asked stands first in PATH; --help is enough. _tools.mnnconvert of the same wheel converts without
# that.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile MNN==3.6.1 numpy==2.3.5 2>>"$work/log"
mkdir "$work/bin"
printf '#!/bin/sh\necho "asked: pip $*" >>"%s/asked"\nexit 1\n' "$work" >"$work/bin/pip"  # writes down what is asked, installs nothing
chmod +x "$work/bin/pip"
touch "$work/asked"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import importlib.metadata, importlib.util, os, pathlib, subprocess, sys

def run(*command):
    open("asked", "w").close()
    path = os.path.abspath("bin") + ":" + os.environ["PATH"]
    subprocess.run(command, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
    return sorted(set(open("asked").read().splitlines())) or "asked for nothing"

print("MNN", importlib.metadata.version("MNN"))
print("mnnconvert --help:", run(os.path.abspath("env/bin/mnnconvert"), "--help"))
print("_tools.mnnconvert:", run(sys.executable, "-c", "import _tools; _tools.mnnconvert(['mnnconvert', '--help'])"))
source = pathlib.Path(importlib.util.find_spec("MNN").origin).with_name("tools").joinpath("utils", "log.py").read_text()
print("log.py has:", [word for word in ("urlopen", "/etc/machine-id", "put_logs") if word in source])
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
MNN 3.6.1
mnnconvert --help: ['asked: pip install -U aliyun-log-python-sdk']
_tools.mnnconvert: asked for nothing
log.py has: ['urlopen', '/etc/machine-id', 'put_logs']
SEEN
