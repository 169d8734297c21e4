"""ONNX artefacts on an ARM64 CPU: rewritten so that they load there, and held to what is known of ONNX Runtime there and to how it adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import CPU, FLOAT16, Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.graph import read_graph
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Cpu, Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.verdict import Gate, holds
from dtvit_deploy.pipeline.mixed_precision import DOUBTFUL
from dtvit_deploy.pipeline.stages import load_onnx, made_here, versions, write_onnx
from dtvit_deploy.plural import counted, some
from dtvit_deploy.runtimes.pairing import Pairing

SAMPLES = 8
"""Real samples that the emulation answers at most: it takes about a nanosecond for each multiply and add."""
PORTABLE = "portable"
"""Kind of the link that the rewriting adds, and the stage's name in the cache."""


def portable_stage(halved: Artifact, cache: Cache) -> Artifact:
    """Typed FP16 ONNX → the same without the operators that ONNX Runtime has no sound FP16 kernels for on ARM64."""
    tools = versions("onnx")

    def build(folder: Path) -> None:
        from dtvit_deploy.export.arm64.portable import portable_onnx

        found = portable_onnx(load_onnx(halved))
        notes = (*found.notes, *_doubts(halved))
        write_onnx(folder, found.model, halved.manifest, Precision.FP16, PORTABLE, tools, {"fp32": dict(found.changed)}, notes)

    key = {"parent": halved.manifest, "tools": tools, "source": source_digest(__name__)}
    return made_here(cache.entry(PORTABLE, key, build) / "model.onnx")


def _doubts(halved: Artifact) -> tuple[str, ...]:
    """What would overflow on the way on an ARM64 core, of a graph that is not for one."""
    link = halved.manifest.parent(FLOAT16)
    found: dict[str, str] = link.options.get(DOUBTFUL, {}) if link is not None else {}
    others = f" (and {counted(len(found) - 1, 'more module')})" if len(found) > 1 else ""
    advice = "export with --arm64 (in a recipe: export.cpu) if it is to run there"
    return tuple(f"{module}{others}: {reason}; {advice}" for module, reason in list(found.items())[:1])


def told_of_arm64(artifact: Artifact, cpu: Cpu) -> Artifact:
    """The same ONNX artefact with what is known against it on ARM64 among its notes.

    Raises:
        InputError: it is to run there, and would not load or give no answer.
    """
    from dtvit_deploy.export.arm64.lint import Severity, lines, lint

    found = lint(load_onnx(artifact))
    if cpu is Cpu.ARM64 and (wrong := lines([one for one in found if one.severity is Severity.ERROR])):
        raise InputError(
            f"{artifact.manifest.file_name} would not work in ONNX Runtime on an ARM64 CPU: {some(wrong, separator='; ')}",
            remedy="change these modules, or leave --arm64 (in a recipe: export.cpu) out if it is for x86-64 alone",
        )
    if not found:
        return artifact
    *before, last = artifact.manifest.lineage
    told = msgspec.structs.replace(last, notes=(*last.notes, *(f"on ARM64: {line}" for line in lines(found))))
    return msgspec.structs.replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, lineage=(*before, told)))


def known_on_arm64(artifact: Artifact, *, held: bool) -> tuple[list[Gate], list[str]]:
    """What is known against an ONNX artefact there, read from its graph.

    Args:
        held: whether it is to run there, so that it must load and answer.

    Returns:
        A gate for each error, or one that passes, where it is held to them; and notes of the rest.

    Raises:
        InputError: the file is no graph.
    """
    from dtvit_deploy.export.arm64.lint import Severity, lines, lint

    if artifact.manifest.format != "onnx":
        return [], []
    found = lint(read_graph(artifact.path))
    wrong, rest = ([one for one in found if (one.severity is Severity.ERROR) is error] for error in (True, False))
    name = f"{artifact.name}: loads and answers on ARM64"
    if not held:
        return [], [f"{artifact.name} on ARM64: {line}" for line in lines(found)]
    gates = [holds(name, False, line) for line in lines(wrong)] or [holds(name, True, "nothing that is known speaks against it")]
    return gates, [f"{artifact.name} on ARM64: {line}" for line in lines(rest)]


def meant_for_arm64(artifact: Artifact) -> bool:
    """Whether it was exported for an ARM64 CPU, as its manifest says."""
    link = artifact.manifest.parent(FLOAT16)
    return link is not None and link.options.get(CPU) == Cpu.ARM64.value


def emulated_arm64(artifacts: Sequence[Artifact]) -> tuple[Pairing, ...]:
    """Those that are answered otherwise there than on x86-64, typed FP16 graphs, each in the emulation of that."""
    from dtvit_deploy.runtimes.arm64.session import EmulatedArm64

    halves = [one for one in artifacts if one.manifest.format == "onnx" and one.manifest.precision is Precision.FP16]
    return tuple(Pairing(one, EmulatedArm64(), asked=True) for one in halves)
