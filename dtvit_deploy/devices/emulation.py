"""Whether the processor is a real one: what an emulated one takes says nothing of any device.

No program is told in so many words that it is emulated; what shows it is looked at from several sides. Whoever knows better says so in the
variable `EMULATED`.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

EMULATED = "DTVIT_DEPLOY_EMULATED"
"""Variable that says that the processor is emulated, and by what."""
_FAMILIES = {"aarch64": "arm", "arm64": "arm", "armv7l": "arm", "x86_64": "x86", "amd64": "x86", "i686": "x86"}


def emulated(root: Path = Path("/")) -> str:
    """What emulates the processor that this process runs on; empty where nothing is seen to.

    ``qemu-user`` answers a question after ``/proc/self/exe`` as the emulated system would, by that very name; by another name of the same
    file it is the kernel that answers, and tells the emulator.
    """
    if told := os.environ.get(EMULATED):
        return told
    if "QEMU_CPU" in os.environ:
        return "qemu-user (QEMU_CPU is set)"
    cpu = _text(root / "proc/cpuinfo")
    if model := re.search(r"^model name\s*:\s*(.*(?:QEMU TCG|VirtualApple).*)$", cpu, re.MULTILINE):
        return model[1].strip()
    family = _FAMILIES.get(platform.machine())
    for line, kind in ((r"^vendor_id\s*:", "x86"), (r"^CPU implementer\s*:", "arm")):
        if family and family != kind and re.search(line, cpu, re.MULTILINE):
            return f"an emulator: the system says {platform.machine()}, and /proc/cpuinfo is of the family {kind}"
    return _program_behind(root)


def _program_behind(root: Path) -> str:
    """The emulator that the kernel has behind this process, where it is not the program that the process is told."""
    told = _link(f"{root}/proc/self/exe")
    for name in ("proc/thread-self/exe", "proc/./self/exe"):
        kernels = _link(f"{root}/{name}")  # no Path, which would make the usual name of it
        if kernels and (kernels != told or re.match(r"(?i)qemu-|box64|fex", Path(kernels).name)):
            return f"{Path(kernels).name}, which runs this system's programs"
    return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - as above
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
