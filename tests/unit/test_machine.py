"""Many work side by side on a machine, or one measures time, alone: between processes, and whoever dies is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.process.machine import WAITING, at_work

HOLDING = """
import sys
from pathlib import Path
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.machine import at_work
with at_work(Path(sys.argv[1]), print, alone=sys.argv[2] == "alone"):
    print("in", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[object]:
    began: list[subprocess.Popen[str]] = []

    def start(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDING, str(tmp_path), how]
        began.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert began[-1].stdout is not None
        assert began[-1].stdout.readline() == "in\n"
        return began[-1]

    yield start
    for process in began:
        process.kill()
        process.communicate()


def enter(folder: Path, *, alone: bool) -> tuple[threading.Thread, list[str]]:
    said: list[str] = []

    def work() -> None:
        with at_work(folder, said.append, alone=alone):
            said.append("in")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.3)
    return thread, said


def test_several_work_side_by_side(begin, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    begin("with others")
    begin("with others")
    assert enter(tmp_path, alone=False)[1] == ["in"]


def test_who_measures_waits_for_those_at_work_and_keeps_newcomers_out(begin, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = begin("with others")
    measuring, said = enter(tmp_path, alone=True)
    newcomer, told = enter(tmp_path, alone=False)
    assert (said, told) == ([WAITING], [WAITING])
    first.communicate("\n")
    measuring.join(10)
    newcomer.join(10)
    assert (said, told) == ([WAITING, "in"], [WAITING, "in"])


def test_nobody_works_beside_who_measures_until_it_ends_or_is_killed(begin, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    alone = begin("alone")
    thread, said = enter(tmp_path, alone=False)
    assert said == [WAITING]
    alone.kill()
    thread.join(10)
    assert said == [WAITING, "in"]


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    with at_work(tmp_path, print, alone=True):
        pass
    (lock,) = tmp_path.glob("*.room")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be opened"), at_work(tmp_path, print, alone=True):
        pass
    assert not (tmp_path / "elsewhere").exists()
