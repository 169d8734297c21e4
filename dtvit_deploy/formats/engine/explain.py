"""Why an engine will not load here, found before anything of it is loaded: no library opens it, and no code in it runs.

What is known of the engine itself is put beside how it fits the machine (:mod:`dtvit_deploy.formats.engine.fit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import NAMES as ARTEFACTS
from dtvit_deploy.artifacts.artifact import Manifest, manifest_path, read_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.fit import fit
from dtvit_deploy.formats.engine.header import Header, NotAnEngineError, read_header
from dtvit_deploy.formats.engine.here import Here
from dtvit_deploy.formats.engine.library import NAMES
from dtvit_deploy.formats.engine.load import Validity
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import ENGINE, FORMATS, GRAPH, Passport
from dtvit_deploy.formats.engine.reason import AGAIN, UNVOUCHED, Cause, Reason
from dtvit_deploy.formats.engine.vouching import vouch

_DIAGNOSED = {
    "VERSION_MISMATCH": Cause.VERSION,
    "UNSUPPORTED_CC": Cause.CAPABILITY,
    "OLD_CUDA_DRIVER": Cause.DRIVER,
    "OLD_CUDA_RUNTIME": Cause.DRIVER,
    "INSUFFICIENT_GPU_MEMORY": Cause.MEMORY,
    "MALFORMED_ENGINE": Cause.ALTERED,
    "CUDA_ERROR": Cause.DRIVER,
}
"""EngineInvalidityDiagnostics of TensorRT-RTX."""
_SECTIONS = {"NGNE": "kernels", "THGW": "weights"}
_SHOWN = 80
"""Characters of a path that nothing can be at."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be said of an engine without loading it.

    Attributes:
        engine: the engine's file, or what was given in its place.
        loads: whether nothing speaks against it here.
        reasons: why not, the most fundamental first.
        cautions: what does not keep it from loading and is worth knowing.
        facts: name → value: what its header and its manifest say.
        library: ``tensorrt`` or ``tensorrt-rtx``; empty for what is no engine.
        digest: SHA-256 of the engine's file; empty for what is no engine.
        host_code: whether loading it here means to let it run code for the processor.
        gpu: index of the GPU to load it on.
        dla_core: the deep-learning accelerator that it was built for.
    """

    engine: str
    loads: bool
    reasons: tuple[Reason, ...] = ()
    cautions: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    library: str = ""
    digest: str = ""
    host_code: bool = False
    gpu: int = 0
    dla_core: int | None = None


def explain(path: Path, here: Here, *, trust: bool = False, ask: Callable[[Path, int], Validity] | None = None) -> Explanation:
    """Why an engine will not load on that machine.

    Args:
        path: an engine's folder, the engine in it, an engine anywhere, or the folder of a job that is to build one.
        here: the machine.
        trust: take an engine's word where no manifest vouches for it.
        ask: asks TensorRT-RTX itself, on one of the GPUs; only where it and a GPU are there.

    Raises:
        InputError: there is nothing at ``path``, it cannot be read, or it is an artefact of another kind.
    """
    engine, artefact = _located(path)
    _require_tensorrt(artefact)
    if engine is None:
        return Explanation(engine=str(artefact), loads=False, reasons=(_no_engine_in(artefact),))
    try:
        header = read_header(engine)
    except NotAnEngineError as error:
        return Explanation(engine=str(engine), loads=False, reasons=(_no_engine(error),), facts={"size": f"{error.size:,} bytes"})
    vouched = vouch(engine, artefact, header)
    passport = vouched.passport
    found = fit(header, passport, here)
    reasons = [*vouched.reasons, *found.reasons]
    cautions = [*vouched.cautions, *_cautions(header, passport, here, found.gpu)]
    if trust:
        cautions = [*(f"{one.cause.value}: {one.found}; taken on trust" for one in reasons if one.cause in UNVOUCHED), *cautions]
        reasons = [one for one in reasons if one.cause not in UNVOUCHED]
    facts = _facts(header, passport, vouched.manifest)
    if ask and here.gpus and header.library == "tensorrt-rtx" and here.installed("tensorrt-rtx").version:
        said = ask(engine, found.gpu or 0)
        facts["TensorRT-RTX itself"] = " ".join((said.verdict.lower(), *said.diagnostics)).strip() or said.wrong
        reasons += _said(said, {one.cause for one in reasons})
    order = list(Cause)
    reasons.sort(key=lambda one: order.index(one.cause))
    return Explanation(
        engine=str(engine),
        loads=not reasons,
        reasons=tuple(reasons),
        cautions=tuple(cautions),
        facts=facts,
        library=header.library,
        digest=vouched.digest,
        host_code=passport is not None and passport.options.version_compatible and header.library == "tensorrt",
        gpu=found.gpu or 0,
        dla_core=passport.options.dla_core if passport else None,
    )


def _located(path: Path) -> tuple[Path | None, Path]:
    """The engine's file, if there is one, and what its manifest stands beside."""
    remedy = "give an engine, or the folder that `dtvit-deploy export --target trt` wrote"
    try:
        if path.is_dir():
            engine = path / ENGINE
            return (engine if engine.is_file() else None), path.absolute()
        if not path.is_file():  # a pipe might never end
            raise InputError(f"{path} {'is neither a file nor a folder' if path.exists() else 'does not exist'}", remedy=remedy)
    except OSError as error:  # a name that is too long, a folder that cannot be entered
        name = str(path) if len(str(path)) <= _SHOWN else f"{str(path)[:_SHOWN]}…"
        raise InputError(f"{name} cannot be looked at: {error.strerror or error}", remedy=remedy) from error
    inside = path.absolute().parent
    in_folder = path.name == ENGINE and inside.name and not manifest_path(path).is_file()
    ours = inside.suffix.removeprefix(".") in FORMATS.values() or (in_folder and manifest_path(inside).is_file())
    return path, inside if in_folder and ours else path


