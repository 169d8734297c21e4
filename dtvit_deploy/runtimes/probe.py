"""Cold figures of one artefact, from a process that does nothing else: load time, first inference, peak memory.

In the process that compares runtimes, memory and warm caches of one would be counted for another.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import image_input_of
from dtvit_deploy.process.child import child_command
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.pairing import Pairing
from dtvit_deploy.runtimes.trial import expendable

TIMEOUT = 600
"""Seconds."""


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """Cold figures.

    Attributes:
        load_ms: from the file to a session, the import of the runtime not counted.
        first_ms: the first inference, on zeros, or on black where pictures are taken.
        peak_mib: greatest resident memory of the process, the interpreter and the runtime's code included.
    """

    load_ms: float
    first_ms: float
    peak_mib: float | None


def probe(pairing: Pairing, options: SessionOptions) -> Cold:
    """Measure in a fresh process, in the same runtime.

    Raises:
        InputError: the artefact does not load or run there; the message is that process's last line.
    """
    artifact = pairing.artifact
    told = (pairing.runtime.name, str(options.threads), str(options.cuda_graph), artifact.manifest.sha256 if artifact.trusted else "")
    command = child_command("from dtvit_deploy.runtimes.probe import main; main(*sys.argv[1:])", str(artifact.path), *told)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{pairing.name} did not load and run once within {TIMEOUT} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{pairing.name} could not be loaded and run in a process of its own: {last}") from ChildProcessError(last)
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Cold)


def peak_memory_mib() -> float | None:
    """Greatest resident memory of this process so far, framework and all, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage on Linux: a process started by a larger one inherits that one's peak there.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main(path: str, runtime: str, threads: str, cuda_graph: str, trusted: str) -> None:
    """What the fresh process does: prints one `Cold` as JSON. ``trusted`` is the digest of an artefact whose native code may run."""
    import numpy as np

    from dtvit_deploy.runtimes.registry import RUNTIMES

    artifact = load_artifact(Path(path))
    artifact = msgspec.structs.replace(artifact, trusted=artifact.manifest.sha256 == trusted)
    options = SessionOptions(threads=int(threads), cuda_graph=cuda_graph == "True")
    feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in artifact.manifest.signature.inputs}
    image = image_input_of(artifact.manifest)
    feeds |= {spec.name: image.black(spec.shape) for spec in artifact.manifest.signature.inputs if image and spec.name == image.name}
    loader = RUNTIMES[runtime]()
    started = time.perf_counter()
    with expendable(), loader.load(artifact, options) as session:
        loaded = time.perf_counter()
        session.run(feeds)
        ended = time.perf_counter()
    cold = Cold(load_ms=(loaded - started) * 1e3, first_ms=(ended - loaded) * 1e3, peak_mib=peak_memory_mib())
    sys.stdout.write(msgspec.json.encode(cold).decode() + "\n")
