"""TensorRT's artefacts where their engine cannot run: the typed ONNX graph that it was built from, evaluated in ONNX Runtime.

The graph decides every type, and a strongly typed engine keeps them, so what FP16 overflows and what INT8 rounds away is found here too.
Two things are done for that. Every FP16 tensor is really rounded, since ONNX Runtime computes runs of FP16 operators in FP32 without
rounding between them. And quantised products are computed as written, dequantised values times dequantised values: ONNX Runtime's own
fused INT8 kernels are not TensorRT's, and saturate where neither TensorRT nor the graph does on CPUs without VNNI. What no emulation
tells: in which order a GPU's kernels sum, and how long they take. No latency is measured of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import Artifact, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.graph import read_graph
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.passport import GRAPH, LINK, PASSPORT, passport_of
from dtvit_deploy.runtimes.base import ASKED_FOR, Availability, SessionOptions
from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime, OnnxSession, floating_tensors, with_outputs
from dtvit_deploy.runtimes.trial import require_survived

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs

AS_WRITTEN = {"session.disable_quant_qdq": "1"}
"""Settings of ONNX Runtime with which Q/DQ pairs are computed as they stand.

https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h
"""
PRECISIONS = {
    Precision.FP32: "fp32",
    Precision.FP16: "fp16 graph: every FP16 tensor rounded to FP16, operators compute in fp32",
    Precision.INT8: "int8 graph: values rounded to INT8 as its Q/DQ pairs say, FP16 tensors to FP16, operators compute in fp32",
}


class EmulatedTensorRt:
    """Loads the folders that TensorRT builds or is to build: ``trt``, ``rtx`` and ``trtjob``."""

    name = "emulated-in-onnxruntime"
    rung = Rung.EMULATED

    def __init__(self, why: Callable[[Artifact], str] = lambda _: ASKED_FOR) -> None:
        """An evaluator.

        Args:
            why: why an artefact's own runtime is not the one that is taken, for the conditions; only who knows all runtimes can say more.
        """
        self._why = why

    def available(self, artifact: Artifact | None = None) -> Availability:
        return OnnxRuntime().available()

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return floating_tensors(_read(artifact))

    def load(self, artifact: Artifact, options: SessionOptions) -> EmulatedSession:
        return EmulatedSession(_read(artifact), artifact, options, self._why)


class EmulatedSession:
    """One graph, evaluated in its own types."""

    def __init__(self, model: onnx.ModelProto, artifact: Artifact, options: SessionOptions, why: Callable[[Artifact], str]) -> None:
        from dtvit_deploy.runtimes.rounded import rounded_onnx

        manifest = artifact.manifest
        with_outputs(model, options.taps)  # a name that only the rounding adds is no tensor of the graph
        name = f"{artifact.name}/{GRAPH}"
        try:
            content = with_outputs(rounded_onnx(model), options.taps).SerializeToString()
        except InputError:
            raise
        except Exception as error:  # onnx has no class of its own for all that can be wrong with a graph
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"{name} is no graph that can be evaluated: {first}", remedy="export it again") from error
        self._session = OnnxSession(content, manifest.signature, manifest.precision, options, name, AS_WRITTEN)
        self.signature = manifest.signature
        version = EmulatedTensorRt().available().version
        self.conditions = self._session.conditions | {
            "runtime": f"{EmulatedTensorRt.name} {version}",
            "precision": PRECISIONS.get(manifest.precision, f"{manifest.precision} graph; operators compute in fp32"),
            "emulated": f"the graph in its own types in ONNX Runtime {version}",
            "engine": f"not executed: {why(artifact)}",
        }

    def run(self, feeds: Feeds) -> Outputs:
        return self._session.run(feeds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.__exit__(*exc)


def _read(artifact: Artifact) -> onnx.ModelProto:
    """The graph in an artefact's folder, which is the one that the passport names where there is one."""
    path = artifact.path / GRAPH
    if not path.is_file():
        raise InputError(f"{artifact.name} holds no {GRAPH}, so there is nothing to evaluate in its place", remedy="export it again")
    link = artifact.manifest.parent(LINK)
    if link is not None and PASSPORT in link.options:
        asked, found = passport_of(artifact.manifest).graph, sha256_of(path)
        if found != asked:
            raise InputError(
                f"{GRAPH} in {artifact.name} is not the one that the engine was built from: its SHA-256 is {found[:16]}…, the passport"
                f" says {asked[:16]}…",
                remedy="export it again",
            )
    model = read_graph(path)
    require_survived(artifact, EmulatedTensorRt, "ONNX Runtime")
    return model
