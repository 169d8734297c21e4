"""The command line in a process of its own, as a person or a script runs it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.artifacts.artifact import sha256_of
from warm import WarmStart

DEPLOY = str(Path(sys.executable).with_name("dtvit-deploy"))
Done = subprocess.CompletedProcess[str]
LONGEST = 900
"""Seconds until a command is taken for one that hangs."""
_WARM = WarmStart()


def answering() -> None:
    """Called in a child before its program is there: it answers every signal, as what was begun at a terminal does.

    Shells and nohup have jobs in the background ignore some, and the tests may be such a job.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def processor_seconds() -> float:
    """What children that have ended took of the processor until now: unlike time on the wall, it does not grow with what else is done."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def deploy(
    *arguments: object,
    cwd: Path | None = None,
    code: int | None = 0,
    before: str = "",
    limit: Callable[[], None] | None = None,
    fresh: bool = False,
    **env: str,
) -> Done:
    """Run it to its end, in a process that is forked from one that has imported the frameworks, where that makes no difference.

    Args:
        arguments: the command and its options.
        cwd: the user's folder.
        code: what it must exit with; None lets it be any.
        before: Python that its process runs first, to take something away from it or to make it brief.
        limit: is called in that process before Python is there, to bound what it may use.
        fresh: starts Python anew, with another seed for its hashes: for what must not depend on their order.
        env: variables besides those of the tests.
    """
    script = f"import sys\n{before}\nfrom dtvit_deploy.__main__ import main\nsys.argv[0] = 'dtvit-deploy'\nmain()"
    start = [sys.executable, "-c", script] if before else [DEPLOY]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | env  # no test takes the bytecode of a user's module for litter
    words = [*map(str, arguments)]
    if not (before or limit or fresh) and _WARM.serves(environment):
        done = _WARM.run(words, cwd, environment, LONGEST)
    else:
        done = subprocess.run(
            [*start, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False, preexec_fn=limit
        )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def tree(folder: Path) -> dict[str, str]:
    """Everything in a folder, hidden or not, by content."""
    paths = (path for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): sha256_of(path) if path.is_file() else "folder" for path in paths}


def refused(*arguments: object, cwd: Path, code: int = 2, out: bool = True, limit: Callable[[], None] | None = None, **env: str) -> str:
    """The one message of a command that must fail in the folder ``cwd``, and leave it, and the cache, as they were.

    ``out`` gives it an output folder besides, which may not come to be.
    """
    cache = Path(env.get("DTVIT_DEPLOY_CACHE", os.environ["DTVIT_DEPLOY_CACHE"]))
    was = tree(cwd)
    done = deploy(*arguments, *(("-o", "new/out") if out else ()), cwd=cwd, code=code, limit=limit, **env)
    assert done.stdout == ""
    assert tree(cwd) == was
    assert not list(cache.glob(".*"))
    lines = done.stderr.splitlines()
    told = next(index for index, line in enumerate(lines) if re.match("[eE]rror: ", line))
    assert all(line.startswith(("· ", "Usage: ", "Try ")) or not line for line in lines[:told]), done.stderr
    assert "Traceback" not in done.stderr
    return "\n".join(lines[told:])


def begun(said: str) -> list[str]:
    """Names of the stages that a command said it began."""
    return re.findall(r"^· \d+ of \d+: (.+?)(?: \(after .+\))?$", said, re.MULTILINE)
