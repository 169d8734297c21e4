"""Whether an engine and a machine fit, and on which of its GPUs: the one judgement that ``doctor --explain`` tells and sessions act on.

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

The engine's own header is believed before its passport: what it says, the library will act on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dtvit_deploy.formats.engine.header import CAPABILITIES, Header
from dtvit_deploy.formats.engine.here import Here
from dtvit_deploy.formats.engine.library import NAMES, installation
from dtvit_deploy.formats.engine.passport import Passport
from dtvit_deploy.formats.engine.reason import Cause, Reason
from dtvit_deploy.formats.engine.version import is_same, numbers
from dtvit_deploy.formats.engine.vouching import TRUST, contradiction

_LATER_MAJOR = {8: 10, 10: 11}
"""The only pairs in which a version-compatible engine loads across major versions."""
_AMPERE = (8, 0)
"""Least compute capability that a hardware-compatible engine runs on."""


class Fit(NamedTuple):
    """What came of holding an engine to a machine.

    Attributes:
        gpu: index of the first GPU that the engine has code for and fits into; None where there is none.
        reasons: why the engine does not load there; none where it does.
    """

    gpu: int | None
    reasons: tuple[Reason, ...]


def fit(header: Header, passport: Passport | None, here: Here) -> Fit:
    """Hold an engine to a machine.

    Args:
        header: what the engine's bytes say.
        passport: what its manifest says, where it has one.
        here: the machine.
    """
    index = next((number for number in range(len(here.gpus)) if _has_room(number, header, passport, here)), None)
    reasons = [*_manifest(header, passport), *_library(header, passport, here), *_platform(header, passport, here)]
    return Fit(index, (*reasons, *_gpu(index, header, passport, here), *_driver(header, passport, here)))


def loads_in(library: str, built: str, installed: str, *, compatible: bool) -> bool:
    """Whether a library of version ``installed`` loads engines that ``built`` made."""
    if is_same(library, built, installed):
        return True
    ours, theirs = numbers(installed), numbers(built)
    if not compatible or library != "tensorrt":
        return False
    return ours > theirs if ours[0] == theirs[0] else _LATER_MAJOR.get(theirs[0]) == ours[0]


def _manifest(header: Header, passport: Passport | None) -> Iterator[Reason]:
    if passport and not header.faults and (differs := contradiction(header, passport)):
        yield Reason(Cause.OTHER_MANIFEST, differs, "a manifest that does not contradict the engine", TRUST)


def _library(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    name, installed = NAMES[header.library], here.installed(header.library)
    built = header.version or (passport.version if passport else "")
    needed = f"{name} {built or 'of a version unknown'}, which built it"
    if not installed.version:
        others = {other: one.version for other, one in here.libraries.items() if one.version and other != header.library}
        for other, version in others.items():
            found = f"it is an engine of {name}, and installed here is {NAMES[other]} {version}"
            flavour = "rtx" if other == "tensorrt-rtx" else "tensorrt"
            yield Reason(Cause.OTHER_LIBRARY, found, needed, f"export it again with --flavour {flavour}, or install {header.library}")
        if not others:
            yield Reason(Cause.NOT_INSTALLED, f"{header.library}: {installed.wrong}", needed, installation(header.library, built))
        return
    compatible = passport is not None and passport.options.version_compatible
    if not loads_in(header.library, built, installed.version, compatible=compatible):
        reserve = f", or a later {numbers(built)[0]}.x: it is version-compatible" if compatible else ""
        yield Reason(
            Cause.VERSION,
            f"{name} {installed.version} is installed here",
            needed + reserve,
            f"export it again with {name} {installed.version}, or {installation(header.library, built)}",
        )


def _platform(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    if passport and header.library == "tensorrt" and passport.platform != here.platform:
        yield Reason(
            Cause.PLATFORM,
            f"this machine is {here.platform}",
            f"{passport.platform}, where it was built: TensorRT's engines do not move between platforms",
            "export it again on this machine, or with --flavour on-device for a device",
        )


def _gpu(index: int | None, header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    known = _capabilities(header, passport)
    code = f"one of compute capability {' or '.join(known)}" if known else "an NVIDIA GPU"
    if not here.gpus:
        yield Reason(Cause.NO_GPU, here.no_gpu or "no GPU was found", code, "run it on a machine with such a GPU and its driver")
    elif index is None:
        runs = [one for one in here.gpus if _has_code(one.capability, header, passport, here)]
        if runs:
            found = ", ".join(f"{one.name} has {one.memory / 2**20:,.0f} MiB in all" for one in runs)
            needed = f"{_least_memory(header) / 2**20:,.0f} MiB for the engine alone"
            yield Reason(Cause.MEMORY, found, needed, "use a larger GPU, or a smaller network")
        else:
            found = ", ".join(f"{one.name} has compute capability {one.capability}" for one in here.gpus)
            yield Reason(Cause.CAPABILITY, found, code, _for_this_gpu(here.gpus[0].capability, header.library))


def _for_this_gpu(capability: str, library: str) -> str:
    if library == "tensorrt":
        return "build it for this GPU: export it again on this machine, or with --flavour on-device"
    if capability in CAPABILITIES:
        return f"export it again with {capability} among its compute capabilities"
    return f"TensorRT-RTX compiles for {', '.join(CAPABILITIES)} only: export it with --flavour tensorrt or on-device"


def _has_room(index: int, header: Header, passport: Passport | None, here: Here) -> bool:
    gpu = here.gpus[index]
    return _has_code(gpu.capability, header, passport, here) and gpu.memory >= _least_memory(header)


def _has_code(capability: str, header: Header, passport: Passport | None, here: Here) -> bool:
    """Whether the engine has code for a GPU; where nobody says for which it has, that is not held against it."""
    known = _capabilities(header, passport)
    if not known or capability in known:
        return True
    portable = header.library == "tensorrt" and passport is not None and passport.options.hardware_compatible and not here.jetpack
    return portable and numbers(capability) >= _AMPERE


def _capabilities(header: Header, passport: Passport | None) -> tuple[str, ...]:
    return header.capabilities or (passport.capabilities if passport else ())


def _least_memory(header: Header) -> int:
    return max(header.size, header.gpu_weights or 0)


def _driver(header: Header, passport: Passport | None, here: Here) -> Iterator[Reason]:
    """CUDA runs what older minor and major versions made, and within a major version what newer ones did."""
    if not here.gpus:
        return
    library = here.installed(header.library)
    wanted = {
        library.cuda: f"CUDA {library.cuda}, with which {NAMES[header.library]} {library.version} here was built",
        passport.cuda if passport else "": f"CUDA {passport.cuda}, as where it was built" if passport else "",
    }
    for cuda, needed in wanted.items():
        if cuda and here.cuda and numbers(here.cuda)[:1] < numbers(cuda)[:1]:
            found = f"the driver here {f'({here.driver}) ' if here.driver else ''}knows CUDA up to {here.cuda}"
            yield Reason(Cause.DRIVER, found, needed, "install a newer NVIDIA driver")
            return
