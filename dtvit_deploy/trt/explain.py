"""Why an engine will not load here, found before anything of it is loaded: no library opens it, and no code in it runs.

What NVIDIA promises, and this file holds engines to:

* TensorRT loads an engine in the version that built it, build number included, unless it was built version-compatible: then in later ones
  of that major version, one of 8 in 10, and one of 10 in 11.
  https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
  https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/getting-started/support-matrix.html
  https://developer.nvidia.com/docs/drive/drive-os/7.0.3/public/drive-os-tensorrt-release-notes/release-properties.html
* Its engines are for one platform, and for one kind of GPU unless they were built hardware-compatible: then for every GPU from compute
  capability 8.0 on, but for a Jetson's. (The same pages.)
* TensorRT-RTX loads an engine in the release that built it and no other. The library compares major, minor and patch, not the build:
  observed in 1.7.1. https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/engine-compatibility.html
* Its engines are portable between Windows and Linux, and run on the compute capabilities that they were built for.
  https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dtvit_deploy.artifact import Manifest, manifest_path
from dtvit_deploy.errors import InputError
from dtvit_deploy.trt.header import CAPABILITIES, NAMES, Header, NotAnEngineError, read_header
from dtvit_deploy.trt.here import Here
from dtvit_deploy.trt.load import Validity
from dtvit_deploy.trt.options import Flavour
from dtvit_deploy.trt.passport import ENGINE, FORMATS, GRAPH, Passport
from dtvit_deploy.trt.reason import AGAIN, UNVOUCHED, Cause, Reason
from dtvit_deploy.trt.vouching import vouch

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
_LATER_MAJOR = {8: 10, 10: 11}
"""The only pairs in which a version-compatible engine loads across major versions."""


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
    """

    engine: str
    loads: bool
    reasons: tuple[Reason, ...] = ()
    cautions: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    library: str = ""
    digest: str = ""
    host_code: bool = False


def explain(path: Path, here: Here, *, trust: bool = False, ask: Callable[[Path], Validity] | None = None) -> Explanation:
    """Why an engine will not load on that machine.

    Args:
        path: an engine's folder, the engine in it, an engine anywhere, or the folder of a job that is to build one.
        here: the machine.
        trust: take an engine's word where no manifest vouches for it.
        ask: asks TensorRT-RTX itself; only where it and a GPU are there.

    Raises:
        InputError: there is nothing at ``path``, or it cannot be read.
    """
    engine, artefact = _located(path)
    if engine is None:
        return Explanation(engine=str(artefact), loads=False, reasons=(_no_engine_in(artefact),))
    try:
        header = read_header(engine)
    except NotAnEngineError as error:
        return Explanation(engine=str(engine), loads=False, reasons=(_no_engine(error),), facts={"size": f"{error.size:,} bytes"})
    vouched = vouch(engine, artefact, header)
    passport = vouched.passport
    reasons = [*vouched.reasons, *_library(header, passport, here), *_platform(header, passport, here), *_gpu(header, passport, here)]
    cautions = [*vouched.cautions, *_cautions(header, passport, here)]
    if trust:
        cautions = [*(f"{one.cause.value}: {one.found}; taken on trust" for one in reasons if one.cause in UNVOUCHED), *cautions]
        reasons = [one for one in reasons if one.cause not in UNVOUCHED]
    facts = _facts(header, passport, vouched.manifest)
    if ask and here.gpus and header.library == "tensorrt-rtx" and here.installed("tensorrt-rtx").version:
        said = ask(engine)
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
    )


def _located(path: Path) -> tuple[Path | None, Path]:
    """The engine's file, if there is one, and what its manifest stands beside."""
    if path.is_dir():
        engine = path / ENGINE
        return (engine if engine.is_file() else None), path.absolute()
    if not path.is_file():  # a pipe might never end
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}", remedy="give an engine, or the folder that `dtvit-deploy export --target trt` wrote")
    inside = path.absolute().parent
    in_folder = path.name == ENGINE and inside.name and not manifest_path(path).is_file()
    ours = inside.suffix.removeprefix(".") in FORMATS.values() or (in_folder and manifest_path(inside).is_file())
    return path, inside if in_folder and ours else path


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


