"""OpenVINO on the CPU.

Nothing is left to OpenVINO's choice. By itself it computes an FP32 graph in BF16 on a CPU that can, and an FP16 graph too, so the hint for
the precision is always set: to what the artefact's manifest says, or to FP32 where the CPU has no kernels for that. Threads are not
pinned: pinned ones take the first cores in every process, and two processes that measure at once take twice as long on two cores.
What the compiled model does in the end is read back from it and goes into the conditions.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.layer_times import Told, of_openvino
from dtvit_deploy.runtimes.trial import require_survived

if TYPE_CHECKING:
    import openvino
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs

GRAPH = "model.xml"
"""The file in an artefact's folder that holds the graph; the constants are in ``model.bin``."""
HINT = "INFERENCE_PRECISION_HINT"
"""OpenVINO's name for what floating-point operators are computed in, and the option's in the manifest."""
TYPES = {"f32": Precision.FP32, "f16": Precision.FP16, "bf16": Precision.BF16}
"""Values of the hint. What a device can compute in, it says with the names on the right."""
REMEDY = "pip install 'dtvit-deploy[openvino]'"
_ENDS = frozenset({"Constant", "Parameter", "Result"})
"""Operators of a graph whose tensors are no inner ones."""
_MOVING = frozenset({"Broadcast", "Concatenation", "Const", "Convert", "Input", "Output", "Reorder", "Reshape", "Split", "Transpose"})
"""Layers of a compiled graph that compute nothing."""


def inference_hint(precision: Precision) -> str:
    """What the floating-point operators of an artefact are to be computed in: those of an INT8 one in FP32."""
    return next((hint for hint, kind in TYPES.items() if kind is precision), "f32")


def settings(hint: str, threads: int) -> dict[str, Any]:
    """What a graph is compiled with, by OpenVINO's own names: nothing that matters is left to its choice."""
    return {
        HINT: hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }


class OpenVinoRuntime:
    """Loads ``openvino`` artefacts, which are folders."""

    name = "openvino"
    rung = Rung.EXECUTED

    def available(self, artifact: Artifact | None = None) -> Availability:
        try:
            import openvino
        except ImportError as error:
            return Availability(version=None, missing=str(error), remedy=REMEDY)
        return Availability(version=_version(openvino.__version__))

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        model = _read(artifact)
        outputs = {name for port in model.outputs for name in port.get_names()}
        made = (port for op in model.get_ordered_ops() if op.get_type_name() not in _ENDS for port in op.outputs())
        floating = (port for port in made if port.get_element_type().is_real())
        return tuple(name for port in floating for name in sorted(port.get_names()) if name not in outputs)

    def load(self, artifact: Artifact, options: SessionOptions) -> OpenVinoSession:
        return OpenVinoSession(_read(artifact), artifact, options)

    def layer_times(self, artifact: Artifact, feed: Feeds, threads: int) -> Told:
        return of_openvino(_read(artifact), feed, settings(_able(asked_hint(artifact)), threads))


