"""`calibrate` as a person runs it: a killed one goes on and ends with the same bytes, and every message says what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commandline import DEPLOY, deploy
from dtvit_deploy.calibration.ranges import load_ranges
from networks import IMAGES

pytestmark = pytest.mark.slow
KILLED = """
import os, signal, sys
from dtvit_deploy.__main__ import main
from dtvit_deploy.pipeline import observation

observation.SAVE_SECONDS, observation.SAVE_SHARE = 0.0, float("inf")  # how far it is, after every sample
left = int(sys.argv.pop(1))

def watch(event, arguments):
    global left
    if event == "os.rename" and "ranges.json" in str(arguments[1]):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(watch)
main()
"""
CALIBRATE = ("calibrate", "-m", "calibrated:net", "--random-data")


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's module, and images in class folders."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "calibrated.py").write_text(IMAGES + "\ndef net(): return Net(), image()\n")
    random = np.random.RandomState(0)
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(folder / "images" / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def whole(given: Path) -> bytes:
    """The table of a calibration that nothing interrupts."""
    deploy(*CALIBRATE, "--samples", 40, "-o", "whole/ranges.json", cwd=given)
    return (given / "whole" / "ranges.json").read_bytes()


class TestResume:
    @pytest.mark.thorough
    def test_killed_again_and_again_it_ends_with_the_same_bytes(self, given: Path, whole: bytes) -> None:
        """Each time as a file is about to get its name: that of the state, and at last that of the table."""
        out, done = given / "killed", 0
        for kept in (0, 1, 6, 0, 25, 8):
            ended = run(sys.executable, "-c", KILLED, kept, *CALIBRATE, "--samples", 40, "-o", "killed/ranges.json", cwd=given)
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            assert ("going on after" in ended.stderr) == (done > 0)
            assert done == 0 or f"going on after {done} of 40 samples" in ended.stderr
            done = min(done + kept, 40)
            assert not (out / "ranges.json").exists()
        deploy(*CALIBRATE, "--samples", 40, "-o", "killed/ranges.json", cwd=given, fresh=True)
        assert (out / "ranges.json").read_bytes() == whole
        assert [path.name for path in out.iterdir()] == ["ranges.json"]

    @pytest.mark.thorough
    def test_killed_at_any_moment(self, given: Path) -> None:
        command = [DEPLOY, *CALIBRATE, "--samples", "8000", "-o", "moments/ranges.json"]
        assert run(*command[:-1], "uninterrupted/ranges.json", cwd=given).returncode == 0
        state, resumed = given / "moments" / "ranges.json.unfinished", 0
        for _ in range(2):
            before = state.stat().st_mtime_ns if state.exists() else None
            process = subprocess.Popen(command, cwd=given, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns != before):
                time.sleep(0.01)
            process.kill()  # a moment after it had saved something, whatever else the machine is doing
            resumed += "going on after" in process.communicate()[1]
        ended = run(*command, cwd=given)
        assert ended.returncode == 0, ended.stderr
        assert resumed + ("going on after" in ended.stderr) > 0
        assert (given / "moments" / "ranges.json").read_bytes() == (given / "uninterrupted" / "ranges.json").read_bytes()

    def test_a_state_of_another_calibration_or_a_damaged_one_is_not_gone_on_from(self, given: Path, whole: bytes) -> None:
        out = given / "damaged"
        state = out / "ranges.json.unfinished"
        for samples in (39, 40):
            run(sys.executable, "-c", KILLED, 5, *CALIBRATE, "--samples", samples, "-o", "damaged/ranges.json", cwd=given)
            if samples == 40:
                state.write_bytes(state.read_bytes()[:-100])
            ended = deploy(*CALIBRATE, "--samples", 40, "-o", "damaged/ranges.json", cwd=given)
            assert "ranges.json.unfinished is not used: " in ended.stderr
            assert "going on" not in ended.stderr
            assert (out / "ranges.json").read_bytes() == whole
            assert not state.exists()
            (out / "ranges.json").unlink()


class TestCommand:
    def test_it_says_whether_the_images_were_enough(self, given: Path) -> None:
        done = deploy("calibrate", "-m", "calibrated:net", "--data", "images", "--samples", 20, "-o", "said/ranges.json", cwd=given)
        table = load_ranges(given / "said" / "ranges.json")
        assert table.conclusion() in done.stdout
        assert all(name in done.stdout for name in table.tensors)
        assert max(len(line) for line in done.stdout.splitlines() if line.startswith("│")) <= 100

    def test_json_is_all_that_standard_output_holds(self, given: Path) -> None:
        done = deploy(*CALIBRATE, "--samples", 8, "-o", "json/ranges.json", "--json", cwd=given)
        found = json.loads(done.stdout)
        table = load_ranges(given / "json" / "ranges.json")
        assert (found["sha256"], found["samples"], found["synthetic"]) == (table.sha256, 8, True)
        assert found["conclusion"] == table.conclusion()

    def test_bad_input_is_one_message_and_exit_code_2(self, given: Path) -> None:
        data = ("-m", "calibrated:net", "--data", "images", "-o", "bad/ranges.json")
        for arguments, told in (
            (("-m", "calibrated:net", "-o", "bad/ranges.json"), "calibration needs real images"),
            ((*data, "--random-data"), "images and random numbers"),
            ((*data, "--evaluation", "images"), "20 of the 20 evaluation images in images are calibration images too"),
            ((*data, "--input-size", "99999x99999"), "at most 268,435,456"),
            ((*data, "--mean", "1,2"), "--mean '1,2' is not three numbers"),
            ((*data, "--std", "0,1,1"), "every standard deviation"),
            ((*data, "--resize", "99", "--crop", "99x99"), "images become one input of image 1×3×99×99"),
        ):
            done = deploy("calibrate", *arguments, cwd=given, code=2)
            assert done.stdout == ""
            assert told in done.stderr
            assert "Traceback" not in done.stderr
            assert not (given / "bad").exists()

    def test_a_leak_may_be_allowed_and_is_written_down(self, given: Path) -> None:
        data = ("-m", "calibrated:net", "--data", "images", "--evaluation", "images", "--allow-leak", "-o", "leak/ranges.json")
        done = deploy("calibrate", *data, cwd=given)
        assert "20 of the 20 evaluation images" in done.stdout
        assert load_ranges(given / "leak" / "ranges.json").leaked == 20

    def test_export_takes_the_same_preprocessing(self, given: Path) -> None:
        changes = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--resize", "20", "--interpolation", "bilinear", "--channels", "bgr")
        deploy("calibrate", "-m", "calibrated:net", "--data", "images", *changes, "-o", "same/ranges.json", cwd=given)
        exported = deploy("export", "-m", "calibrated:net", *changes, "-o", "same", "--json", cwd=given)
        (artifact,) = json.loads(exported.stdout)
        table = load_ranges(given / "same" / "ranges.json")
        assert artifact["manifest"]["preprocessing"] == json.loads((given / "same" / "ranges.json").read_text())["preprocessing"]
        assert table.preprocessing is not None
        assert table.preprocessing.channels == "bgr"
