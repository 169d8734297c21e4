"""A Python process of its own: for what must start fresh, or might crash, or must not be believed until it was tried.

It ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux's prctl."""
_LOOKS = 0.5
"""Seconds between two looks at who the parent is, where the kernel does not tell of its end."""

BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); import dtvit_deploy; "
"""What each of them does first, by which they are known in a list of processes."""


def child_command(code: str, *arguments: str) -> list[str]:
    """The command that runs ``code`` with this process's own import path; ``sys.argv[1:]`` are the arguments.

    Not with the child's own path: that begins with the working folder, where any file may have a package's name and would be run. This
    package comes first, since it keeps the libraries that ``code`` imports from reporting home.
    """
    isolated = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]  # which ignores the variable that says so
    begin = f"{BEGIN}from dtvit_deploy.process.child import end_with; end_with({os.getpid()}); "
    return [sys.executable, *isolated, "-c", begin + code, json.dumps(sys.path), *arguments]


def end_with(parent: int) -> None:
    """End this process when the one of that number, which started it, has ended.

    On Linux the kernel sees to it, whatever native code runs here; elsewhere a thread looks. The kernel counts the end of the *thread*
    that started this process, so that a thread which starts one must wait for it.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # it ended before it could be told
                os._exit(1)
            return
    threading.Thread(target=_end_after, args=(parent,), name="end_with", daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os._exit(1)


def addresses() -> int:
    """Bytes of addresses that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def limit(*, memory: int, seconds: int) -> None:
    """Bound what this process may use, where the system can: more ends it, or fails within it.

    Args:
        memory: bytes of addresses.
        seconds: of processor time, of all threads together.
    """
    with contextlib.suppress(ImportError):
        import resource

        for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
            with contextlib.suppress(OSError, ValueError):  # a lower one is set already, or macOS, which bounds no addresses
                hard = resource.getrlimit(kind)[1]
                resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
