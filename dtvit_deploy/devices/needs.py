"""What is to be done on a device, held against what it has: everything that is missing in one message, each with its remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from dtvit_deploy.devices.probe import Facts
from dtvit_deploy.errors import MissingError

PYTHON = (3, 10)
"""The oldest that the agent runs on: that of JetPack 6."""
RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "coremltools")
"""Modules that the probe looks for, each of which runs artefacts of some format."""
_FARTHEST_CLOCK = 120.0
"""Seconds by which a clock may differ before it is worth a word."""


class Needs(NamedTuple):
    """What a job takes.

    Attributes:
        runtimes: modules that must be there: ``onnxruntime``, ``openvino``, ``tensorrt``.
        disk, memory: bytes.
        sent: bytes that must be in its cache, of which some may be there from before.
        gpu: whether one of NVIDIA's must be there.
        releases: major releases of a module that will do, where others will not.
    """

    runtimes: tuple[str, ...] = ()
    disk: int = 0
    memory: int = 0
    sent: int = 0
    gpu: bool = False
    releases: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class Lack(msgspec.Struct, frozen=True):
    """What a device does not have, and how it gets it."""

    what: str
    remedy: str


def require(name: str, facts: Facts, needs: Needs) -> None:
    """Refuse a device that cannot do what is needed.

    Raises:
        MissingError: lists all that it lacks.
    """
    if found := lacks(facts, needs):
        raise missing(name, found)


def missing(name: str, found: Sequence[Lack]) -> MissingError:
    """All that a device lacks, as one error."""
    return MissingError(
        f"{name} lacks what this needs: {'; '.join(lack.what for lack in found)}",
        remedy="; ".join(dict.fromkeys(lack.remedy for lack in found)),
    )


def of_any_use(facts: Facts) -> list[Lack]:
    """What a device lacks for the least that could be done on it: to run artefacts of one format."""
    found = lacks(facts, Needs())
    if not found and not any(module in facts.packages for module in RUNTIMES):
        found = [Lack(f"a runtime: none of {', '.join(RUNTIMES)}", _remedy("onnxruntime", facts))]
    return found


def lacks(facts: Facts, needs: Needs) -> list[Lack]:
    """All that a device does not have, in the order in which one would mend it."""
    return [*_python(facts), *_packages(facts, needs), *_releases(facts, needs), *_gpu(facts, needs), *_room(facts, needs)]


def _python(facts: Facts) -> list[Lack]:
    least = ".".join(map(str, PYTHON))
    other = "or say by `python` in devices.toml which program it is"
    if not facts.python:
        return [
            Lack(
                f"Python: no such program is in the PATH of {facts.user or 'the user'} there",
                f"install Python {least} or later there, {other}",
            )
        ]
    if facts.python_version is None:
        return [Lack(f"a Python that runs: {facts.python} does not", f"mend it, {other}")]
    if facts.python_version < PYTHON:
        version = ".".join(map(str, facts.python_version))
        return [Lack(f"Python {least} or later: {facts.python} is {version}", f"install a later Python there beside it, {other}")]
    return []


def _packages(facts: Facts, needs: Needs) -> list[Lack]:
    if facts.python_version is None or facts.python_version < PYTHON:
        return []  # another Python has other packages
    found = []
    for module in dict.fromkeys(("numpy", *needs.runtimes)):
        if module == "coremltools" and facts.system != "Darwin":
            found.append(Lack(f"Core ML: its system is {facts.system}", _remedy(module, facts)))
        elif module in facts.broken:
            found.append(Lack(f"a {module} that imports: {facts.broken[module]}", f"install it anew there: {_remedy(module, facts)}"))
        elif module not in facts.packages:
            found.append(Lack(module, _remedy(module, facts)))
    return found


def _releases(facts: Facts, needs: Needs) -> list[Lack]:
    """Modules that are there in a release that will not do."""
    found = []
    for module, majors in needs.releases.items():
        version = facts.packages.get(module, "")
        if version and version.partition(".")[0] not in map(str, majors):
            wanted = " or ".join(map(str, majors))
            other = "use JetPack 6 or later" if facts.l4t else f"{facts.python} -m pip install '{module}=={majors[-1]}.*'"
            found.append(Lack(f"{module} {wanted}: it has {version}", other))
    return found


def _gpu(facts: Facts, needs: Needs) -> list[Lack]:
    if not needs.gpu or facts.gpu:
        return []
    return [Lack(f"an NVIDIA GPU: {facts.no_gpu or 'it tells of none'}", "use a machine with an NVIDIA GPU and its driver")]


def _remedy(module: str, facts: Facts) -> str:
    if module == "tensorrt" and facts.l4t:
        return "sudo apt install nvidia-jetpack"
    if module == "onnxruntime" and facts.l4t:
        return f"{facts.python} -m pip install onnxruntime, or NVIDIA's build of it for this JetPack to use the GPU"
    if module == "coremltools" and facts.system != "Darwin":
        return "use a Mac: Core ML is a part of Apple's systems"
    if module == "cuda.bindings":
        major = facts.cuda.partition(".")[0]
        return f"{facts.python} -m pip install " + (f"'cuda-bindings<{int(major) + 1}'" if major.isdecimal() else "cuda-bindings")
    return f"{facts.python} -m pip install {module.replace('_', '-')}"


def _room(facts: Facts, needs: Needs) -> list[Lack]:
    found = []
    if not facts.writable:
        found.append(Lack(f"a folder for its cache: {facts.cache} cannot be written", "set XDG_CACHE_HOME there to a folder of the user's"))
    elif facts.disk is not None and facts.disk < (disk := _least(facts, needs)):
        remedy = "free some of its disk, or ask for less at once: fewer artefacts, fewer samples"
        found.append(Lack(f"room: {_mib(disk)} are needed in {facts.cache}, {_mib(facts.disk)} are free", remedy))
    if facts.memory is not None and facts.memory < needs.memory:
        found.append(Lack(f"memory: {_mib(needs.memory)} are needed, {_mib(facts.memory)} are free", "end other programs there"))
    return found


def _least(facts: Facts, needs: Needs) -> int:
    """Bytes that must be free whatever is there already: of what is kept there, all may be of what is to be sent."""
    return needs.disk + (0 if facts.kept is None else max(0, needs.sent - facts.kept))


def notes(facts: Facts) -> list[str]:
    """What stands in nobody's way, and must be known of the figures."""
    found = []
    if facts.emulator:
        found.append(f"an emulated processor ({facts.emulator}): what it answers counts, and no time that it takes")
    if abs(facts.clock) > _FARTHEST_CLOCK:
        found.append(f"its clock is {_duration(abs(facts.clock))} {'ahead of' if facts.clock > 0 else 'behind'} this machine's")
    if facts.holder:
        found.append(f"somebody works there now, who says to be: {facts.holder}")
    return found


def release(l4t: str) -> str:
    """A Jetson's release out of the line that its file begins with: ``36.4.0``."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", l4t)
    return f"{match[1]}.{match[2]}" if match else l4t


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


def _duration(seconds: float) -> str:
    for length, unit in ((365.25 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
