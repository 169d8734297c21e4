"""An artefact from elsewhere is loaded and run by a process of its own first: what ends its libraries, or never ends, or fills the memory.

No look at a graph can foresee all of it. A Pad by a negative amount gives a tensor of negative size, on which the shape inference within
ONNX Runtime 1.31 ends the process; a number changed in the XML of an OpenVINO graph ends OpenVINO; and twenty layers that are in order,
one by one, can take a day. So the runtime itself is asked, once for each content in a process, within limits that are far from what a
network for an edge device takes. What another feed makes of a graph is not foreseen by it: two are run, zeros and noise.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Manifest
from dtvit_deploy.artifacts.failure import FailedError, Failure, FailureClass
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.process.child import child_command
from dtvit_deploy.process.memory import ran_out
from dtvit_deploy.runtimes.failed import of_error

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.runtimes.base import Runtime, Session

SECONDS = 50
"""Of wall time: the answer comes within a minute, where others do not take the processors. T mix as a Core ML package takes five."""
CPU_SECONDS = 50
MEMORY = 3 << 30
"""Bytes of addresses beside those of the libraries, and fifteen times the artefact's."""
AGAIN = "export it again"
_TRY = "from dtvit_deploy.runtimes.trial import main; main(*sys.argv[1:])"
_within: ContextVar[bool] = ContextVar("within", default=False)
"""Whether this process is one that may end."""


class _Refusal(msgspec.Struct, frozen=True):
    """Why an artefact is not loaded here."""

    kind: FailureClass
    message: str
    remedy: str | None = AGAIN


_SURVIVED: set[tuple[str, str, str]] = set()
"""By runtime, name and SHA-256: a command of several stages loads an artefact several times. What is refused ends the command."""


def require_survived(artifact: Artifact, runtime: type[Runtime], title: str) -> None:
    """Load an artefact elsewhere, and run it, before it is loaded here.

    Args:
        artifact: whose digest was checked; one that is trusted was made here, or the user vouches for it.
        runtime: the class of the one that asks; the other process imports it, and makes one without arguments.
        title: what people call that.

    Raises:
        FailedError: the runtime refuses it, the process ended on it, or it took too long or too much memory.
    """
    if artifact.trusted or _within.get():
        return
    key = _named(runtime), artifact.name, artifact.manifest.sha256
    if key in _SURVIVED:
        return
    if (refusal := _tried(artifact, runtime, title)) is not None:
        raise FailedError(Failure(kind=refusal.kind, stage="load", message=refusal.message), remedy=refusal.remedy)
    _SURVIVED.add(key)


@contextlib.contextmanager
def expendable() -> Iterator[None]:
    """Within it no trial is asked for, since this process is one, or is watched by another as one is."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


def _tried(artifact: Artifact, runtime: type[Runtime], title: str) -> _Refusal | None:
    command = child_command(_TRY, _named(runtime), title, str(artifact.path), str(MEMORY + 15 * artifact.bytes), str(CPU_SECONDS))
    manifest = msgspec.json.encode(artifact.manifest)
    doing = f"loading and running {artifact.name} in {title}"
    try:
        done = subprocess.run(command, input=manifest, capture_output=True, timeout=SECONDS * _busy(), check=False)
    except subprocess.TimeoutExpired:
        told = f"{title} does not load {artifact.name} within {SECONDS} s of a machine's time, and run it twice"
        return _Refusal(FailureClass.TIMEOUT, told)
    except OSError as error:
        told = f"{artifact.name} cannot be tried in a process of its own: {error.strerror or error}"
        return _Refusal(FailureClass.CRASH, told, "end other programs")
    if done.returncode == -signal.SIGXCPU:
        return _Refusal(FailureClass.TIMEOUT, f"{doing} takes more than {CPU_SECONDS} s of processor time")
    if done.returncode < 0:
        return _Refusal(FailureClass.CRASH, f"{doing} ends the process ({_signal_name(-done.returncode)})")
    try:
        return msgspec.json.decode((done.stdout.splitlines() or [b""])[-1], type=_Refusal | None)
    except msgspec.DecodeError:  # nothing was said in the end; whatever did this may have said something else
        said = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return _Refusal(FailureClass.CRASH, f"{doing} ends the process ({said})")


def _named(runtime: type[Runtime]) -> str:
    """``module:class``, from which :func:`pkgutil.resolve_name` has the class again."""
    return f"{runtime.__module__}:{runtime.__qualname__}"


def _busy() -> float:
    """How many times longer than alone a process takes here, where more want to run than there are processors; five at most."""
    try:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(5.0, max(1.0, os.getloadavg()[0] / usable))
    except OSError:
        return 1.0


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def main(runtime: str, title: str, path: str, memory: str, seconds: str) -> None:
    """What the other process does: takes the manifest from its standard input, and prints `_Refusal` or nothing as JSON."""
    from dtvit_deploy.process.child import addresses, limit

    # Before the limit: its libraries are none of the artefact's memory, and torch with CUDA maps several gigabytes.
    made: Runtime = pkgutil.resolve_name(runtime)()
    limit(memory=addresses() + int(memory), seconds=int(seconds))
    artifact = Artifact(Path(path), msgspec.json.decode(sys.stdin.buffer.read(), type=Manifest))
    refusal = None
    try:
        with expendable():
            _run(artifact, made)
    except MissingError:
        pass  # whoever loads it here will say so
    except Exception as error:
        if ran_out(error):
            refusal = _Refusal(FailureClass.OUT_OF_MEMORY, f"{artifact.name} takes more memory in {title} than {int(memory):,} bytes")
        elif isinstance(error, InputError):
            refusal = _Refusal(of_error(error, "load").kind, str(error), error.remedy)
        else:
            raise
    sys.stdout.flush()
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(refusal) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # what a library does at its own end is no fault of the artefact's


def _run(artifact: Artifact, runtime: Runtime) -> None:
    """As whoever asked will use it: its tensors are listed, it is loaded, and run.

    Raises:
        InputError: it is refused.
    """
    from dtvit_deploy.runtimes.base import SessionOptions

    runtime.tensors(artifact)
    with runtime.load(artifact, SessionOptions(threads=1)) as session:
        for feeds in (_zeros(artifact.manifest), _noise(artifact.manifest)):
            _run_once(session, feeds)


def _run_once(session: Session, feeds: Feeds) -> None:
    """An error other than of memory may be the feeds' fault, and those that come may be better."""
    try:
        session.run(feeds)
    except Exception as error:
        if ran_out(error):
            raise


def _zeros(manifest: Manifest) -> Feeds:
    import numpy as np

    from dtvit_deploy.formats.mlpackage.options import image_input_of

    image, inputs = image_input_of(manifest), manifest.signature.inputs
    return {
        spec.name: image.black(spec.shape) if image and spec.name == image.name else np.zeros(spec.shape, spec.dtype) for spec in inputs
    }


def _noise(manifest: Manifest) -> Feeds:
    """Where a network takes floating-point values; not in place of pixels, which noise is none of."""
    import numpy as np

    from dtvit_deploy.formats.mlpackage.options import image_input_of

    image, random = image_input_of(manifest), np.random.default_rng(0)
    floats = [spec for spec in manifest.signature.inputs if spec.dtype.startswith("float") and not (image and spec.name == image.name)]
    return {**_zeros(manifest), **{spec.name: random.standard_normal(spec.shape, np.float32).astype(spec.dtype) for spec in floats}}
