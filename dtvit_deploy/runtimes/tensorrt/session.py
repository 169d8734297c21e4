"""TensorRT's and TensorRT-RTX's engines on a GPU of this machine.

An engine is native code: it is deserialised only where it is trusted (docs/adr/0015), and only after its header and its passport have said
that it is for this library, this release, this platform and a GPU that is here. Feeds are copied into pinned memory and from there to the
GPU, on the one stream that the engine runs on too, and answers back; a run ends when the stream is done. Two times come of it: the host's,
of the whole run, transfers included; and the GPU's own, between two CUDA events around the engine alone.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MismatchError, MissingError
from dtvit_deploy.formats.engine.fit import Fit, fit
from dtvit_deploy.formats.engine.gpu import gpus
from dtvit_deploy.formats.engine.header import read_header
from dtvit_deploy.formats.engine.here import Here, Installed, machine_with
from dtvit_deploy.formats.engine.library import Library, load_library
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, Passport, passport_of
from dtvit_deploy.formats.engine.reason import AGAIN
from dtvit_deploy.formats.engine.vouching import damage
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.tensorrt.cuda import Cuda, missing_cuda

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs, TensorSpec

EMULATE = "verify the artefact on a machine without such a GPU, where its graph is emulated"
UNTRUSTED = "this engine was not built by you here; --trust executes it"
"""An engine is native code, and a manifest is no signature."""


class TensorRtRuntime:
    """Loads the engines of one of the libraries: ``trt`` artefacts those of ``tensorrt``, ``rtx`` those of ``tensorrt-rtx``."""

    rung = Rung.EXECUTED

    def __init__(self, library: str) -> None:
        self.name = library

    def available(self, artifact: Artifact | None = None) -> Availability:
        if not gpus().found:  # what else is missing would not help
            return Availability(version=None, missing=gpus().missing, remedy="use a machine with an NVIDIA GPU and its driver")
        reasons, remedies = [], []
        library = None
        try:
            library = load_library(self.name)
        except MissingError as error:
            reasons.append(str(error))
            remedies.append(error.remedy or "")
        without_cuda, remedy = missing_cuda()
        if without_cuda:
            reasons.append(without_cuda)
            remedies.append(remedy)
        if library is not None and artifact is not None:
            _, misfit, remedy = misfit_of(artifact, _here(library))
            if misfit:
                reasons.append(misfit)
                remedies.append(remedy)
            elif not reasons and not artifact.trusted:  # said last: before that, trust would not help
                reasons.append(UNTRUSTED)
                remedies.append("give --trust if you know where it is from")
        if reasons or library is None:
            return Availability(version=None, missing="; ".join(reasons), remedy="; ".join(remedies))
        return Availability(version=library.version)

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """None: an engine has fused most of its inner tensors away."""
        return ()

    def load(self, artifact: Artifact, options: SessionOptions) -> TensorRtSession:
        """Deserialise an engine that fits.

        Raises:
            InputError: it does not fit, is not trusted, its passport is another's, the library refuses it, or inner tensors are asked for.
            MissingError: the library, the bindings or a GPU is missing.
        """
        found = self.available()
        if found.version is None:
            raise MissingError(f"{artifact.name} needs {self.name}, which is not usable here: {found.missing}", remedy=found.remedy)
        if options.taps:
            raise InputError(
                f"{artifact.name} has no tensor {', '.join(options.taps[:5])} to look at: an engine has fused its inner tensors away",
                remedy=f"to compare inner tensors, {EMULATE}",
            )
        library = load_library(self.name)
        how, misfit, remedy = misfit_of(artifact, _here(library))
        if misfit or how.gpu is None:
            raise MismatchError(f"{artifact.name} cannot be loaded here: {misfit}", remedy=remedy)
        if not artifact.trusted:
            raise InputError(f"{artifact.name} is not executed: {UNTRUSTED}", remedy="give --trust if you know where it is from")
        return TensorRtSession(library, how.gpu, passport_of(artifact.manifest), artifact, options)


def _here(library: Library) -> Here:
    return machine_with({library.name: Installed(library.version, "", library.cuda)})


def misfit_of(artifact: Artifact, here: Here) -> tuple[Fit, str, str]:
    """How an artefact's engine fits a machine; why it does not load there, and what to do about it, both empty where it does."""
    try:
        header = read_header(artifact.path / ENGINE)
        found = fit(header, passport_of(artifact.manifest), here)
    except InputError as error:
        return Fit(None, ()), str(error), error.remedy or AGAIN
    reasons = (*damage(header), *found.reasons)
    told = "; ".join(f"{reason.cause.value}: {reason.found}, and needed is {reason.needed}" for reason in reasons)
    return found, told, reasons[0].remedy if reasons else ""


class _Port(NamedTuple):
    """One input or output: an array in pinned memory, and its place on the GPU."""

    name: str
    host: NDArray[Any]
    address: int


