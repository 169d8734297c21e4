"""Whenever an export is interrupted or killed, every artefact is absent or whole, and the next export knows nothing of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from commandline import answering
from dtvit_deploy.artifacts.artifact import load_artifact, manifest_path, sha256_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.plan.performing import MACHINE

DEPLOY = str(Path(sys.executable).with_name("dtvit-deploy"))
EXPORT = ("export", "-m", "tiny:make", "-p", "fp32", "-p", "fp16", "-o", "out")
FILES = ["tiny.make.fp16.onnx", "tiny.make.fp16.onnx.json", "tiny.make.fp32.onnx", "tiny.make.fp32.onnx.json"]
HANGS = 900
"""Seconds after which a process is taken to hang; a busy machine takes many times as long as a free one."""
POINTS = 6
"""Moments of an export, spread over its whole duration, at which each signal is sent."""
NETWORK = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)), (torch.zeros(1, 3, 8, 8),)
"""


def thorough(*values: object) -> object:
    """One more case of what the others show."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def start(work: Path, *command: str) -> subprocess.Popen[str]:
    """An export that has begun: it has said its first word."""
    env = os.environ | {"DTVIT_DEPLOY_CACHE": str(work / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command or (DEPLOY, *EXPORT),
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=answering,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    if first not in ("· 1 of 6: trace\n", "· tracing the network\n"):
        raise AssertionError(first + process.communicate(timeout=HANGS)[1])
    return process


def finish(process: subprocess.Popen[str]) -> str:
    """What it says from then on, progress apart."""
    said = process.communicate(timeout=HANGS)[1]
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("· "))


def whole(folder: Path) -> list[str]:
    """Names of the artefacts in a folder, every one of which must be whole."""
    names = sorted(path.name for path in folder.glob("*.onnx"))
    assert all(load_artifact(folder / name) for name in names)
    return names


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".files"]


def require_whole_entries(cache: Path) -> None:
    entries = [entry for entry in cache.glob("*") if not entry.name.startswith(".") and entry.name != MACHINE]
    for entry in entries:
        listed = json.loads((entry / ".files").read_text())
        assert {name: [(entry / name).stat().st_size, sha256_of(entry / name)] for name in listed} == listed
    artefacts = [path for entry in entries for path in entry.iterdir() if path.suffix in (".onnx", ".pt2")]
    assert artefacts
    assert all(map(load_artifact, artefacts))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder in which an export has ended well: ``out``, and a cache of its own."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "tiny.py").write_text(NETWORK)
    process = start(folder)
    assert (finish(process), process.returncode) == ("", 0)
    assert whole(folder / "out") == FILES[::2]
    return folder


@pytest.fixture
def work(exported: Path, tmp_path: Path) -> Path:
    """Another such folder for each test, which may leave it as it likes."""
    folder = tmp_path / "work"
    shutil.copytree(exported, folder)
    return folder


@pytest.fixture
def cache(work: Path) -> Path:
    return work / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("number", [thorough(signal.SIGINT), signal.SIGTERM, thorough(signal.SIGKILL)], ids=lambda number: number.name)
def test_at_any_moment_of_an_export(number: signal.Signals, work: Path, cache: Path) -> None:
    out, stopped = work / "out", 0
    process, begun = start(work), time.perf_counter()
    assert (finish(process), process.returncode) == ("", 0)
    seconds = time.perf_counter() - begun  # from its first word to its end, as things are now
    for point in range(POINTS):
        for file in out.glob("*"):
            file.unlink(missing_ok=True) if file.is_file() else None  # what a killed one has left stays, for the next to clean up
        if not hidden(work) and out.exists():
            out.rmdir()
        process = start(work)
        time.sleep(seconds * (point + 0.5) / POINTS)
        process.send_signal(number)
        said = finish(process)
        require_whole_entries(cache)
        if process.returncode == 0:  # it was done before the signal came
            assert sorted(path.name for path in out.iterdir()) == FILES
            assert whole(out) == FILES[::2]
            continue
        stopped += 1
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
            whole(out)
        else:
            assert process.returncode == 128 + number
            assert said.count("\n") == 1, said
            assert said.endswith("nothing was left half written\n")
            assert not hidden(cache)
            assert not out.exists() or (sorted(path.name for path in out.iterdir()) == FILES and whole(out))
    assert stopped >= 2  # not half of them: a machine that other work has left meanwhile ends before the signal comes
    process = start(work)
    assert (finish(process), process.returncode) == ("", 0)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert whole(out) == FILES[::2]
    assert not hidden(work)


AT_THE_MOVE = """
import os, signal, sys
from dtvit_deploy.__main__ import main

out, number, left = os.path.abspath("out"), int(sys.argv.pop(1)), int(sys.argv.pop(1))

def paths_of(arguments):
    return [path for path in arguments[:2] if not isinstance(path, int)]

