"""Output that is whole or absent: written beside its final place, and moved there when it is done.

Beside it and not in the system's temporary folder, so that the move is one rename on one file system. A block that fails or is
interrupted leaves nothing. A process that is killed leaves a hidden ``.partial-PID-RANDOM`` folder, which the next writer of the
same folder removes (`dtvit_deploy.artifacts.scratch`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from dtvit_deploy.artifacts.scratch import locked_folder, remove_abandoned, remove_empty, scratch_folder
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.process.ending import changing_names, uninterrupted

_PARTIAL = re.compile(r"\.partial-\d+-[0-9a-f]{8}")
_FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f`)",
}
_DESCRIBES = ".json"
_FULL_BELOW = 64 << 10
"""Bytes free: what a writer that ran out of space leaves is less than one of its blocks."""
_ELSEWHERE = "choose another output folder"


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder`` to write a set of files to; they are moved into ``folder`` when the block ends well.

    Sub-folders are kept. Each file replaces an older one in one step. A file that has its description in the set (``model.onnx`` and
    ``model.onnx.json``) is absent or the one described, even where the process is killed while they move; so is a folder with one, which
    replaces an older folder whole. An interruption waits meanwhile; if a file cannot be moved, those before it are moved back. Whatever
    else ``folder`` holds stays. When the block fails, everything it wrote is removed, and with it the folders that were made for it.

    Raises:
        InputError: the folder cannot be made or written, a file or a folder is in the way, or the disk is full.
    """
    folders_made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    with scratch_folder(functools.partial(_open_stage, folder, folders_made), folders_made) as stage:
        ours = stage
        try:
            remove_abandoned(folder, _PARTIAL)
            yield stage
            _settle(stage)
            ours = folder
            with uninterrupted(), changing_names:
                _move_all(stage, folder)
                folders_made.clear()
        except DeployError:
            raise
        except Exception as error:
            _explain(error, folder, ours)
            raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden path of the same name to write one file to; moved to ``path`` when the block ends well, as in `staged`.

    Raises:
        InputError: as in `staged`, or ``path`` is something else than a file.
    """
    with staged(path.parent) as stage:
        if path.is_dir():
            raise InputError(f"{path} is a folder, and a file is to be written there", remedy="give the name of a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a device or a pipe, which a file would take the place of", remedy="give the name of a file")
        part = stage / path.name
        yield part
        if not part.is_file():
            raise RuntimeError(f"nothing was written to {part}")


def _open_stage(folder: Path, folders_made: list[Path]) -> tuple[Path, int]:
    try:
        return locked_folder(folder, f".partial-{os.getpid()}-")
    except OSError as error:
        remove_empty(folders_made)
        in_the_way = (path for path in (folder, *folder.parents) if os.path.lexists(path) and not path.is_dir())
        file = next(in_the_way, None)
        reason = f"{file} is not a folder" if file else error.strerror
        raise InputError(f"cannot write to the folder {folder}: {reason}", remedy=_ELSEWHERE) from error


def _settle(stage: Path) -> None:
    """Make the files as readable as the umask lets them be, and have their bytes on the disk before their names.

    After a power cut (pulling the plug is how many a device is switched off) a file system may show a new name with nothing in it:
    half made. The folder itself is not flushed: the move may then be lost, which leaves the older file, and that one is whole.
    """
    permissions = stage.stat().st_mode & 0o666  # what the umask leaves of it; asking for the umask itself would change it
    for file in _files(stage):
        file.chmod(stat.S_IMODE(file.stat().st_mode) | permissions)  # safetensors makes files that only their owner can read
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_all(stage: Path, folder: Path) -> None:
    """Give every file of ``stage`` its final name in ``folder``, or none of them.

    A description comes before its file, and an older file goes before the new description comes.
    """
    with contextlib.ExitStack() as undo:
        for number, source in enumerate(sorted(_units(stage), key=_place)):
            final = folder / source.relative_to(stage)
            undo.callback(remove_empty, [path for path in final.parents if not path.exists()])
            final.parent.mkdir(parents=True, exist_ok=True)
            described, ours = final.with_suffix(""), source.with_suffix("")
            alike = (ours.is_file() and described.is_file()) or (ours.is_dir() and described.is_dir())
            if source.suffix == _DESCRIBES and alike:
                aside = stage / f".described-{number}"
                described.replace(aside)
                undo.callback(aside.replace, described)
            if os.path.lexists(final):
                former = stage / f".former-{number}"
                with contextlib.suppress(OSError):  # a file system without hard links: the older file cannot be kept
                    os.link(final, former)
                    undo.callback(former.replace, final)
            else:
                undo.callback(_remove, final)
            source.replace(final)
        undo.pop_all()


def _place(file: Path) -> tuple[Path, bool]:
    """Sorts files by path, a description before its file."""
    return (file.with_suffix(""), False) if file.suffix == _DESCRIBES else (file, True)


def _files(stage: Path) -> list[Path]:
    return sorted(path for path in stage.rglob("*") if path.is_file())


def _units(stage: Path) -> list[Path]:
    """What has a name of its own: every file, but where a folder has a description, that folder in place of its files."""
    files = _files(stage)
    whole = {path.with_suffix("") for path in files if path.suffix == _DESCRIBES and path.with_suffix("").is_dir()}
    return [*whole, *(path for path in files if whole.isdisjoint(path.parents))]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _explain(error: Exception, folder: Path, ours: Path) -> None:
    """Raise an `InputError` if ``error`` comes from writing into ``ours``; what else goes wrong in a block is not this file's."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in _FULL and (os.strerror(errno.ENOSPC) in str(error) or _is_full(ours)):
        number = errno.ENOSPC
    if number in _FULL:
        raise InputError(
            f"cannot write to the folder {folder}: {os.strerror(number)}", remedy=f"{_FULL[number]}, or {_ELSEWHERE}"
        ) from error
    if not isinstance(error, OSError):
        return
    for name in (error.filename, error.filename2):
        if isinstance(name, str | os.PathLike) and ours in Path(name).parents:
            raise InputError(f"cannot write {Path(name).name} to the folder {folder}: {error.strerror}", remedy=_ELSEWHERE) from error


def _is_full(folder: Path) -> bool:
    # Writers in C++ report a full disk in words of their own ("unexpected pos 64 vs 0", "Protobuf serialization failed").
    try:
        return shutil.disk_usage(folder).free < _FULL_BELOW
    except OSError:
        return False
