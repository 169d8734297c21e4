"""Whether this machine's ARM cores have arithmetic in FP16, which decides in what ONNX Runtime adds the products of FP16.

It is asked as runtimes ask: `/proc/cpuinfo` may be that of the machine around an emulator. ``probe.sh`` asks the same of a device on which
nothing of ours is yet.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

_AT_HWCAP = 16
_FPHP, _ASIMDHP = 1 << 9, 1 << 10
"""Bits of it in a 64-bit process (``asm/hwcap.h``): scalar arithmetic, and that of vectors."""
_BRIEFLY = 5.0


def half_arithmetic() -> bool | None:
    """Whether they have; None where nothing says so, and for other processors."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return _of_apple()
    if platform.machine() != "aarch64" or sys.maxsize < 1 << 32:
        return None
    try:
        ask = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):  # a C library without it
        return None
    ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(ask(_AT_HWCAP)) & (_FPHP | _ASIMDHP) == _FPHP | _ASIMDHP


def _of_apple() -> bool | None:
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "hw.optional.arm.FEAT_FP16"],
            capture_output=True,
            timeout=_BRIEFLY,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {b"1": True, b"0": False}.get(done.stdout.strip())
