"""A graph from elsewhere is loaded by a process of its own first: one that its libraries abort on, or never come back from, ends that one.

No look at a graph can foresee all of it: a Pad by a negative amount gives a tensor of negative size, on which the shape inference within
ONNX Runtime 1.31 ends the process.
"""

from __future__ import annotations

import functools
import signal
import subprocess
from pathlib import Path

from dtvit_deploy.artifact import Artifact
from dtvit_deploy.child import child_command
from dtvit_deploy.errors import InputError

SECONDS = 120
"""A network of 100 MB is loaded in less than a second."""
MEMORY = 16 << 30
"""Bytes of addresses beside fifteen times the file's, most of which are never touched: a constant of 2⁴⁰ values ends nothing else."""
_LOAD = """
import contextlib
path, memory = sys.argv[1:]
with contextlib.suppress(ImportError, OSError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), resource.getrlimit(resource.RLIMIT_AS)[1]))
import onnx
with contextlib.suppress(Exception):
    onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
import onnxruntime
settings = onnxruntime.SessionOptions()
settings.log_severity_level = 4
settings.intra_op_num_threads = 1
try:
    onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
except Exception as error:
    print((str(error).strip().splitlines() or [type(error).__name__])[0])
"""


def require_loadable(artifact: Artifact, graph: Path) -> None:
    """Load a graph elsewhere before it is loaded here.

    Args:
        artifact: that it belongs to, whose digest was checked; one that is trusted was made here, and needs no trial.
        graph: the file.

    Raises:
        InputError: the libraries refuse it, end the process on it, or take too long or too much memory.
    """
    if artifact.trusted:
        return
    if fault := _fault(graph, artifact.manifest.sha256):
        name = artifact.name if graph == artifact.path else f"{artifact.name}/{graph.name}"
        raise InputError(fault.format(name=name), remedy="export it again")


@functools.cache
def _fault(graph: Path, digest: str) -> str:
    """What is wrong, with a place for the artefact's name; asked once for each digest."""
    try:
        import onnxruntime
    except ImportError:
        return ""  # whoever loads it here will say so

    which = f"ONNX Runtime {onnxruntime.__version__}"
    command = child_command(_LOAD, str(graph), str(MEMORY + 15 * graph.stat().st_size))
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{which} does not load {{name}} within {SECONDS} s"
    if done.returncode:
        number = -done.returncode
        how = signal.Signals(number).name if number in set(signal.Signals) else f"exit status {done.returncode}"
        return f"loading {{name}} in {which} ends the process ({how})"
    said = done.stdout.strip().replace("{", "{{").replace("}", "}}")
    return f"{which} refuses {{name}}: {said}" if said else ""
