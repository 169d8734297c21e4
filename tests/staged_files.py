"""What the tests of staging share: a set of files that is written, what is there afterwards, and a process that may be killed meanwhile."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from commandline import answering
from dtvit_deploy.artifacts.staging import staged

PREAMBLE = """
import os, signal, sys
from pathlib import Path
from dtvit_deploy.errors import InputError
from dtvit_deploy.artifacts.staging import replacing, staged
out = Path(sys.argv[1])
"""


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and every empty folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_text()
        elif not any(path.iterdir()):
            found[f"{path.relative_to(folder)}/"] = ""
    return found


def write(folder: Path, files: dict[str, str], failing: BaseException | None = None) -> None:
    """Write a set of files, then fail if told to."""
    with staged(folder) as stage:
        for name, text in files.items():
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_text(text)
        if failing is not None:
            raise failing


def program(body: str) -> str:
    return PREAMBLE + textwrap.dedent(body)


def run(body: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program(body), str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, preexec_fn=answering)
