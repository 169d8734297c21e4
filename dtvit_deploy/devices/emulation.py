"""Whether the processor is a real one: what an emulated one takes says nothing of any device.

No program is told in so many words that it is emulated; what shows it is looked at from several sides. Whoever knows better says so in the
variable `EMULATED`.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

EMULATED = "DTVIT_DEPLOY_EMULATED"
"""Variable that says that the processor is emulated, and by what."""
_FAMILIES = {"aarch64": "arm", "arm64": "arm", "armv7l": "arm", "x86_64": "x86", "amd64": "x86", "i686": "x86"}


def emulated(root: Path = Path("/")) -> str:
    """What emulates the processor that this process runs on; empty where nothing is seen to.

    ``qemu-user`` answers for ``/proc/self`` as the emulated system would, but not for the processes that this one starts: the program
    behind them is the emulator.
    """
    if told := os.environ.get(EMULATED):
        return told
    if "QEMU_CPU" in os.environ:
        return "qemu-user (QEMU_CPU is set)"
    told = _text(root / "proc/cpuinfo")
    if model := re.search(r"^model name\s*:\s*(.*(?:QEMU TCG|VirtualApple).*)$", told, re.MULTILINE):
        return model[1].strip()
    if re.search(r"^vendor_id\s*:", told, re.MULTILINE) and _FAMILIES.get(platform.machine()) == "arm":
        return f"an emulator: the system says {platform.machine()}, and /proc/cpuinfo is an x86 processor's"
    if re.search(r"^CPU implementer\s*:", told, re.MULTILINE) and _FAMILIES.get(platform.machine()) == "x86":
        return f"an emulator: the system says {platform.machine()}, and /proc/cpuinfo is an ARM processor's"
    return _emulator_of_a_child()


def _emulator_of_a_child() -> str:
    """The program that the system has behind a process of ours, where that is an emulator."""
    if sys.platform != "linux":
        return ""
    try:
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
            program = str(Path(f"/proc/{child.pid}/exe").readlink())
            words = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
    name = next((name for one in (program, words) if re.match(r"qemu|box64|fex", name := Path(one).name, re.IGNORECASE)), "")
    return f"{name}, which runs this system's programs" if name else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
