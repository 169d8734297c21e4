"""What people give for artefacts: files, an export's folder, what a shell makes of a star; and what they give by mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import LARGEST_MANIFEST, NAMES, manifest_path
from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError

MANIFEST, REPORT = "manifest", "report"


def named_artifacts(paths: Sequence[Path]) -> list[Path]:
    """The artefacts that paths stand for, each once: an export's folder for all in it, a manifest (of a shell's ``out/*``) for its own.

    Raises:
        InputError: a folder holds none, or a report was given for one.
    """
    found: list[Path] = []
    for path in paths:
        if is_plain_folder(path):
            inside = artifacts_in(path)
            if not inside:
                raise InputError(
                    f"the folder {path} holds no artefacts: no file in it has its manifest beside it (NAME and NAME.json)",
                    remedy="give what `dtvit-deploy export` wrote",
                )
            found += inside
            continue
        described = path.with_suffix("") if path.suffix == ".json" else path
        if not described.exists() and kind_of_json(path) == REPORT:
            raise InputError(
                f"{path} is a report, and no artefact", remedy="give the artefacts that it is of; `dtvit-deploy report` shows a report"
            )
        found.append(described if described.exists() else path)
    return list(dict.fromkeys(found))


def artifacts_in(folder: Path) -> list[Path]:
    """What in a folder has its manifest beside it."""
    return [one.with_suffix("") for one in sorted(folder.glob("*.json")) if one.with_suffix("").exists()]


def is_plain_folder(path: Path) -> bool:
    """Whether a path is a folder that is no artefact itself, and by its name was none that lost its manifest."""
    is_artefact = bool(path.name) and (manifest_path(path).is_file() or path.suffix[1:] in NAMES)  # the folder "." has no name
    return path.is_dir() and not is_artefact


def kind_of_json(path: Path) -> str:
    """`MANIFEST` or `REPORT`, by the fields of a JSON file; empty for what is neither, or cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_MANIFEST:
            return ""
        content = path.read_bytes()
        require_shallow_json(content)
        fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).keys()
    except (OSError, ValueError):  # msgspec's own is a ValueError
        return ""
    if {"signature", "format", "sha256"} <= fields:
        return MANIFEST
    return REPORT if {"subjects", "command"} <= fields else ""
