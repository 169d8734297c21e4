"""The stage that makes the simplified ONNX graph, from which most targets are made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.artifacts.artifact import (
    Artifact,
)
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.export.garbage import uncollected
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.stages import GuardFeeds, load_onnx, made_here, versions, write_onnx

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds


def onnx_stage(program: ProgramEntry, guard: GuardFeeds, cache: Cache) -> Artifact:
    """Translated ONNX → simplified, proved static; the manifest's model and preprocessing are the program entry's."""
    mine = program.artifact.manifest
    exported = program.graph()
    inherited = msgspec.structs.replace(exported.manifest, preprocessing=mine.preprocessing)
    exported = msgspec.structs.replace(exported, manifest=inherited)
    tools = versions("onnx", "onnxsim", "onnxruntime")

    def build(folder: Path) -> None:
        from dtvit_deploy.export.onnx.simplify import simplify_onnx
        from dtvit_deploy.export.onnx.static import require_static
        from dtvit_deploy.runtimes.onnxruntime import run_graph

        signature = mine.signature

        def run(model: onnx.ModelProto, feeds: Iterable[Feeds], taps: tuple[str, ...]) -> Any:
            return run_graph(model, signature, feeds, taps)

        with uncollected():  # what was traced a moment ago is still there to be looked through
            result = simplify_onnx(load_onnx(exported), program.nodes, guard.feeds, run)
        require_static(result.model)
        options = {"guard_feeds": guard.source}
        write_onnx(folder, result.model, exported.manifest, Precision.FP32, "simplified", tools, options, (result.note,))

    key = {"parent": exported.manifest, "guard": guard.digest, "tools": tools, "source": source_digest(__name__)}
    return made_here(cache.entry("simplified", key, build) / "model.onnx")
