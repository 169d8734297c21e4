"""An engine, built on this device by the script that its job brings along, and sent back in parts.

The script is the one that somebody would run here by hand: it checks its own folder, builds, executes the golden samples and compares. It
runs in a process of its own, which ends with the task's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from dtvit_deploy.agent.log import how_ended
from dtvit_deploy.artifacts.artifact import Artifact, manifest_path
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import FORMATS
from dtvit_deploy.formats.job.made import COMES_BACK, PIECE, Made
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.process.child import child_command

OFTEN = 10.0
"""Seconds after which one hears again that it is still being built."""
_SCRIPT = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_REMEMBERED = 40
"""Lines of what the script said last."""
_LONGEST = 4096
"""Bytes of a line of it."""
_WRONG, _ABSENT = 1, 3
"""Exit codes of the script: wrong answers; something is missing."""
Said = Callable[[str], None]
Part = Callable[[bytes], None]


def built(job: Artifact, out: Path, said: Said) -> Path:
    """Build the engine of a job, and have its answers checked.

    Args:
        job: put together here, and checked against its manifest.
        out: an empty folder of this task's own.
        said: told each line that the script says, and now and then that it goes on.

    Returns:
        The engine's folder, beside which its manifest lies.

    Raises:
        InputError: the graph is refused, or the engine answers wrongly.
        MissingError: TensorRT, the driver or a GPU is missing.
    """
    command = child_command(_SCRIPT, str(job.path / "build.py"), "--out", str(out))
    lines: deque[str] = deque(maxlen=_REMEMBERED)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=out, bufsize=0
    ) as process:
        for line in _lines(cast("IO[bytes]", process.stdout)):
            if line:
                lines.append(line)
            said(line)
    status, last = process.returncode, lines[-1].removeprefix("build.py: ") if lines else "it said nothing"
    if status == 0:
        return next(out.glob(f"*.{FORMATS[Flavour.TENSORRT]}"))
    wrong = "; ".join(line.removeprefix("golden, ") for line in lines if line.startswith("golden, "))
    if status == _WRONG and wrong:  # without them it is Python's own code, of an error that nobody foresaw
        raise InputError(
            f"the engine that was built of {job.name} does not answer as it should: {wrong}",
            remedy="verify the job here, where its graph is evaluated; and look at what this release of TensorRT makes of it",
        )
    if status == _ABSENT:
        raise MissingError(f"{job.name} cannot be built: {last}", remedy="install it there")
    if status > 0:
        raise InputError(f"{job.name} cannot be built: {last}", remedy="see what the device's TensorRT refuses")
    raise InputError(f"{job.name} was not built: the process {how_ended(status)}", remedy=f"it said last: {last}")


def sent(engine: Path, most: int, part: Part) -> Made:
    """Send what was built: the manifest, and the files that are not known where it goes.

    Args:
        engine: its folder.
        most: bytes that may be sent.
        part: is given each part, in order.

    Raises:
        InputError: it is larger than that.
    """
    files = {name: engine / name for name in sorted(COMES_BACK) if (engine / name).is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    manifest = manifest_path(engine)
    total = manifest.stat().st_size + sum(sizes.values())
    if total > most:
        raise InputError(f"what was built has {total:,} bytes, and {most:,} are asked for at most", remedy="build it on the device by hand")
    digest = hashlib.sha256()
    for piece in _pieces([manifest, *files.values()]):
        digest.update(piece)
        part(piece)
    return Made(sha256=digest.hexdigest(), manifest=manifest.stat().st_size, files=sizes)


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Path]:
    """A folder within the block, whatever an earlier attempt has left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pieces(paths: list[Path]) -> Iterator[bytes]:
    """Files one behind the other, in parts of one size but for the last."""
    left = bytearray()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(PIECE - len(left)):
                left += piece
                if len(left) == PIECE:
                    yield bytes(left)
                    left.clear()
    if left:
        yield bytes(left)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """What a process says, line by line, and an empty line whenever it has said nothing for a while."""
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(stream, selectors.EVENT_READ)
        while True:
            if not ready.select(OFTEN):
                yield ""
                continue
            piece = os.read(stream.fileno(), _LONGEST)
            *whole, rest = (rest + piece).split(b"\n")
            if not piece or len(rest) > _LONGEST:
                whole, rest = [*whole, rest], b""
            yield from filter(None, (clean(line.decode(errors="replace")).strip() for line in whole))
            if not piece:
                return
