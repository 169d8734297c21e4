"""The agent as one file: every module of this package that it may come to import, and what a device lacks.

Modules lie in it as they are, uncompressed: its bytes, and so its digest, follow from the source alone, on every machine. It begins with
``__main__.py``, so that Python runs it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.source import ROOT, depends_on

ROOTS = ("dtvit_deploy.agent.__main__", "dtvit_deploy.agent.worker", "dtvit_deploy.agent.tasks", "dtvit_deploy.process.telemetry")
"""What is started by name, and what the package itself imports."""
LEFT_OUT = ("dtvit_deploy.runtimes.mil.load", "dtvit_deploy.runtimes.mil.names")
"""What evaluates Core ML's programs without Core ML, which a session asks for the nodes of a compute plan alone, and does without."""
_CARRIED = ROOT / "agent" / "carried"
_BEGIN = b"""import sys

if sys.version_info < (3, 10):
    sys.exit("this needs Python 3.10 or later, and " + sys.executable + " is " + sys.version.split()[0])
from dtvit_deploy.agent.__main__ import main

main()
"""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Archive(NamedTuple):
    """The agent's archive.

    Attributes:
        content: of the file.
        sha256: of that, by which a device knows it.
        modules: of this package that are in it.
    """

    content: bytes
    sha256: str
    modules: tuple[str, ...]


@functools.cache
def agent_archive() -> Archive:
    """The agent of this version, made once."""
    modules = tuple(sorted(_closure()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [("__main__.py", _BEGIN), *_files(modules)]:
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content)
    content = buffer.getvalue()
    return Archive(content, hashlib.sha256(content).hexdigest(), modules)


def _closure() -> set[str]:
    """The modules, and the packages that they lie in: those are imported with them, and import others in turn."""
    found: set[str] = set()
    left = set(ROOTS)
    while left:
        for module in left:
            found |= depends_on(module, LEFT_OUT)
        parents = {name.rpartition(".")[0] for name in found} - found
        left = parents - {"", "dtvit_deploy"}
        if not left:
            return found | {"dtvit_deploy"}  # of whose imports most are for type checkers alone
    return found


def _files(modules: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for module in modules:
        path = ROOT.joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        yield _name(path, ROOT.parent), path.read_bytes()
    for path in sorted(_CARRIED.glob("*/**/*.py")):
        yield _name(path, _CARRIED), path.read_bytes()


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
