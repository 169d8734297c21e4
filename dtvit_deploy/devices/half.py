"""Whether this machine's ARM64 cores have arithmetic in FP16; `probe.sh` asks the same before there is any of this package on a device."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

HALF = "FP16 arithmetic"
"""What a device calls that, of itself."""
_HWCAP, _BOTH = 16, 3 << 9
"""Key of Linux's auxiliary vector, and its bits HWCAP_FPHP and HWCAP_ASIMDHP (arch/arm64/include/uapi/asm/hwcap.h)."""
_APPLE = ("sysctl", "-n", "hw.optional.arm.FEAT_FP16")


def half() -> bool | None:
    """Whether they have; None for other processors, and where nothing says so."""
    system, machine = os.uname().sysname, os.uname().machine
    if (system, machine) == ("Darwin", "arm64"):
        return _apple()
    if machine != "aarch64" or sys.maxsize <= 1 << 32:  # in a 32-bit process the bits mean something else
        return None
    try:
        ask = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return None
    ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return bool(ask(_HWCAP) & _BOTH == _BOTH)


def _apple() -> bool | None:
    try:
        said = subprocess.run(_APPLE, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"1": True, "0": False}.get(said)
