"""A folder of the command's own for temporary files, which is gone when the command is, however that ends.

Libraries leave what they make in the temporary folder to the interpreter's own end: coremltools a whole package for each export. That end
never comes (`failure.leave`), nor would it after a crash in native code. So they are given a folder of ours, by the variable that Python,
native code and child processes all read; a command that calls another in the same process has its own. Of a process that was killed it
stays, and the next command removes it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dtvit_deploy.artifacts.scratch import scratch_folder, temporary_folder

VARIABLE = "TMPDIR"
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where Python's getpass looks for who the user is. torch wants to know, for the name of a folder in the temporary one; where no variable
says it, the C library is asked, which asks a socket first, and fails for a user without a name, as in many a container."""


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """While in the block, temporary files of this process and its children are made in a folder that goes with the block.

    Where none can be made (a full disk, no place that can be written), the system's own places are left as they are: whatever needs one
    says so, and what needs none goes on.
    """
    before = {name: os.environ.get(name) for name in (VARIABLE, *NAMES)}
    with contextlib.ExitStack() as at_end:
        with contextlib.suppress(OSError):
            folder = at_end.enter_context(scratch_folder(_made))
            at_end.callback(_use, before)
            _use({VARIABLE: str(folder)})
            if not any(before[name] for name in NAMES):
                _use({"LNAME": "user"})  # of the four the one that nothing else reads
        yield


def _made() -> tuple[Path, int]:
    """The folder and the lock that tells others that its owner lives, in the first place that takes one.

    Raises:
        FileNotFoundError: none does.
    """
    # Not tempfile's own search: that writes a file in each place to see whether it can, and takes longer to import than all of this.
    asked = [os.environ.get(name) for name in (VARIABLE, "TEMP", "TMP")]
    for place in filter(None, [*asked, "/tmp", "/var/tmp"]):
        with contextlib.suppress(OSError):
            if not Path(place).is_dir():  # to make the place itself is not ours
                continue
            return temporary_folder(place)
    raise FileNotFoundError


def _use(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "tempfile" in sys.modules:
        import tempfile

        tempfile.tempdir = None  # what it found before