class TensorRtSession:
    """One engine, one context, one stream, and memory for one inference, used again and again."""

    def __init__(self, library: Library, device: int, passport: Passport, artifact: Artifact, options: SessionOptions) -> None:
        self.signature = artifact.manifest.signature
        self.device_ms = 0.0
        self._name, self._library = artifact.name, f"{library.name} {library.version}"
        with ExitStack() as owner:
            self._cuda = Cuda(device, owner)
            self._log = _log(library.module)
            self._open(library.module, _engine(artifact, passport), owner, passport.options)
            self._start, self._end = self._cuda.event(), self._cuda.event()
            self._graph: Any = None
            launch = self._captured() if options.cuda_graph else "kernel by kernel"
            owner.callback(self._drop)  # last in, first out: before the memory that the context uses
            owner.callback(self._cuda.select)  # and before that
            self._owner: ExitStack | None = owner.pop_all()
        gpu = gpus().found[device]
        self.conditions = {
            "runtime": self._library,
            "provider": f"{gpu.name}, compute capability {gpu.capability}",
            "threads": str(options.threads),
            "precision": _precision(artifact.manifest.precision),
            "launch": launch,
            "host latency": "of the whole run: copies into pinned memory, transfers in and out, and the wait for the stream included",
            "device latency": "of the engine alone, between two CUDA events: no transfers",
            "cuda": f"driver for CUDA {gpus().cuda}",
        }

    def _open(self, module: Any, engine: bytes, owner: ExitStack, built: BuildOptions) -> None:
        """Deserialise, and give every input and output its memory."""
        self._runtime: Any = module.Runtime(self._log)
        self._runtime.engine_host_code_allowed = built.version_compatible  # such an engine brings it along; it is trusted, or not here
        if built.dla_core is not None:
            self._runtime.DLA_core = built.dla_core
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise InputError(f"{self._library} cannot load {self._name}: {self._log.first()}", remedy="build the engine again")
        _require_as_described(module, self._engine, self.signature, self._name)
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise InputError(
                f"{self._library} has no execution context for {self._name}: {self._log.first()}", remedy="see that the GPU has memory left"
            )
        self._inputs = [self._port(spec, owner) for spec in self.signature.inputs]
        self._outputs = [self._port(spec, owner) for spec in self.signature.outputs]

    def _port(self, spec: TensorSpec, owner: ExitStack) -> _Port:
        host = self._cuda.pinned(spec.shape, spec.dtype)
        port = _Port(spec.name, host, self._cuda.memory(host.nbytes))
        if not self._context.set_tensor_address(spec.name, port.address):
            raise self._refusal(f"takes no address for {spec.name}")
        host[...] = 0
        return port

    def _captured(self) -> str:
        """Write the launches down as a CUDA graph, after a run that does what is only done once; how the engine is launched."""
        for port in self._inputs:
            self._cuda.upload(port.address, port.host)
        self._execute()
        self._cuda.synchronise()
        try:
            self._graph = self._cuda.captured(self._execute)
        except InputError as error:
            return f"kernel by kernel, since a CUDA graph cannot be made: {error}"
        return "at once, as a CUDA graph of the engine"

    def _execute(self) -> None:
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            raise self._refusal("does not run")

    def _refusal(self, what: str) -> InputError:
        return InputError(f"{self._name} {what} in {self._library}: {self._log.first()}", remedy="build the engine again, for this machine")

    def run(self, feeds: Feeds) -> Outputs:
        if self._owner is None:
            raise RuntimeError("the session was left; it cannot run")
        self._cuda.select()
        for port in self._inputs:
            np.copyto(port.host, feeds[port.name], casting="no")
            self._cuda.upload(port.address, port.host)
        self._cuda.record(self._start)
        if self._graph is None:
            self._execute()
        else:
            self._cuda.launch(self._graph)
        self._cuda.record(self._end)
        for port in self._outputs:
            self._cuda.download(port.host, port.address)
        self._cuda.synchronise()
        self.device_ms = float(self._cuda("cudaEventElapsedTime", self._start, self._end))
        return {port.name: port.host.copy() for port in self._outputs}

    def _drop(self) -> None:
        self._graph = self._context = self._engine = self._runtime = None  # in this order, each needs the next

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        owner, self._owner = self._owner, None
        self._inputs, self._outputs = [], []  # arrays in memory that is about to go
        if owner is not None:
            owner.close()


def _engine(artifact: Artifact, passport: Passport) -> bytes:
    """The engine's bytes, which are those that the passport is of."""
    try:
        content = (artifact.path / ENGINE).read_bytes()
    except OSError as error:
        raise InputError(f"{artifact.name} holds no readable {ENGINE}: {error.strerror}", remedy="build the engine again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != passport.engine:
        raise InputError(
            f"{ENGINE} in {artifact.name} is not the engine that the passport is of: its SHA-256 is {found[:16]}…, not"
            f" {passport.engine[:16]}…",
            remedy="build the engine again",
        )
    return content


def _require_as_described(module: Any, engine: Any, signature: Signature, name: str) -> None:
    """Refuse an engine with other inputs or outputs than its manifest says: memory is given to it by the manifest's word."""
    ends: dict[Any, list[str]] = {module.TensorIOMode.INPUT: [], module.TensorIOMode.OUTPUT: []}
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        try:
            dtype = np.dtype(module.nptype(engine.get_tensor_dtype(tensor))).name
        except TypeError:  # numpy has no such type
            dtype = str(engine.get_tensor_dtype(tensor))
        shape = "×".join(map(str, tuple(engine.get_tensor_shape(tensor)))) or "scalar"
        place = "" if engine.get_tensor_location(tensor) == module.TensorLocation.DEVICE else " in host memory"
        ends[engine.get_tensor_mode(tensor)].append(f"{tensor} {shape} {dtype}{place}")
    asked = (sorted(map(str, signature.inputs)), sorted(map(str, signature.outputs)))
    if tuple(map(sorted, ends.values())) != asked:
        inputs, outputs = (", ".join(found) or "none" for found in ends.values())
        raise InputError(
            f"{name} is not the network that its manifest describes: its inputs are {inputs}, its outputs {outputs}",
            remedy="build the engine again",
        )


def _precision(precision: Precision) -> str:
    return "fp32" if precision is Precision.FP32 else f"{precision} engine, in the types of its graph"


def _log(module: Any) -> Any:
    """A logger that keeps what goes wrong, to be said once and in the exception."""
    kept: list[str] = []

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                kept.append(message)

        def first(self) -> str:
            return " ".join(kept[0].split()) if kept else "it does not say why"

    return Log()
