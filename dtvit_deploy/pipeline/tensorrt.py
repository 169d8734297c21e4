"""TensorRT artefacts of a typed graph, each flavour one: engines that are compiled here, and jobs that devices compile for themselves."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.staging import replacing
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.formats.engine.header import read_header
from dtvit_deploy.formats.engine.library import LIBRARIES, Library, load_library
from dtvit_deploy.formats.engine.options import RTX_CAPABILITIES, BuildOptions, Flavour
from dtvit_deploy.formats.engine.passport import ENGINE, FORMATS, GRAPH, LAYERS, LINK, PASSPORT, Passport
from dtvit_deploy.pipeline.material import digest_of
from dtvit_deploy.pipeline.stages import describe, load_onnx, made_here, versions
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    from dtvit_deploy.export.tensorrt.on_device import Golden
    from dtvit_deploy.recipe.tables import TensorRt

RELEASES = ("10.3", "11.1")
"""TensorRT releases that a job's graph is held to: JetPack 6's and the newest whose operators are published."""


_SHOWN = 5
"""Findings that an error repeats."""


class Choice(NamedTuple):
    """A flavour that can be built here.

    Attributes:
        library: that compiles; None where the device does.
        why: it was taken, where that was left open.
    """

    flavour: Flavour
    library: Library | None
    why: str


def chosen(asked: TensorRt) -> tuple[Choice, ...]:
    """The flavours to build, with ``auto`` resolved.

    Raises:
        InputError: an option asks for something that no chosen compiler can do.
        MissingError: a flavour that was named cannot be had here.
    """
    from dtvit_deploy.export.tensorrt.engine import unfit_options

    found = tuple({choice.flavour: choice for choice in map(_choice, reversed(asked.flavours))}.values())[::-1]  # who is named first counts
    if asked.build.capabilities and not any(choice.flavour is Flavour.RTX for choice in found):
        raise InputError(
            f"compute capabilities were named ({', '.join(asked.build.capabilities)}), and nothing is compiled for them:"
            f" {', '.join(str(choice.flavour) for choice in found)} takes the GPU that it builds on",
            remedy="leave --capability out, or use --flavour rtx",
        )
    unfit = [set(unfit_options(asked.build, LIBRARIES.get(choice.flavour, "tensorrt"))) for choice in found]
    if refused := set.intersection(*unfit):
        raise InputError(
            f"TensorRT-RTX cannot do what was asked: {', '.join(sorted(refused))}",
            remedy="leave that out, or build where TensorRT is: --flavour on-device or tensorrt",
        )
    return found


def _choice(flavour: Flavour) -> Choice:
    if flavour is Flavour.AUTO:
        return _best()
    if flavour is Flavour.ON_DEVICE:
        return Choice(flavour, None, "")
    library = load_library(LIBRARIES[flavour])
    if flavour is Flavour.TENSORRT and (missing := gpu.gpus().missing):
        raise MissingError(
            f"TensorRT compiles on the GPU that the engine is for, and {missing}",
            remedy="use --flavour on-device, which builds on the device, or --flavour rtx, which needs no GPU",
        )
    return Choice(flavour, library, "")


def _best() -> Choice:
    """The first flavour that can be had, and why none before it."""
    refused = ""
    for flavour in (Flavour.TENSORRT, Flavour.RTX, Flavour.ON_DEVICE):
        try:
            found = _choice(flavour)
        except MissingError as error:  # noqa: PERF203 twice at most
            refused += f"; not {flavour}: {error}"
        else:
            return found._replace(why=f"flavour {flavour} was chosen{refused}")
    raise AssertionError("a job can be written anywhere")


def tensorrt_stages(
    graph: Artifact, choices: Sequence[Choice], build: BuildOptions, cache: Cache, golden: Callable[[], Golden]
) -> list[Artifact]:
    """Typed ONNX → an artefact of each flavour; each is a folder that holds the graph too.

    Args:
        graph: in the precision that the engine is to have.
        choices: by `chosen`.
        build: what the compilers are told.
        cache: holds what was built before.
        golden: feeds and answers that a device checks itself with; asked for only where a job is made.
    """
    made = [_engine(graph, one.library, build, cache) if one.library else _job(graph, build, cache, golden) for one in choices]
    return [_with_reason(artifact, choice.why) for artifact, choice in zip(made, choices, strict=True)]


def _with_reason(artifact: Artifact, why: str) -> Artifact:
    """The same with the reason in its manifest why this flavour was taken; not in the cache's, where the next one finds it who named it."""
    if not why:
        return artifact
    *before, last = artifact.manifest.lineage
    told = msgspec.structs.replace(last, notes=(why, *last.notes))
    return msgspec.structs.replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, lineage=(*before, told)))


def linted(graph: Artifact, compilers: Sequence[tuple[str, str]], build: BuildOptions) -> tuple[str, ...]:
    """What is known against a graph before a compiler is called, in lines for the manifest.

    Args:
        graph: typed ONNX.
        compilers: library and release of each that is to take it.
        build: says whether a DLA is to.

    Raises:
        InputError: one of them is known to refuse it; every module is named, with what to do.
    """
    from dtvit_deploy.export.tensorrt.dla import lint_dla
    from dtvit_deploy.export.tensorrt.lint import Compiler, Severity, lines, lint

    model = load_onnx(graph)
    notes: list[str] = []
    for compiler in (Compiler(*one) for one in compilers):
        found = lint(model, compiler)
        errors = [finding for finding in found if finding.severity is Severity.ERROR]
        if errors:
            raise InputError(
                f"{compiler} would refuse or misread {graph.manifest.stem}: "
                + some((f"{one.module} ({one.node}): {one.message}{_known_from(one.source)}" for one in errors), _SHOWN, separator="; "),
                remedy="; ".join(dict.fromkeys(finding.remedy for finding in errors[:_SHOWN])),
            )
        notes += lines(found)
    if build.dla_core is not None:
        notes += lines(lint_dla(model, Compiler(*compilers[0])).findings)
    return tuple(dict.fromkeys(notes))


