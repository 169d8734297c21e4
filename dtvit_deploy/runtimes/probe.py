"""Starts of one artefact, from processes that do nothing else: load times, first inference, memory.

In the process that compares runtimes, memory and warm caches of one would be counted for another.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.artifacts.failure import FailedError
from dtvit_deploy.harness.latency.starts import Starts, Taken
from dtvit_deploy.process.child import child_command
from dtvit_deploy.process.memory import killed_for_it
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.cold import Told, required, starts_in, take, told
from dtvit_deploy.runtimes.failed import of_process, timed_out
from dtvit_deploy.runtimes.pairing import Pairing

if TYPE_CHECKING:
    from dtvit_deploy.runtimes.base import Session

TIMEOUT = 600
"""Seconds."""


def probe(pairing: Pairing, options: SessionOptions) -> Starts:
    """Measure in fresh processes, in the same runtime.

    Raises:
        FailedError: the artefact does not load or run there; the message has that process's last line.
    """
    artifact = pairing.artifact
    asked = (pairing.runtime.name, str(options.threads), str(options.cuda_graph), artifact.manifest.sha256 if artifact.trusted else "")

    def process(warm: bool) -> Taken:
        code = "from dtvit_deploy.runtimes.probe import alone; alone(*sys.argv[1:])"
        command = child_command(code, str(artifact.path), *asked, str(warm))
        before = killed_for_it()
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise FailedError(timed_out(f"{pairing.name} did not load and run once within {TIMEOUT} s")) from error
        if done.returncode:
            doing = f"{pairing.name} could not be loaded and run in a process of its own"
            failure = of_process(doing, done.returncode, done.stderr.decode(errors="replace"), starved=killed_for_it() > before)
            raise FailedError(failure) from ChildProcessError(failure.message)
        try:
            said = msgspec.json.decode((done.stdout.strip().splitlines() or [b""])[-1], type=Told)
        except msgspec.MsgspecError:  # a library has said the last word, or nothing was said at all
            said = Told()
        return _taken(pairing.name, said)

    return starts_in(pairing.runtime.name, process)


def _taken(name: str, said: Told) -> Taken:
    try:
        return required(said)
    except FailedError as error:
        failure = msgspec.structs.replace(error.failure, message=f"{name} could not be loaded and run in a process of its own: {error}")
        raise FailedError(failure, remedy=error.remedy) from error


def alone(*asked: str) -> None:
    """`main`, and the end of its process: what a library does at its own end is no fault of the artefact's."""
    main(*asked)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(path: str, runtime: str, threads: str, cuda_graph: str, trusted: str, warm: str) -> None:
    """What a fresh process does: prints `Told` as JSON. ``trusted`` is the digest of an artefact whose native code may run."""
    from dtvit_deploy.runtimes.registry import RUNTIMES

    options = SessionOptions(threads=int(threads), cuda_graph=cuda_graph == "True")

    def taking() -> Taken:
        artifact = load_artifact(Path(path))
        artifact = msgspec.structs.replace(artifact, trusted=artifact.manifest.sha256 == trusted)
        loader = RUNTIMES[runtime]()

        def load(cache: str) -> Session:
            return loader.load(artifact, msgspec.structs.replace(options, cache=cache))

        return take(runtime, artifact.manifest, artifact.path, load, warm=warm == "True")

    sys.stdout.write(msgspec.json.encode(told(taking)).decode() + "\n")
