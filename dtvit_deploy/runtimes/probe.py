"""Cold figures of one artefact, from a process that does nothing else: load time, first inference, peak memory.

In the process that compares runtimes, memory and warm caches of one would be counted for another.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.child import child_command
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.cold import Cold, cold_start
from dtvit_deploy.runtimes.pairing import Pairing

TIMEOUT = 600
"""Seconds."""


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


def main(path: str, runtime: str, threads: str, cuda_graph: str, trusted: str) -> None:
    """What the fresh process does: prints one `Cold` as JSON. ``trusted`` is the digest of an artefact whose native code may run."""
    from dtvit_deploy.runtimes.registry import RUNTIMES

    artifact = load_artifact(Path(path))
    artifact = msgspec.structs.replace(artifact, trusted=artifact.manifest.sha256 == trusted)
    options = SessionOptions(threads=int(threads), cuda_graph=cuda_graph == "True")
    loader = RUNTIMES[runtime]()
    cold = cold_start(artifact.manifest, lambda: loader.load(artifact, options))
    sys.stdout.write(msgspec.json.encode(cold).decode() + "\n")
