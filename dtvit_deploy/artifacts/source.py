"""Which of this package's source a module's results depend on: its own, and that of whatever it imports of the package, at any depth.

The version alone does not change while one works on the package, and the source of all of it changes with every word of a report. Imports
are read from the text, those inside functions too, so that nothing is imported to find out.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection
from pathlib import Path

import dtvit_deploy

ROOT = Path(dtvit_deploy.__file__).parent
_IMPORT = re.compile(r"^[ \t]*from (dtvit_deploy[\w.]*) import (\([^)]*\)|[^\n#]+)|^[ \t]*import (dtvit_deploy[\w.]+)", re.MULTILINE)


@functools.cache
def source_digest(module: str) -> str:
    """SHA-256 of the source of ``module`` and of every module of the package that it may come to import.

    Args:
        module: full name, ``dtvit_deploy.pipeline.openvino``.
    """
    digest = hashlib.sha256()
    for name in sorted(depends_on(module)):
        digest.update(f"{name}\0".encode() + _path(name).read_bytes() + b"\0")
    return digest.hexdigest()


def depends_on(module: str, besides: Collection[str] = ()) -> frozenset[str]:
    """``module`` and the modules of the package that it imports, those that they import, and so on; without some, and what only they need.

    Args:
        module: full name.
        besides: full names of those that are left out.
    """
    found, left = {module}, [module]
    while left:
        for name in _imported(left.pop()) - found - set(besides):
            found.add(name)
            left.append(name)
    return frozenset(found)


@functools.cache
def _imported(module: str) -> frozenset[str]:
    found: set[str] = set()
    for package, names, plain in _IMPORT.findall(_path(module).read_text(encoding="utf-8")):
        if plain:
            found.add(plain)
            continue
        parts = (part.split(" as ")[0].strip() for part in names.strip("()").replace("\n", " ").split(","))
        found |= {full if _exists(full := f"{package}.{part}") else package for part in parts if part}
    return frozenset(name for name in found if _exists(name))


def _exists(module: str) -> bool:
    return _path(module).is_file()


def _path(module: str) -> Path:
    place = ROOT.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if (place / "__init__.py").is_file() else place.with_suffix(".py")
