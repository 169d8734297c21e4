"""The stage that makes OpenVINO IR of an ONNX graph."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.pipeline.stages import describe, made_here, versions


def openvino_stage(source: Artifact, precision: Precision, cache: Cache) -> Artifact:
    """ONNX → OpenVINO IR, a folder.

    Args:
        source: the simplified FP32 graph for FP32 and BF16, which are the same IR, the typed FP16 one, or one with Q/DQ.
        precision: the artefact's; the manifest tells the runtime what floating-point operators are to be computed in.
    """
    from dtvit_deploy.runtimes.openvino import GRAPH, HINT, inference_hint

    tools, options = versions("openvino"), {HINT: inference_hint(precision)}

    def build(folder: Path) -> None:
        from dtvit_deploy.export.openvino.ir import openvino_from_onnx

        path = folder / "model.openvino"
        path.mkdir()
        openvino_from_onnx(source.path, path / GRAPH)
        describe(path, source.manifest, precision, "openvino", tools, options, ())

    key = {"parent": source.manifest, "precision": precision, "options": options, "tools": tools, "source": source_digest(__name__)}
    return made_here(cache.entry("openvino", key, build) / "model.openvino")
