"""Whether memory ran out: libraries say so in a class or in words of their own, often as if something else were wrong with them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from dtvit_deploy.errors import DeployError

_SAID = re.compile(
    r"bad.?alloc|(?:cannot|can't|could not|failed to|unable to) (?:re)?alloc|(?:not enough|out of|insufficient) memory"
    r"|failed to map segment|could not create a (?:memory|primitive)(?! desc)|can't start new thread",
    re.IGNORECASE,
)
"""Of C++, of the C library, of the dynamic loader, of NumPy, torch, ONNX Runtime and oneDNN; a thread that cannot start lacks its stack.
That oneDNN could not create a descriptor says that it has no code for something."""

_KILLS = re.compile(r"^oom_kill (\d{1,18})$", re.MULTILINE | re.ASCII)


def ran_out(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, tells that no memory was to be had."""
    return any(isinstance(one, MemoryError) or _SAID.search(_text(one)) for one in _chain(error))


def while_loading(error: BaseException) -> bool:
    """Whether it ran out as a library was loaded: then that is what is missing, and no input is to blame."""
    return any(isinstance(one, ImportError) or "failed to map segment" in _text(one) for one in _chain(error))


def words(error: BaseException) -> str:
    """The line in which it says so; empty where it has no words for it."""
    lines = (line.strip() for one in _chain(error) for line in _text(one).splitlines())
    return next((line for line in lines if _SAID.search(line)), "")


def at_the_limit() -> bool:
    """Whether this process has used up nearly all addresses that it may have (`ulimit -v`): what then fails, fails in any words."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):
        return False
    peak = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmPeak:")), 0)
    return most != resource.RLIM_INFINITY and peak > 0.9 * most


def killed_for_it(root: Path = Path("/")) -> int:
    """How many processes the system has ended for a lack of memory, on this machine and in this process's control group; 0 where untold.

    Kernel: admin-guide/cgroup-v2.rst (``memory.events``); ``oom_kill`` of ``/proc/vmstat``. Such an end is a SIGKILL like any.
    """
    places = [root / "proc/vmstat", root / "sys/fs/cgroup/memory.events"]
    with contextlib.suppress(OSError):
        group = (root / "proc/self/cgroup").read_text().rpartition("0::")[2].partition("\n")[0]
        places.append(root / "sys/fs/cgroup" / group.lstrip("/") / "memory.events")
    found = 0
    for place in dict.fromkeys(places):
        with contextlib.suppress(OSError):
            found += sum(int(number) for number in _KILLS.findall(place.read_text()))
    return found


def _text(error: BaseException) -> str:
    """What a library said. A message of this package's own holds names that the user chose, and so does an OSError behind its reason."""
    if isinstance(error, DeployError):
        return ""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