class OpenVinoSession:
    """One compiled graph and one request, used again and again.

    Feeds are copied into the request's own memory and answers out of it. Any view is then a feed, and nothing has to outlive a run;
    to have the request read the caller's memory instead was not faster (8.91 ms either way).
    """

    def __init__(self, model: openvino.Model, artifact: Artifact, options: SessionOptions) -> None:
        import openvino

        _require_as_described(model, artifact)
        _require_tensors(model, options.taps)
        asked = asked_hint(artifact)
        core = openvino.Core()
        chosen = settings(_able(asked), options.threads)
        if options.cache:
            core.set_property({"CACHE_DIR": options.cache})
        try:
            if options.taps:
                model.add_outputs(list(options.taps))
            self._compiled: openvino.CompiledModel | None = core.compile_model(model, "CPU", chosen)
            self._request: openvino.InferRequest | None = self._compiled.create_infer_request()
        except Exception as error:
            raise _refusal(artifact, error) from error
        self.signature = artifact.manifest.signature
        self._names = [*(spec.name for spec in self.signature.outputs), *options.taps]
        self._artifact, self._asked, self._options = artifact, asked, options

    @cached_property
    def conditions(self) -> dict[str, str]:
        """Settings by OpenVINO's own names, as the compiled model has them; and how many layers compute in which type.

        Raises:
            RuntimeError: the session was left before anybody asked.
        """
        if self._compiled is None:
            raise RuntimeError("the session was left; its conditions are gone")
        used = {name: self._compiled.get_property(name) for name in settings("f32", 1)}
        used[HINT] = used[HINT].to_string()
        return {
            "runtime": f"openvino {OpenVinoRuntime().available().version}",
            "provider": "CPU",
            "threads": str(self._options.threads),
            "precision": _precision(self._artifact.manifest.precision, self._asked, used[HINT]),
            "layers": _layers(self._compiled.get_runtime_model()),
            **{name: str(value) for name, value in used.items()},
        }

    def run(self, feeds: Feeds) -> Outputs:
        if self._request is None:
            raise RuntimeError("the session was left; it cannot run")
        for name, array in feeds.items():
            np.copyto(self._request.get_tensor(name).data, array)
        try:
            self._request.infer()
        except Exception as error:
            raise InputError(
                f"OpenVINO cannot run {self._artifact.name} on such feeds: {_last_line(error)}",
                remedy="give --data feeds of which every value means something to the network",
            ) from error
        return {name: self._request.get_tensor(name).data.copy() for name in self._names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._compiled = self._request = None


def _able(hint: str) -> str:
    """That hint, or FP32's where the CPU has no kernels for it."""
    import openvino

    return hint if TYPES[hint].value.upper() in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _read(artifact: Artifact) -> openvino.Model:
    """The graph, by the front end for this format alone: ``Core.read_model`` lets every other one try what this one cannot read."""
    try:
        from openvino.frontend import FrontEndManager
    except ImportError as error:
        raise MissingError(f"OpenVINO cannot be imported: {error}", remedy=REMEDY) from error
    require_survived(artifact, OpenVinoRuntime, "OpenVINO")
    frontend = FrontEndManager().load_by_framework("ir")
    try:
        return frontend.convert(frontend.load(str(artifact.path / GRAPH)))
    except Exception as error:  # a class for each kind of failure, and no base of their own
        raise _refusal(artifact, error) from error


def _refusal(artifact: Artifact, error: Exception) -> InputError:
    import openvino

    return InputError(f"OpenVINO {_version(openvino.__version__)} refuses {artifact.name}: {_last_line(error)}", remedy="export it again")


def _last_line(error: Exception) -> str:
    """What went wrong; above it OpenVINO lists the places in its source that the error passed through."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _version(text: str) -> str:
    """``2026.4.1-22982-e213a147257-releases/2026/4`` → ``2026.4.1``."""
    return text.partition("-")[0]


def require_ports(artifact: Artifact) -> None:
    """Refuse a graph whose inputs and outputs are not those of its manifest, in names, shapes and types; nothing is compiled for that.

    Raises:
        InputError: they are not.
    """
    model = _read(artifact)
    _require_as_described(model, artifact)
    signature = artifact.manifest.signature
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        for spec in specs:
            port = next(port for port in ports if spec.name in port.get_names())
            shape, dtype = tuple(port.get_partial_shape().to_shape()) if port.get_partial_shape().is_static else (), port.get_element_type()
            if shape != spec.shape or dtype.to_dtype().name != spec.dtype:
                raise InputError(
                    f"{artifact.name} is not the graph that its manifest describes: {spec.name} is {port.get_partial_shape()}"
                    f" {dtype.get_type_name()}, and its manifest says {spec}",
                    remedy="export it again",
                )


def _require_as_described(model: openvino.Model, artifact: Artifact) -> None:
    signature = artifact.manifest.signature
    for ports, specs, what in ((model.inputs, signature.inputs, "inputs"), (model.outputs, signature.outputs, "outputs")):
        found = [sorted(port.get_names()) for port in ports]
        names = {spec.name for spec in specs}
        if len(found) != len(names) or not all(names.intersection(given) for given in found):
            raise InputError(
                f"{artifact.name} is not the graph that its manifest describes: its {what} are"
                f" {', '.join('/'.join(given) or 'nameless' for given in found) or 'none'}",
                remedy="export it again",
            )


def _require_tensors(model: openvino.Model, names: tuple[str, ...]) -> None:
    known = {name for op in model.get_ops() for port in op.outputs() for name in port.get_names()} if names else set()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"the graph has no tensor {', '.join(unknown[:5])}", remedy="ask `tensors` for what it has")


def asked_hint(artifact: Artifact) -> str:
    """The hint that the artefact's manifest asks for."""
    link = artifact.manifest.parent("openvino")
    asked = link.options.get(HINT) if link else None
    if not isinstance(asked, str) or asked not in TYPES:
        raise InputError(
            f"the manifest of {artifact.name} asks to compute in {asked!r}; known: {', '.join(TYPES)}", remedy="export it again"
        )
    return asked


def _precision(precision: Precision, asked: str, used: str) -> str:
    """What really is computed in."""
    computed = str(TYPES.get(used, used))
    if precision is Precision.INT8:
        words = f"int8 where the graph is quantised, {computed} elsewhere"
    else:
        words = computed if computed == str(precision) else f"{precision} graph, computed in {computed}"
    return words if used == asked else f"{words}: this CPU has no {asked} kernels"


def _layers(compiled: openvino.Model) -> str:
    """``bf16 512, f32 40``: layers of a compiled model by the type that they compute in, most first; those that only move data apart."""
    found = (op.get_rt_info() for op in compiled.get_ops())
    types = Counter(info["runtimePrecision"].astype(str) for info in found if info["layerType"].astype(str) not in _MOVING)
    return ", ".join(f"{name} {count}" for name, count in sorted(types.items(), key=lambda pair: (-pair[1], pair[0])))
