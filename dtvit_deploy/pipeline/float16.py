"""FP16 artefacts: the simplified graph as a typed FP16 graph, and the same for what INT8 leaves in float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import CPU, FLOAT16, Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Cpu, Precision
from dtvit_deploy.pipeline.judge import Judge, ranked_outputs
from dtvit_deploy.pipeline.mixed_precision import IMPRECISE, Mixed, mixed_precision, rounded_answers
from dtvit_deploy.pipeline.stages import GuardFeeds, load_onnx, made_here, versions, write_onnx

if TYPE_CHECKING:
    from dtvit_deploy.export.onnx.float16 import Float16


def float16_stage(simplified: Artifact, guard: GuardFeeds, keep_fp32: tuple[str, ...], cache: Cache, cpu: Cpu = Cpu.X86_64) -> Artifact:
    """Simplified FP32 ONNX → typed FP16 ONNX, for a CPU that adds in FP32 or one that does not."""
    tools = versions("onnx", "onnxruntime")

    def build(folder: Path) -> None:
        mixed = mixed_precision(load_onnx(simplified), simplified.manifest.signature, guard.feeds, keep_fp32, guard.real, cpu)
        options = {"keep_fp32": keep_fp32, "range_feeds": guard.source, CPU: cpu.value} | mixed.options
        write_onnx(folder, mixed.typed.model, simplified.manifest, Precision.FP16, FLOAT16, tools, options, mixed.notes)

    key = {"parent": simplified.manifest, "guard": guard.digest, "keep": keep_fp32, "tools": tools, "source": source_digest(__name__)}
    key |= {CPU: cpu.value}
    return made_here(cache.entry("float16", key, build) / "model.onnx")


def float16_rest_stage(quantised: Artifact, simplified: Artifact, guard: GuardFeeds, keep_fp32: tuple[str, ...], cache: Cache) -> Artifact:
    """ONNX with Q/DQ in the layout for TensorRT → the same with FP16 for the rest, an INT8 artefact as before.

    What stays FP32 in the FP16 artefact of the same network stays so here: where FP16 loses what matters does not depend on the products
    that are INT8, while an INT8 value next to a tie tips at the least rounding, and would hide it.

    Args:
        quantised: of :data:`dtvit_deploy.export.onnx.qdq.Layout.TENSORRT`.
        simplified: the FP32 graph that it was made of.
    """
    halved = float16_stage(simplified, guard, keep_fp32, cache)
    link = halved.manifest.parent(FLOAT16)
    assert link is not None
    imprecise: dict[str, str] = link.options[IMPRECISE]
    tools = versions("onnx", "onnxruntime")

    def build(folder: Path) -> None:
        from dtvit_deploy.export.onnx.float16 import float16_onnx
        from dtvit_deploy.runtimes.onnxruntime import magnitudes_and_outputs

        model, signature = load_onnx(quantised), quantised.manifest.signature
        reached, expected = magnitudes_and_outputs(model, signature, guard.feeds)
        judge = Judge(expected, guard.real, ranked_outputs(model))

        def evaluate(imprecise: Mapping[str, str]) -> tuple[Float16, float]:
            typed = float16_onnx(model, reached, keep_fp32, imprecise)
            return typed, judge.error(rounded_answers(typed.model, signature, guard.feeds))

        typed, error = evaluate(imprecise)
        before, trials = (evaluate({})[1], 2) if imprecise else (error, 1)
        mixed = Mixed(typed, imprecise, error, before, trials)
        options = {"keep_fp32": keep_fp32, "range_feeds": guard.source} | mixed.options
        cost = (f"what stays FP32 costs {typed.cost}",) if typed.kept else ()
        write_onnx(folder, typed.model, quantised.manifest, Precision.INT8, FLOAT16, tools, options, (*typed.notes, *cost))

    key = {
        "parent": quantised.manifest,
        "guard": guard.digest,
        "keep": keep_fp32,
        "halved": halved.manifest,
        "source": source_digest(__name__),
    }
    return made_here(cache.entry("int8-float16", key, build) / "model.onnx")
