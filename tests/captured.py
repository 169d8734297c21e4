"""What devices and their tools say, as `tests/captures` has it: text of a tool, or files of a kernel laid out in a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dtvit_deploy.devices.state.source import Source

FOLDER = Path(__file__).parent / "captures"


def lines(name: str) -> list[str]:
    """A capture without its first line, which names the document that it follows."""
    first, *others = (FOLDER / name).read_text().splitlines()
    assert first.startswith("# source: "), f"{name} does not say what document it follows"
    return others


def told(name: str) -> str:
    """What a tool says."""
    return "\n".join(lines(name)) + "\n"


class Tree:
    """Files of a kernel in a folder. One that answers EAGAIN is a pipe that somebody holds open; one that may not be read is no file."""

    def __init__(self, root: Path, listed: list[str]) -> None:
        self.root = root
        self._held: list[int] = []
        for line in listed:
            path, _, content = line.partition(" = ")
            self.put(path, content)

    def put(self, path: str, content: str) -> None:
        """Have a file say something else."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            file.rmdir()
        elif file.exists():
            file.unlink()
        if content == "<again>":
            os.mkfifo(file)
            self._held.append(os.open(file, os.O_RDWR | os.O_NONBLOCK))
        elif content == "<closed>":
            file.mkdir()
        else:
            file.write_text(content.replace("\\n", "\n").replace("\\0", "\0") + "\n")

    def close(self) -> None:
        for file in self._held:
            os.close(file)


def program(folder: Path, name: str, script: str) -> None:
    """A device's program that does what a script of a shell says."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def until_told(source: Source, seconds: float = 30.0) -> list[float | None]:
    """What a source tells next."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = list(source.read())
        if any(value is not None for value in found):
            return found
        time.sleep(0.02)
    raise AssertionError("nothing was told")
