"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.graph import inferred, read_graph
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.layer_times import Told, of_onnxruntime
from dtvit_deploy.runtimes.trial import require_survived

if TYPE_CHECKING:
    import onnx
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs


class OnnxRuntime:
    """Loads ``onnx`` artefacts."""

    name = "onnxruntime"
    rung = Rung.EXECUTED

    def available(self, artifact: Artifact | None = None) -> Availability:
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(version=None, missing=str(error), remedy="pip install 'dtvit-deploy[export]'")
        return Availability(version=onnxruntime.__version__)

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return floating_tensors(_read(artifact))

    def load(self, artifact: Artifact, options: SessionOptions) -> OnnxSession:
        model = _read(artifact)
        content = with_outputs(model, options.taps).SerializeToString() if options.taps else str(artifact.path)
        return OnnxSession(content, artifact.manifest.signature, artifact.manifest.precision, options, artifact.name)

    def layer_times(self, artifact: Artifact, feed: Feeds, threads: int) -> Told:
        return of_onnxruntime(str(artifact.path), feed, threads)


class OnnxSession:
    """One loaded graph.

    FP16 graphs run as they are typed, but for operators that the CPU provider has no FP16 kernel for: these it computes in FP32, and
    several in a row without rounding between them, so that what overflows there need not overflow here. The conditions say so.
    """

    def __init__(
        self,
        content: bytes | str,
        signature: Signature,
        precision: Precision,
        options: SessionOptions,
        name: str = "graph",
        config: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingError(f"ONNX Runtime cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        if not options.threads:  # every core, in a process that does other work between: nobody waits actively
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in config.items():
            settings.add_session_config_entry(key, value)
        settings.log_severity_level = 4  # what goes wrong is in the exception, and said once
        try:
            self._session: Any = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exception classes are private
            first = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {first}", remedy="export it again") from error
        found = ({one.name for one in self._session.get_inputs()}, {one.name for one in self._session.get_outputs()})
        if found[0] != {spec.name for spec in signature.inputs} or not found[1] >= {spec.name for spec in signature.outputs}:
            inside = f"its inputs are {', '.join(sorted(found[0]))}, its outputs {', '.join(sorted(found[1]))}"
            raise InputError(f"{name} is not the graph that its manifest describes: {inside}", remedy="export it again")
        self.signature = signature
        self._name = name
        self._names = [spec.name for spec in signature.outputs]
        self._taps = options.taps
        self.conditions = {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "provider": "CPUExecutionProvider",
            "threads": str(options.threads),
            "precision": "fp32" if precision is Precision.FP32 else f"{precision} graph; runs of operators without such a kernel in fp32",
        }

    def run(self, feeds: Feeds, *, taps: bool = True) -> Outputs:
        if self._session is None:
            raise RuntimeError("the session was left; it cannot run")
        names = [*self._names, *(self._taps if taps else ())]
        try:
            found = dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above; an index beyond its range, say
            raise InputError(
                f"ONNX Runtime cannot run {self._name} on such feeds: {str(error).strip().splitlines()[0]}",
                remedy="give --data feeds of which every value means something to the network",
            ) from error
        for spec in self.signature.outputs:
            answer = found[spec.name]
            if answer.shape != spec.shape or answer.dtype.name != spec.dtype:
                told = f"{'×'.join(map(str, answer.shape))} {answer.dtype.name}, and its manifest says {spec}"
                raise InputError(
                    f"{self._name} is not the graph that its manifest describes: {spec.name} is {told}", remedy="export it again"
                )
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session = None


def run_graph(model: onnx.ModelProto, signature: Signature, feeds: Iterable[Feeds], taps: tuple[str, ...] = ()) -> list[Outputs]:
    """Outputs of a graph in memory for each feed, and of the first one the ``taps``; what the guarded passes compare with."""
    content = (with_outputs(model, taps) if taps else model).SerializeToString()
    with OnnxSession(content, signature, Precision.FP32, SessionOptions(threads=0, taps=taps)) as session:
        return [session.run(feed, taps=not index) for index, feed in enumerate(feeds)]


def magnitudes(model: onnx.ModelProto, signature: Signature, feeds: Iterable[Feeds]) -> dict[str, float]:
    """Greatest finite |x| of every floating-point tensor over the feeds, one feed in memory at a time; infinite where it holds NaN."""
    return magnitudes_and_outputs(model, signature, feeds)[0]


def magnitudes_and_outputs(model: onnx.ModelProto, signature: Signature, feeds: Iterable[Feeds]) -> tuple[dict[str, float], list[Outputs]]:
    """As `magnitudes`, and what the graph answers to each feed, of which there is no need to ask it again."""
    import onnx

    infos = inferred(model, strict=False).graph.value_info
    floating = {info.name for info in infos if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    taps = tuple(name for node in model.graph.node for name in node.output if name in floating)
    largest: dict[str, float] = {}
    outputs: list[Outputs] = []
    content = with_outputs(model, taps).SerializeToString()
    with OnnxSession(content, signature, Precision.FP32, SessionOptions(threads=0, taps=taps)) as session:
        for feed in feeds:
            found = session.run(feed)
            outputs.append({spec.name: found[spec.name] for spec in signature.outputs})
            for name, array in (*found.items(), *feed.items()):
                if array.dtype == np.float32:
                    size = float(np.abs(array).max(initial=0.0))
                    if np.isinf(size):  # every floating-point type has infinity: a mask of attention is made of it
                        size = float(np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max(initial=0.0))
                    # NaN must count as too large, and max() of a Python float and NaN keeps the first.
                    largest[name] = np.inf if np.isnan(size) else max(largest.get(name, 0.0), size)
    return largest, outputs


def floating_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of a graph's inner FP32 and FP16 tensors, in the order of execution."""
    import onnx

    infos = inferred(model, strict=False).graph.value_info
    floating = {i.name for i in infos if i.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)}
    outputs = {info.name for info in model.graph.output}
    return tuple(name for node in model.graph.node for name in node.output if name in floating and name not in outputs)


def _read(artifact: Artifact) -> onnx.ModelProto:
    model = read_graph(artifact.path)
    require_survived(artifact, OnnxRuntime, "ONNX Runtime")
    return model


def with_outputs(model: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    """A copy of the graph that gives inner tensors too.

    Raises:
        InputError: it has no tensor of such a name.
    """
    import onnx

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    present = {info.name for info in model.graph.output}
    unknown = [name for name in names if name not in made]
    if unknown:
        raise InputError(f"the graph has no tensor {', '.join(unknown[:5])}", remedy="ask `tensors` for what it has")
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return tapped