def watch(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove") and any(out in os.path.abspath(path) for path in paths_of(arguments)):
        if left == 0:
            os.kill(os.getpid(), number)
        left -= 1

sys.addaudithook(watch)
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "moves"), [thorough("SIGINT", 1), ("SIGTERM", 4), ("SIGKILL", 1), thorough("SIGKILL", 4)])
def test_while_an_exports_files_are_moved_over_those_of_another(number: str, moves: int, work: Path) -> None:
    out = work / "out"
    assert whole(out) == FILES[::2]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    process = start(work, sys.executable, "-c", AT_THE_MOVE, str(int(signal.Signals[number])), str(moves), *EXPORT, "--seed", str(moves))
    said = finish(process)
    if number == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
        assert hidden(out)
        whole(out)
    else:  # it waited until all were moved
        assert process.returncode == 128 + signal.Signals[number]
        assert said.count("\n") == 1, said
        assert whole(out) == FILES[::2]
        assert all(path.read_bytes() != before[path.name] for path in out.iterdir())
        assert not hidden(work)
    process = start(work)
    assert (finish(process), process.returncode) == ("", 0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from dtvit_deploy.artifacts.staging import staged

source, out, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def watch(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(watch)
with staged(out) as stage:
    for file in source.iterdir():
        shutil.copy(file, stage)
"""


@pytest.mark.parametrize("there", [False, True], ids=["the first", "over another"])
def test_killed_at_every_single_step_that_brings_artefacts_to_their_place(there: bool, exported: Path, tmp_path: Path) -> None:
    """Every change of a name, one after the other, until none is left to be killed at."""
    script, sources = tmp_path / "killed.py", [tmp_path / "one", tmp_path / "two"]
    script.write_text(textwrap.dedent(KILLED))
    one, two = sources
    for folder in sources:
        folder.mkdir()
        for file in (exported / "out").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    for path in two.glob("*.onnx"):  # another export of the same network: other bytes, and a manifest that says so
        old = sha256_of(path)
        path.write_bytes(path.read_bytes() + b"\x7a\x00")
        manifest_path(path).write_text(manifest_path(path).read_text().replace(old, sha256_of(path)))
    killed, states = 0, set()
    while True:
        out = tmp_path / f"out-{killed}"
        if there:
            subprocess.run([sys.executable, str(script), str(one), str(out), "-1"], check=True)
        done = subprocess.run([sys.executable, str(script), str(two), str(out), str(killed)], check=False)
        states.add(tuple(whole(out)))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 6
    assert {(), tuple(FILES[::2])} <= states if not there else tuple(FILES[::2]) in states
    assert all(load_artifact(out / path.name).manifest == load_artifact(path).manifest for path in two.glob("*.onnx"))


def test_an_artefact_that_was_being_replaced_is_never_taken_for_the_other(work: Path) -> None:
    """What the order of moving protects from: a new graph beside an old manifest."""
    path = work / "out" / FILES[2]
    path.write_bytes(path.read_bytes() + b"\x7a\x00")
    with pytest.raises(InputError, match="was changed after export"):
        load_artifact(path)


AT_A_SAMPLE = """
import os, sys
from dtvit_deploy.__main__ import main
from dtvit_deploy.pipeline import observation

observation.SAVE_SECONDS, observation.SAVE_SHARE = 0.0, float("inf")  # how far it is, after every sample
number, left = int(sys.argv.pop(1)), int(sys.argv.pop(1))
is_flat = observation._is_flat

def watched(feed):
    global left
    if left == 0:
        os.kill(os.getpid(), number)
    left -= 1
    return is_flat(feed)

observation._is_flat = watched  # as a sample has been counted
main()
"""
CALIBRATE = ("calibrate", "-m", "tiny:make", "--random-data", "--samples", "12")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, thorough(signal.SIGTERM)], ids=lambda number: number.name)
def test_a_calibration_says_how_much_of_it_is_kept_and_goes_on_from_there(number: signal.Signals, work: Path) -> None:
    out = work / "calibrated"
    ends = {}
    for after, kept in ((0, 0), (7, 7), (2, 9)):  # before anything is saved, and twice in the middle
        command = (sys.executable, "-c", AT_A_SAMPLE, str(int(number)), str(after), *CALIBRATE, "-o", str(out / "ranges.json"))
        process = start(work, *command)
        said = process.communicate(timeout=HANGS)[1]
        assert process.returncode == 128 + number
        assert said.splitlines()[-1].endswith("; nothing was left half written")
        told = [line for line in said.splitlines() if "kept" in line]
        ends[kept] = [re.sub(r" \(after \d+ s\)$", "", line) for line in told]  # which a slow machine adds
        assert [path.name for path in out.glob("*")] == ["ranges.json.unfinished"] * bool(kept)
    assert ends == {
        0: [],
        7: ["· 7 of 12 samples are kept in ranges.json.unfinished: the same command goes on from there"],
        9: ["· 9 of 12 samples are kept in ranges.json.unfinished: the same command goes on from there"],
    }
    process = start(work, DEPLOY, *CALIBRATE, "-o", str(out / "ranges.json"))
    assert "· going on after 9 of 12 samples" in process.communicate(timeout=HANGS)[1]
    assert [path.name for path in out.iterdir()] == ["ranges.json"]


@pytest.mark.slow
def test_an_entry_of_the_cache_that_lost_a_file_is_made_again(work: Path, cache: Path) -> None:
    """As cleaners of old files leave it: the folder is there, and half of what was in it."""
    before = {path.name: path.read_bytes() for path in (work / "out").iterdir()}
    lost = [path for entry in cache.iterdir() for path in entry.iterdir() if path.suffix == ".onnx"]
    for path in lost:
        path.unlink()
    assert len({path.parent for path in lost}) > 4
    process = start(work)
    assert (finish(process), process.returncode) == ("", 0)
    assert {path.name: path.read_bytes() for path in (work / "out").iterdir()} == before
    assert not hidden(cache)
