"""A device that is this machine: a Python that has numpy and the runtimes and nothing else of ours, with a cache and a lease of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.devices.transport import Finished, LostError, Shell
from dtvit_deploy.remote.bring import HOME
from dtvit_deploy.remote.device import Device
from processes import lives

PACKAGES = ("numpy", "numpy.libs", "onnxruntime", "openvino")
"""What a device's Python has: no msgspec, no onnx, no torch."""


class Board:
    """Such a device in a folder: its cache is ``cache``, its lease ``lease``."""

    def __init__(self, folder: Path, **variables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.python = folder / "python"
        (folder / "packages").mkdir()
        for name in PACKAGES:
            if (place := place_of(name)) is not None:
                (folder / "packages" / name).symlink_to(place)
        settings = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "DTVIT_DEPLOY_LEASE": str(folder / "lease"),
            "DTVIT_DEPLOY_CACHE": str(folder / "none"),
            "PYTHONPATH": str(folder / "packages"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())
        self.python.write_text(f'#!/bin/sh\n{exports}\nexec {shlex.quote(sys.executable)} -S "$@"\n')
        self.python.chmod(0o700)
        self.transport = Counted(folder)

    @property
    def root(self) -> Path:
        """The agent's folder."""
        return self.folder / "cache" / HOME

    def device(self, **options: float) -> Device:
        return Device(self.transport, python=str(self.python), **options)

    def workers(self) -> list[int]:
        """Process groups of the workers that live."""
        found = []
        for lock in self.root.glob("jobs/*/lock"):
            with contextlib.suppress(ValueError, OSError):
                worker = int(lock.read_text())
                if lives(worker):
                    found.append(worker)
        return found

    def processes(self) -> list[str]:
        """Command lines of everything that runs from the agent's folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace")
                if str(self.root) in words:
                    found.append(words.replace("\0", " "))
        return found


class Counted(Shell):
    """A way to the device that counts what goes there, and breaks where a test wants it to.

    Attributes:
        sent: bytes on standard input, by the agent's command.
        cut: called before each command with its words and how many bytes it is given; returns how many of them get through before the
            connection is lost, -1 where the command does not get there either, or None.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sent: list[tuple[str, int]] = []
        self.cut: Callable[[Sequence[str], int], int | None] = lambda words, size: None

    def run(self, command: Sequence[str], *, stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Finished:
        content = stdin if isinstance(stdin, bytes) else stdin.read()
        words = command[4:]
        through = self.cut(words, len(content))
        if through is not None:
            if through >= 0:
                super().run(command, stdin=content[:through], timeout=timeout)
            raise LostError("the connection was cut, as the test wants it")
        self.sent.append((words[0], len(content)))
        return super().run(command, stdin=content, timeout=timeout)

    @contextlib.contextmanager
    def following(self, command: Sequence[str]) -> Iterator[BinaryIO]:
        if self.cut(command[4:], 0) is not None:
            raise LostError("the connection was cut, as the test wants it")
        with super().following(command) as stream:
            yield cast(BinaryIO, _Cut(stream, lambda: self.cut(command[4:], 0) is not None))

    def moved(self, *commands: str) -> int:
        """Bytes that went there for these commands."""
        return sum(size for command, size in self.sent if command in commands)


class _Cut(io.RawIOBase):
    """A stream that ends once the connection is cut."""

    def __init__(self, stream: BinaryIO, cut: Callable[[], bool]) -> None:
        self._stream, self._cut = stream, cut

    def read(self, size: int = -1) -> bytes:
        return b"" if self._cut() else self._stream.read(size)


@contextlib.contextmanager
def killed_later(board: Board) -> Iterator[None]:
    """Whatever a test has left running there ends with it."""
    try:
        yield
    finally:
        for worker in board.workers():
            with contextlib.suppress(OSError):
                os.killpg(worker, signal.SIGKILL)


def place_of(name: str) -> Path | None:
    """Where a package of the tests' own Python is, or a module of one file."""
    if name.endswith(".py"):
        module = importlib.util.find_spec(name.removesuffix(".py"))
        return Path(module.origin) if module and module.origin else None
    if name.endswith(".libs"):
        numpy = place_of(name.removesuffix(".libs"))
        beside = numpy.with_name(name) if numpy else None
        return beside if beside is not None and beside.is_dir() else None
    found = importlib.util.find_spec(name)
    if found is None:
        return None
    return Path(found.origin).parent if found.origin else Path(next(iter(found.submodule_search_locations or ())))