def _require_tensorrt(artefact: Path) -> None:
    """Refuse what other runtimes load: by the word of its manifest, or by its name where nothing else tells."""
    try:
        kind = read_json(manifest_path(artefact), Manifest).format
    except InputError:
        kind = artefact.suffix.removeprefix(".")
    if kind in ARTEFACTS and kind not in FORMATS.values():
        raise InputError(
            f"{artefact.name} is an artefact for {ARTEFACTS[kind]}, and --explain is for TensorRT engines",
            remedy="use `dtvit-deploy verify`, which loads it, or says what is missing here",
        )


def _no_engine_in(folder: Path) -> Reason:
    job = FORMATS[Flavour.ON_DEVICE]
    if folder.suffix == f".{job}" or ((folder / GRAPH).is_file() and (folder / "build.py").is_file()):
        found = f"{folder.name} is a job: it holds the graph and what builds the engine from it"
        return Reason(Cause.JOB, found, "an engine, which only the device itself can build", "run build.py of the folder on the device")
    return Reason(Cause.NOT_AN_ENGINE, f"the folder {folder.name} has no {ENGINE}", f"a folder with {ENGINE} in it", AGAIN)


def _no_engine(error: NotAnEngineError) -> Reason:
    if not error.size:
        return Reason(Cause.EMPTY, str(error), "an engine", AGAIN)
    if error.cut:
        return Reason(Cause.TRUNCATED, str(error), "all of it", AGAIN)
    return Reason(Cause.NOT_AN_ENGINE, str(error), "an engine of TensorRT or TensorRT-RTX", error.remedy or AGAIN)


def _said(said: Validity, known: set[Cause]) -> Iterator[Reason]:
    """What the library holds against it that was not known already."""
    if said.verdict != "INVALID":
        return
    causes = [(_DIAGNOSED.get(each, Cause.REFUSED), each) for each in said.diagnostics] or [(Cause.REFUSED, "without a reason")]
    for cause, each in causes:
        if cause not in known:
            remedy = "install a newer NVIDIA driver" if cause in (Cause.DRIVER, Cause.REFUSED) else "export it again on or for this machine"
            yield Reason(cause, f"TensorRT-RTX calls its header invalid: {each}", "an engine and a driver that fit this machine", remedy)


def _cautions(header: Header, passport: Passport | None, here: Here, gpu: int | None) -> Iterator[str]:
    if gpu:
        names = " and ".join(one.name for one in here.gpus[:gpu])
        yield f"it is for GPU {gpu}, {here.gpus[gpu].name}, and not for {names}: other programs need CUDA_VISIBLE_DEVICES={gpu}"
    if passport is None:
        if header.library == "tensorrt":
            yield "for which GPU and which platform it was built is not known without a manifest"
        return
    if header.library == "tensorrt-rtx" and passport.platform.split()[-1:] != here.platform.split()[-1:]:
        yield f"built on {passport.platform}: NVIDIA promises its engines to move between Windows and Linux, and says nothing of processors"
    if header.library == "tensorrt" and passport.device and gpu is not None and passport.device != here.gpus[gpu].name:
        yield f"built on {passport.device}: on another model, TensorRT warns, it may be slower or fail"
    if passport.options.version_compatible and header.library == "tensorrt":
        yield "a version-compatible engine brings code for the processor along, which runs when it is loaded"


def _facts(header: Header, passport: Passport | None, manifest: Manifest | None) -> dict[str, str]:
    """What is known of it, in the order of a passport's pages; nothing that is not known."""
    facts = {
        "built by": f"{NAMES[header.library]} {header.version}".strip(),
        "compute capabilities": ", ".join(header.capabilities or (passport.capabilities if passport else ())),
        "size": f"{header.size:,} bytes",
        "sections": ", ".join(f"{_SECTIONS.get(name, name)} {size:,} bytes" for name, size in header.sections.items()),
    }
    if manifest:
        facts |= {"network": f"{manifest.model}, {manifest.precision}"}
    if passport:
        built_on = ", ".join(filter(None, (passport.device, passport.platform, passport.jetpack)))
        changed = msgspec.to_builtins(passport.options)
        facts |= {
            "built on": built_on,
            "driver": passport.driver,
            "CUDA": passport.cuda,
            "built from": f"{GRAPH} {passport.graph[:16]}…",
            "options": ", ".join(
                f"{name} {value}" for name, value in changed.items() if value not in (None, False) and name != "capabilities"
            ),
        }
    return {name: value for name, value in facts.items() if value}
