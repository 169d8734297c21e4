"""What a command does behind one's back: its sockets, processes and files, as the kernel was asked for them.

Python's own audit hooks do not see native code, which is where runtimes open sockets and write files; strace sees both, and children too.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commandline import answering
from dtvit_deploy.process.child import BEGIN

STRACE = shutil.which("strace")
CALLS = (
    "socket,socketpair,fork,vfork,clone,clone3,execve,execveat,open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat"
)
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?.*")
_WRITING = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC|TMPFILE)")
_PLACE = re.compile(r"(?:\w+<([^>]*)>, )?(\"(?:[^\"\\]|\\.)*\")")
_DEVICES = ("/dev/null", "/dev/tty", "/dev/full")
_OWN = re.compile(r"/proc/\d+/clear_refs")
"""Has the kernel forget the greatest memory of a process: a process that measures its own writes there."""


def why_not() -> str:
    """Why nothing can be traced here; empty where it can."""
    if STRACE is None:
        return "strace is not installed, which alone sees what native code does"
    done = subprocess.run([STRACE, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Traced:
    """What a command did.

    Attributes:
        code: its exit code.
        said: its standard error.
        sockets: each call for one, of whatever family.
        forks: processes that this package did not start for a purpose of its own: what each became.
        written: every file and folder that was made, opened for writing or given a new name, devices apart.
    """

    code: int
    said: str
    sockets: list[str] = field(default_factory=list)
    forks: list[str] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)

    def outside(self, *allowed: Path) -> list[Path]:
        """What was written that lies in none of these folders, and is none of them."""
        return sorted(path for path in self.written if not any(path == root or root in path.parents for root in allowed))


def traced(command: Sequence[str], cwd: Path, env: dict[str, str], log: Path, at: int = 0, number: signal.Signals | None = None) -> Traced:
    """Run a command under strace to its end.

    Args:
        command: it and its arguments.
        cwd: its folder.
        env: the whole of its environment.
        log: folder for the traces, which must not exist.
        at: when it has told of so many steps …
        number: … it is sent this.
    """
    assert STRACE is not None
    log.mkdir()
    strace = [STRACE, "-ff", "-y", "-s", "65536", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log / "trace")]
    process = subprocess.Popen(
        [*strace, *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=answering,
    )
    hang = threading.Timer(900, process.kill)  # which ends what it traces too
    hang.start()
    assert process.stderr is not None
    said, steps = [], 0
    for line in process.stderr:
        said.append(line)
        steps += line.startswith("· ")
        if number is not None and steps == at:
            os.kill(_process_of(command[0], log), number)
            number = None
    process.stderr.close()
    code = process.wait()
    hang.cancel()
    found = Traced(code, "".join(said))
    for file in sorted(log.iterdir()):
        for call, arguments, result, opened in _calls(file):
            _note(found, file, cwd, call, arguments, result, opened)
    return found


def _process_of(program: str, log: Path) -> int:
    """The number of the process that strace began: of its files, one for each thread, the one that begins with the program's own start."""
    begin = f'execve("{program}"'
    return next(int(file.suffix[1:]) for file in log.iterdir() if file.read_text(errors="replace").startswith(begin))


def _calls(file: Path) -> Iterator[tuple[str, str, int, str]]:
    for line in file.read_text(errors="surrogateescape").splitlines():
        if (match := _CALL.fullmatch(line)) and int(match[3]) >= 0:
            yield match[1], match[2], int(match[3]), match[4] or ""
        elif match and match[1].startswith("socket"):
            yield match[1], match[2], -1, ""


def _note(found: Traced, caller: Path, cwd: Path, call: str, arguments: str, result: int, opened: str) -> None:
    if call.startswith("socket"):
        found.sockets.append(f"{call}({arguments})")
    elif call in ("fork", "vfork", "clone", "clone3"):
        became = _became(caller.with_name(f"trace.{result}"))
        if "CLONE_THREAD" not in arguments and not _is_ours(became or _became(caller)):
            found.forks.append(became or "a copy of the command itself")
    elif call in ("open", "openat", "openat2", "creat"):
        if (call == "creat" or _WRITING.search(arguments)) and not opened.startswith(_DEVICES) and not _OWN.fullmatch(opened):
            found.written.add(Path(opened.removesuffix(" (deleted)")))
    elif call not in ("execve", "execveat"):
        folder, name = _PLACE.findall(arguments)[-1]  # the last one is what comes to be
        found.written.add(Path(os.path.normpath(cwd / folder / ast.literal_eval(name))))


def _became(file: Path) -> str:
    """The program that a process turned into, with its arguments; empty where it went on as the one it came from."""
    for call, arguments, _, _ in _calls(file) if file.exists() else ():
        if call == "execve":
            return arguments
    return ""


def _is_ours(program: str) -> bool:
    return f"{BEGIN[:40]}" in program
