"""Two artefacts side by side in a process that does nothing else: samples of either, from the same rounds."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import MeasureOptions, Samples, sample
from dtvit_deploy.process.child import child_command
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.cold import still_feeds
from dtvit_deploy.runtimes.pairing import Pairing
from dtvit_deploy.runtimes.trial import expendable

GRACE = 300
"""Seconds to load and warm up two artefacts, beside what measuring may take."""


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """An artefact for the fresh process; ``trusted`` is the digest of one whose native code may run, or empty."""

    path: str
    runtime: str
    trusted: str


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the fresh process is asked; ``last_first`` has the second one loaded and run before the first."""

    contestants: tuple[Contestant, Contestant]
    options: SessionOptions
    measuring: MeasureOptions
    last_first: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers, in the order of the contestants.

    Attributes:
        began, ended: when sampling did, by `time.monotonic`.
    """

    samples: tuple[Samples, Samples]
    conditions: tuple[dict[str, str], dict[str, str]]
    began: float
    ended: float


def beside(a: Pairing, b: Pairing, options: SessionOptions, measuring: MeasureOptions, *, last_first: bool = False) -> Answer:
    """Measure two artefacts in a fresh process.

    Args:
        last_first: load and run ``b`` first: what is loaded first finds an emptier process.

    Raises:
        InputError: they do not load or run there; the message is that process's last line.
    """
    asked = Asked(contestants=(_contestant(a), _contestant(b)), options=options, measuring=measuring, last_first=last_first)
    command = child_command("from dtvit_deploy.runtimes.beside import main; main()")
    longest = GRACE + 2 * (measuring.max_seconds + measuring.max_warmup_seconds)
    names = f"{a.name} and {b.name}"
    try:
        done = subprocess.run(command, input=msgspec.json.encode(asked), capture_output=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{names} were not measured side by side within {longest:.0f} s") from error
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{names} could not be measured side by side in a process of their own: {last}") from ChildProcessError(last)
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Answer)


def _contestant(pairing: Pairing) -> Contestant:
    artifact = pairing.artifact
    return Contestant(path=str(artifact.path), runtime=pairing.runtime.name, trusted=artifact.manifest.sha256 if artifact.trusted else "")


def main() -> None:
    """What the fresh process does: reads one `Asked` from standard input, and prints one `Answer` as JSON."""
    from dtvit_deploy.runtimes.registry import RUNTIMES

    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    order = (1, 0) if asked.last_first else (0, 1)
    with expendable(), ExitStack() as stack:
        runs, conditions = {}, {}
        for index in order:
            one = asked.contestants[index]
            artifact = load_artifact(Path(one.path))
            artifact = msgspec.structs.replace(artifact, trusted=artifact.manifest.sha256 == one.trusted)
            session = stack.enter_context(RUNTIMES[one.runtime]().load(artifact, asked.options))
            runs[str(index)] = partial(session.run, still_feeds(artifact.manifest))
            conditions[index] = dict(session.conditions)
        moments: list[float] = []
        found = sample(runs, asked.measuring, begins=lambda: moments.append(time.monotonic()))
        ended = time.monotonic()
    answer = Answer(samples=(found["0"], found["1"]), conditions=(conditions[0], conditions[1]), began=moments[0], ended=ended)
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