def _known_from(source: str) -> str:
    return f" ({source})" if source else ""


def _engine(graph: Artifact, library: Library, build: BuildOptions, cache: Cache) -> Artifact:
    flavour = next(flavour for flavour, name in LIBRARIES.items() if name == library.name)
    path = f"model.{FORMATS[flavour]}"
    here = gpu.gpus()
    device = here.found[0] if here.found and not library.ahead_of_time else None
    key = {
        "parent": graph.manifest,
        "build": build,
        "library": [library.name, library.version],
        "machine": [device, here.cuda, gpu.driver_version(), gpu.jetpack()] if device else [],
        "source": source_digest(__name__),
    }

    def write(folder: Path) -> None:
        from dtvit_deploy.export.tensorrt.engine import engine_from_onnx, unfit_options

        inside = folder / path
        inside.mkdir()
        known_of = linted(graph, [(library.name, library.version)], build if not library.ahead_of_time else BuildOptions())
        timing = cache.root / f"timing-{library.name}-{library.version}-{_plain(device.name)}.cache" if device else None
        known = timing.read_bytes() if timing is not None and timing.is_file() else b""
        built = engine_from_onnx(graph.path, build, library, known)
        if timing is not None and built.timing is not None:
            with replacing(timing) as part:
                part.write_bytes(built.timing)
        (inside / ENGINE).write_bytes(built.engine)
        (inside / LAYERS).write_bytes(built.layers)
        shutil.copyfile(graph.path, inside / GRAPH)
        passport = Passport(
            library=library.name,
            version=library.version,
            capabilities=(device.capability,) if device else build.capabilities or RTX_CAPABILITIES,
            platform=gpu.this_platform(),
            engine=sha256_of(inside / ENGINE),
            bytes=len(built.engine),
            graph=graph.manifest.sha256,
            device=gpu.device_name(device) if device else "",
            driver=gpu.driver_version() if device else "",
            cuda=here.cuda if device else "",
            jetpack=gpu.jetpack(),
            options=build,
        )
        ignored = tuple(
            f"{library.name} has no {wish.removeprefix('a ').removeprefix('an ')}" for wish in unfit_options(build, library.name)
        )
        options = {"flavour": str(flavour), PASSPORT: msgspec.to_builtins(passport)}
        notes = (*ignored, *known_of, *built.notes, _parts(inside / ENGINE, graph.manifest.precision))
        tools = versions() | {library.name: library.version}
        describe(inside, graph.manifest, graph.manifest.precision, LINK, tools, options, notes)

    return msgspec.structs.replace(load_artifact(cache.entry(str(flavour), key, write) / path), trusted=True)


def _plain(name: str) -> str:
    """A GPU's name as a part of a file's."""
    return re.sub(r"\W+", ".", name)


def _parts(engine: Path, precision: Precision) -> str:
    """What an engine's bytes are: TensorRT-RTX stores each kernel's source, which does not shrink with the precision as weights do."""
    header = read_header(engine)
    whole = f"the {precision} engine has {header.size / 1e6:.1f} MB"
    if header.gpu_weights is None:
        return whole
    return f"{whole}, of which {header.gpu_weights / 1e6:.1f} are weights and {(header.size - header.gpu_weights) / 1e6:.1f} kernels"


def _job(graph: Artifact, build: BuildOptions, cache: Cache, golden: Callable[[], Golden]) -> Artifact:
    path = f"model.{FORMATS[Flavour.ON_DEVICE]}"
    known = linted(graph, [("tensorrt", release) for release in RELEASES], build)
    checked = _compiled_here(graph, build, cache)
    answers = golden()
    key = {
        "parent": graph.manifest,
        "build": build,
        "golden": [digest_of([*answers.feeds, *answers.expected]), answers.tolerance, answers.least_sqnr, answers.top1, answers.source],
        "checked": checked,
        "source": source_digest(__name__),
    }

    def write(folder: Path) -> None:
        from dtvit_deploy.export.tensorrt.on_device import write_job

        inside = folder / path
        inside.mkdir()
        write_job(inside, graph.path, graph.manifest, build, answers, graph.manifest.stem)
        options = {"flavour": str(Flavour.ON_DEVICE), "build": msgspec.to_builtins(build)}
        notes = (*known, checked, f"{counted(len(answers.feeds), 'golden sample')}: {answers.source}")
        describe(inside, graph.manifest, graph.manifest.precision, LINK, versions(), options, notes, rung=Rung.PREPARED)

    return made_here(cache.entry("job", key, write) / path)


def _compiled_here(graph: Artifact, build: BuildOptions, cache: Cache) -> str:
    """Whether some compiler of NVIDIA's has taken the graph, in a sentence: TensorRT-RTX needs no GPU for that."""
    library = None
    with contextlib.suppress(MissingError):
        library = load_library(LIBRARIES[Flavour.RTX])
    if library is None:
        return "no compiler has seen this graph: neither TensorRT nor TensorRT-RTX is here"
    try:
        _engine(graph, library, BuildOptions(tf32=build.tf32), cache)
    except InputError as error:  # what TensorRT-RTX lacks the device may have
        return (
            f"TensorRT-RTX {library.version} does not compile this graph, which need not mean that the device's TensorRT will not: {error}"
        )
    return f"TensorRT-RTX {library.version} compiles this graph, which is a check and no proof that the device's TensorRT will"