def _library(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    name, installed = NAMES[header.library], here.installed(header.library)
    needed = f"{name} {header.version or 'of a version unknown'}, which built it"
    if not installed.version:
        others = {other: one.version for other, one in here.libraries.items() if one.version and other != header.library}
        for other, version in others.items():
            found = f"it is an engine of {name}, and installed here is {NAMES[other]} {version}"
            flavour = "rtx" if other == "tensorrt-rtx" else "tensorrt"
            yield Reason(Cause.OTHER_LIBRARY, found, needed, f"export it again with --flavour {flavour}, or install {header.library}")
        if not others:
            yield Reason(Cause.NOT_INSTALLED, f"{header.library}: {installed.wrong}", needed, _install(header.library, header.version))
        return
    compatible = passport is not None and passport.options.version_compatible
    if header.version and not loads_in(header.library, header.version, installed.version, compatible=compatible):
        reserve = f", or a later {_numbers(header.version)[0]}.x: it is version-compatible" if compatible else ""
        yield Reason(
            Cause.VERSION,
            f"{name} {installed.version} is installed here",
            needed + reserve,
            f"export it again with {name} {installed.version}, or {_install(header.library, header.version)}",
        )


def _install(library: str, version: str) -> str:
    release = ".".join(version.split(".")[:3])
    if library == "tensorrt-rtx":
        return f"pip install 'tensorrt-rtx=={release}.*'"
    return f"install TensorRT {release} (pip install 'tensorrt=={release}.*'; a Jetson has it with JetPack)"


def loads_in(library: str, built: str, installed: str, *, compatible: bool) -> bool:
    """Whether a library of version ``installed`` loads engines that ``built`` made."""
    ours, theirs = _numbers(installed), _numbers(built)
    if library == "tensorrt-rtx":
        return ours[:3] == theirs[:3]
    known = min(len(ours), len(theirs), 4)  # a Jetson's Python module gives three numbers
    if ours[:known] == theirs[:known]:
        return True
    return compatible and (ours > theirs if ours[0] == theirs[0] else _LATER_MAJOR.get(theirs[0]) == ours[0])


def _platform(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    if passport and header.library == "tensorrt" and passport.platform != here.platform:
        yield Reason(
            Cause.PLATFORM,
            f"this machine is {here.platform}",
            f"{passport.platform}, where it was built: TensorRT's engines do not move between platforms",
            "export it again on this machine, or with --flavour on-device for a device",
        )


def _gpu(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    capabilities = header.capabilities or (passport.capabilities if passport else ())
    code = f"one of compute capability {' or '.join(capabilities)}" if capabilities else "an NVIDIA GPU"
    if not here.gpus:
        yield Reason(Cause.NO_GPU, here.no_gpu or "no GPU was found", code, "run it on a machine with such a GPU and its driver")
        return
    fitting = [runs_on(one.capability, header, passport, here) for one in here.gpus]
    first = here.gpus[0]
    if not fitting[0]:
        found = f"{first.name} has compute capability {first.capability}"
        yield Reason(Cause.CAPABILITY, found, code, _other_gpu(first.capability, header.library, fitting))
    yield from _driver(header, passport, here)
    size = max(header.size, header.gpu_weights or 0)
    if size > first.memory:
        found = f"{first.name} has {first.memory / 2**20:,.0f} MiB in all"
        yield Reason(Cause.MEMORY, found, f"{size / 2**20:,.0f} MiB for the engine alone", "use a larger GPU, or a smaller network")


def _driver(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    """CUDA runs what older minor and major versions made, and within a major version what newer ones did."""
    library = here.installed(header.library)
    wanted = {
        library.cuda: f"CUDA {library.cuda}, with which {NAMES[header.library]} {library.version} here was built",
        passport.cuda if passport else "": f"CUDA {passport.cuda}, as where it was built" if passport else "",
    }
    for cuda, needed in wanted.items():
        if cuda and here.cuda and _numbers(here.cuda)[:1] < _numbers(cuda)[:1]:
            found = f"the driver here {f'({here.driver}) ' if here.driver else ''}knows CUDA up to {here.cuda}"
            yield Reason(Cause.DRIVER, found, needed, "install a newer NVIDIA driver")
            return


def runs_on(capability: str, header: Header, passport: Passport | None, here: Here) -> bool:
    """Whether the engine has code for a GPU; where nobody says for which it has, that is not held against it."""
    known = header.capabilities or (passport.capabilities if passport else ())
    if not known or capability in known:
        return True
    ampere = header.library == "tensorrt" and passport is not None and passport.options.hardware_compatible and not here.jetpack
    return ampere and _numbers(capability) >= (8, 0)


def _other_gpu(capability: str, library: str, fitting: list[bool]) -> str:
    if any(fitting):
        return f"use the GPU that fits: CUDA_VISIBLE_DEVICES={fitting.index(True)}"
    if library == "tensorrt":
        return "build it for this GPU: export it again on this machine, or with --flavour on-device"
    if capability in CAPABILITIES:
        return f"export it again with {capability} among its compute capabilities"
    return f"TensorRT-RTX compiles for {', '.join(CAPABILITIES)} only: export it with --flavour tensorrt or on-device"


def _said(said: Validity, known: set[Cause]) -> Iterator[Reason]:
    """What the library holds against it that was not known already."""
    if said.verdict != "INVALID":
        return
    causes = [(_DIAGNOSED.get(each, Cause.REFUSED), each) for each in said.diagnostics] or [(Cause.REFUSED, "without a reason")]
    for cause, each in causes:
        if cause not in known:
            remedy = "install a newer NVIDIA driver" if cause in (Cause.DRIVER, Cause.REFUSED) else "export it again on or for this machine"
            yield Reason(cause, f"TensorRT-RTX calls its header invalid: {each}", "an engine and a driver that fit this machine", remedy)


def _cautions(header: Header, passport: Passport | None, here: Here) -> Iterator[str]:
    if passport is None:
        if header.library == "tensorrt":
            yield "for which GPU and which platform it was built is not known without a manifest"
        return
    if header.library == "tensorrt-rtx" and passport.platform.split()[-1:] != here.platform.split()[-1:]:
        yield f"built on {passport.platform}: NVIDIA promises its engines to move between Windows and Linux, and says nothing of processors"
    if header.library == "tensorrt" and passport.device and here.gpus and passport.device != here.gpus[0].name:
        yield f"built on {passport.device}: on another model, TensorRT warns, it may be slower or fail"
    if passport.options.version_compatible and header.library == "tensorrt":
        yield "a version-compatible engine brings code for the processor along, which runs when it is loaded"


def _facts(header: Header, passport: Passport | None, manifest: Manifest | None) -> dict[str, str]:
    """What is known of it, in the order of a passport's pages; nothing that is not known."""
    facts = {
        "built by": f"{NAMES[header.library]} {header.version}".strip(),
        "compute capabilities": ", ".join(header.capabilities or (passport.capabilities if passport else ())),
        "size": f"{header.size:,} bytes",
        "sections": ", ".join(f"{name} {size:,}" for name, size in header.sections.items()),
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


def _numbers(version: str) -> tuple[int, ...]:
    """``10.3.0.26`` → (10, 3, 0, 26); what follows the numbers does not count."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits[:9]))
        if digits != part:
            break
    return tuple(numbers) or (0,)
