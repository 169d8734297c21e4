"""Starts of an artefact in a process that does nothing else: load, first inference and steady runs, each with its memory.

A process imports the runtime once and forks for each start, so that six of them take little longer than one. Of runtimes with threads or a
GPU of their own, which outlive no fork, whoever asks begins a process for each start.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Manifest
from dtvit_deploy.artifacts.failure import FailedError, Failure, FailureClass
from dtvit_deploy.errors import DeployError
from dtvit_deploy.formats.mlpackage.options import image_input_of
from dtvit_deploy.harness.latency.starts import Start, Starts, Taken, starts_of
from dtvit_deploy.process.child import end_with
from dtvit_deploy.runtimes.failed import START, of_error, of_process
from dtvit_deploy.runtimes.memory import forget_peak, peak_memory_mib
from dtvit_deploy.runtimes.trial import expendable

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.runtimes.base import Session

STARTS = 3
"""First ones, and as many warm ones, where they are done within `SECONDS`."""
SECONDS = 2.0
"""After which no further start is begun: one of each is enough of what takes long to load."""
STEADY = 3
"""Runs after the first in which the steady memory is found."""
CACHES = {"openvino": "OpenVINO's cache of compiled models (CACHE_DIR)"}
"""Runtimes that keep what they compile where `SessionOptions.cache` says; of others a warm load finds the file in memory."""
PAGES = "the file in the system's page cache"
MODULES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "cuda.bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "cuda.bindings"),
} | dict.fromkeys(("coreml", "coreml-cpu", "coreml-gpu", "coreml-ne"), ("coremltools",))
"""What each runtime needs of Python. What the import takes is no part of how long an artefact takes to load."""
ALSO: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("onnx",)}
"""What this project looks at a file with before the runtime has it, where it is here; a device does without."""
_FORKED = frozenset({"onnxruntime", "openvino"})
_ONCE = frozenset({"torch"})
"""The yardstick, which nobody deploys: how it loads is told once, and costs no more."""
Load = Callable[[str], "Session"]
"""Opens a session; told the folder in which the runtime is to keep what it compiles, or nothing."""


def starts_in(runtime: str, process: Callable[[bool], Taken]) -> Starts:
    """The starts of an artefact.

    Args:
        process: what a process of its own finds by `take`; told whether its starts are warm, where it takes one only.
    """
    taken = process(False)
    if not taken.warm and runtime not in _ONCE:
        warm = tuple(one for _ in range(STARTS - 1) for one in process(True).warm)
        taken = msgspec.structs.replace(taken, warm=warm, found=PAGES)
    return starts_of(taken)


def take(runtime: str, manifest: Manifest, path: Path, load: Load, *, warm: bool) -> Taken:
    """Starts of an artefact, in this process and in forks of it.

    Args:
        path: of the artefact.
        warm: where only one is taken, whether it is to find the file in memory.
    """
    for module in (*MODULES.get(runtime, ()), *ALSO.get(runtime, ())):
        with contextlib.suppress(ImportError):  # whoever opens the session says so
            importlib.import_module(module)
    if runtime not in _FORKED or sys.platform != "linux":
        if not warm:
            _let_go(path)
        one = start(manifest, lambda: load(""))
        return Taken(warm=(one,)) if warm else Taken(first=(one,))
    began = time.monotonic()
    first: list[Start] = []
    later: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as kept:
        cache = kept if runtime in CACHES else ""
        if cache:
            _forked(manifest, lambda: load(cache))  # fills it, and is none of either
        filled = bool(cache) and any(Path(cache).iterdir())
        while not first or (len(first) < STARTS and time.monotonic() < began + SECONDS):
            _let_go(path)
            first.append(_forked(manifest, lambda: load("")))
            later.append(_forked(manifest, lambda: load(cache)))
    return Taken(first=tuple(first), warm=tuple(later), found=CACHES[runtime] if filled else PAGES)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says at its end: its starts, or why there are none."""

    taken: Taken | None = None
    failure: Failure | None = None
    remedy: str | None = None


def told(taking: Callable[[], Taken]) -> Told:
    """What comes of taking starts; whatever goes wrong has a class."""
    try:
        return Told(taken=taking())
    except Exception as error:
        if not isinstance(error, DeployError):
            traceback.print_exception(error)  # for a log
        return Told(failure=of_error(error, START), remedy=getattr(error, "remedy", None))


def required(said: Told) -> Taken:
    """The starts.

    Raises:
        FailedError: there are none.
    """
    if said.taken is not None:
        return said.taken
    failure = said.failure or Failure(kind=FailureClass.CRASH, stage=START, message="the process did not say why it failed")
    raise FailedError(failure, remedy=said.remedy)


def start(manifest: Manifest, load: Callable[[], Session]) -> Start:
    """Load an artefact in this process and run it, with whatever was imported before."""
    feeds = still_feeds(manifest)
    apart = forget_peak()
    began = time.perf_counter()
    with expendable(), load() as session:
        loaded = time.perf_counter()
        load_mib = peak_memory_mib()
        forget_peak()
        before_first = time.perf_counter()
        session.run(feeds)
        ended = time.perf_counter()
        first_mib = peak_memory_mib()
        forget_peak()
        for _ in range(STEADY):
            session.run(feeds)
        steady_mib = peak_memory_mib()
    return Start(
        load_ms=(loaded - began) * 1e3,
        first_ms=(ended - before_first) * 1e3,
        load_mib=load_mib,
        first_mib=first_mib,
        steady_mib=steady_mib,
        apart=apart,
    )


def still_feeds(manifest: Manifest) -> Feeds:
    """Zeros for every input, black where it takes pictures: for whoever has nothing to feed, and asks for no answer."""
    import numpy as np

    feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in manifest.signature.inputs}
    image = image_input_of(manifest)
    return feeds | {spec.name: image.black(spec.shape) for spec in manifest.signature.inputs if image and spec.name == image.name}


def _forked(manifest: Manifest, load: Callable[[], Session]) -> Start:
    """A start in a fork. This process ends as the fork did where that was ended by a signal.

    Raises:
        FailedError: it does not load or run there.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            end_with(parent)
            os.write(writing, msgspec.json.encode(told(lambda: Taken(first=(start(manifest, load),)))))  # less than a pipe holds
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)  # what a library does at its own end is no fault of the artefact's
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        os.kill(parent, -status)
    if status or not said:
        raise FailedError(of_process("a fork that loads it and runs it", max(status, 1), ""))
    (one,) = required(msgspec.json.decode(said, type=Told)).first
    return one


def _let_go(path: Path) -> None:
    """Have the system forget what it holds of an artefact's files in memory, where it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        with contextlib.suppress(OSError), file.open("rb") as opened:
            os.fsync(opened.fileno())  # what was written just now is kept until it is on the disk
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
