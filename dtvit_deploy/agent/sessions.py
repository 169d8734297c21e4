"""The runtimes that an agent has, and artefacts opened in them: put together from blobs and checked against their manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.agent.store import Store
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, manifest_path, write_json
from dtvit_deploy.artifacts.contents import share
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.job import Digest, Subject
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.trial import expendable

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.runtimes.base import Profiled, Session
    from dtvit_deploy.runtimes.layer_times import Told

Opener = Callable[[Artifact, SessionOptions, bytes], "Session"]
"""Opens an artefact; the bytes are what is added to an ONNX file, for its graph to give inner tensors too."""


def _onnxruntime(artifact: Artifact, options: SessionOptions, suffix: bytes) -> Session:
    from dtvit_deploy.runtimes.onnxruntime import OnnxSession

    # A message of protobuf that follows another adds to it: the graph's list of outputs goes on.
    content = artifact.path.read_bytes() + suffix if suffix else str(artifact.path)
    return OnnxSession(content, artifact.manifest.signature, artifact.manifest.precision, options, artifact.name)


def _openvino(artifact: Artifact, options: SessionOptions, suffix: bytes) -> Session:
    from dtvit_deploy.runtimes.openvino import OpenVinoRuntime

    runtime = OpenVinoRuntime()
    has = set(runtime.tensors(artifact)) if options.taps else set()  # another version may have others than the one that asked
    return runtime.load(artifact, msgspec.structs.replace(options, taps=tuple(name for name in options.taps if name in has)))


def _tensorrt(library: str) -> Opener:
    def opened(artifact: Artifact, options: SessionOptions, suffix: bytes) -> Session:
        from dtvit_deploy.runtimes.tensorrt.session import TensorRtRuntime

        return TensorRtRuntime(library).load(artifact, options)

    return opened


def _coreml(units: str) -> Opener:
    def opened(artifact: Artifact, options: SessionOptions, suffix: bytes) -> Session:
        from dtvit_deploy.runtimes.coreml.session import CoreMlRuntime, Units

        return CoreMlRuntime(Units(units)).load(artifact, options)

    return opened


OPENERS: Mapping[str, Opener] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt("tensorrt"),
    "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
    "coreml": _coreml("all"),
    "coreml-cpu": _coreml("cpu"),
    "coreml-gpu": _coreml("gpu"),
    "coreml-ne": _coreml("ne"),
}
"""By the runtime's name."""


def _profiling_onnxruntime() -> Profiled:
    from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _profiling_openvino() -> Profiled:
    from dtvit_deploy.runtimes.openvino import OpenVinoRuntime

    return OpenVinoRuntime()


PROFILING: Mapping[str, Callable[[], Profiled]] = {"onnxruntime": _profiling_onnxruntime, "openvino": _profiling_openvino}
"""By its name, a runtime that tells how long each layer takes; the others tell nothing of that."""


def opener(runtime: str) -> Opener:
    """What opens artefacts in a runtime.

    Raises:
        InputError: the agent has none of that name.
    """
    if runtime not in OPENERS:
        raise InputError(f"the agent has no runtime {runtime}", remedy=f"on a device there are {', '.join(OPENERS)}")
    return OPENERS[runtime]


def open_subject(artifact: Artifact, runtime: str, options: SessionOptions, suffix: bytes = b"") -> Session:
    """A session of an artefact in this process, which another one watches: what ends it ends one task.

    Raises:
        InputError: the runtime refuses it, or the agent has no such runtime.
        MissingError: the runtime is not installed.
    """
    with expendable():
        return opener(runtime)(artifact, options, suffix)


def profiled_subject(artifact: Artifact, runtime: str, feed: Feeds, threads: int) -> Told:
    """What the runtime of an artefact tells of its layers.

    Raises:
        InputError: the runtime tells nothing of them, or refuses the artefact.
        MissingError: it is not installed.
    """
    if runtime not in PROFILING:
        raise InputError(f"{runtime} does not tell how long a layer takes", remedy=f"on a device do: {', '.join(PROFILING)}")
    with expendable():
        told = PROFILING[runtime]().layer_times(artifact, feed, threads)
    assert told is not None  # which those do
    return told


def assembled(store: Store, subject: Subject, folder: Path) -> Artifact:
    """An artefact, put together in a folder from its blobs, with its manifest beside it, and checked.

    Raises:
        InputError: it is not what its manifest says.
    """
    path = folder / subject.name
    if not manifest_path(path).is_file():
        for inside, digest in sorted(subject.files.items()):
            place = path / inside if inside else path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            share(store.blob(digest), place)
        write_json(manifest_path(path), subject.manifest)
    return msgspec.structs.replace(load_artifact(path), trusted=subject.trusted)


def blob_bytes(store: Store, digest: Digest | None) -> bytes:
    """What a blob holds; nothing where there is none."""
    return b"" if digest is None else store.blob(digest).read_bytes()
