"""`run` as a plan: nothing is done twice, what fails stops nothing else, and whoever kills it loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from commandline import answering, begun, deploy
from dtvit_deploy.artifacts.artifact import sha256_of

pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)), (torch.zeros(1, 3, 8, 8),)

def other():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 5)), (torch.zeros(1, 3, 8, 8),)
"""
RECIPE = """
[model]
name = "small:make"
[data]
samples = 2
[export]
precisions = ["fp32", "fp16"]
[profile]
seconds = 0.1
samples = 4
"""
EVERY = ["trace", "checked", "simplified", "float16", "onnx fp32", "onnx fp16", "parity", "latency", "report"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.py").write_text(NETWORK)
    (tmp_path / "dtvit-deploy.toml").write_text(RECIPE)
    return tmp_path


def run(work: Path, *words: str, code: int | None = 0) -> tuple[list[str], str]:
    """The stages that were begun, and all that was said."""
    done = deploy("run", *words, cwd=work, code=code)
    return [name for name in begun(done.stderr) if name.rpartition("/")[2] in EVERY], done.stdout + done.stderr


def hashes(folder: Path) -> dict[str, str]:
    """Of artefacts and what is not of the moment: a report says when it was made, and how long an inference took."""
    return {path.name: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("report.")}


def valid(folder: Path) -> bool:
    """Whether every latency of a report is VALID."""
    subjects = json.loads((folder / "report.json").read_text())["subjects"]
    return all(subject["latency"]["status"] == "VALID" for subject in subjects if subject["latency"])


def test_everything_is_done_once_and_the_report_again_where_a_gate_changed(work: Path) -> None:
    begun, _ = run(work)
    assert sorted(begun) == sorted(EVERY)
    before = hashes(work / "out")
    assert len(before) == 4
    begun, _ = run(work, "-o", "again")
    # A factory's code may have changed unseen; it had not, so that nothing follows. A latency that is INVALID, on a busy machine, is no
    # figure to keep.
    assert begun == (["trace"] if valid(work / "out") else ["trace", "latency", "report"])
    assert hashes(work / "again") == before
    (work / "dtvit-deploy.toml").write_text(RECIPE + "[gates.fp16]\np50_ms = 1e6\n")
    begun, _ = run(work, code=None)  # a latency that is INVALID fails that gate
    assert [name for name in begun if name != "latency"] == ["trace", "report"]
    (work / "small.py").write_text(NETWORK.replace("manual_seed(0)", "manual_seed(2)"))
    begun, _ = run(work, code=None)
    assert sorted(begun) == sorted(EVERY)


@pytest.mark.thorough
def test_one_process_and_several_make_the_same(work: Path) -> None:
    run(work, "--workers", "1", "-o", "one")
    os.environ["DTVIT_DEPLOY_CACHE"] = str(work / "other")  # monkeypatch puts it back
    run(work, "--workers", "3", "-o", "three")
    assert hashes(work / "one") == hashes(work / "three")


@pytest.mark.thorough
def test_a_part_of_it_and_the_plan_alone(work: Path) -> None:
    done = deploy("run", "--dry-run", "--json", cwd=work)
    assert {one["stage"]: one["state"] for one in json.loads(done.stdout)}["trace"] == "anew"
    assert not (work / "out").exists()
    missing = work / "missing.toml"
    missing.write_text(RECIPE.replace("samples = 2", 'samples = 2\nevaluation = "imagez"', 1))
    assert "imagez does not exist (in a recipe: data.evaluation)" in deploy("run", missing, "--dry-run", cwd=work, code=2).stderr
    begun_now, said = run(work, "--only", "onnx fp32")
    assert sorted(begun_now) == ["checked", "onnx fp32", "simplified", "trace"]
    assert "kept in the cache" in said
    assert not (work / "out" / "report.json").exists()
    assert json.loads(deploy("run", "--only", "onnx fp32", "--json", cwd=work).stdout) == []  # of no report
    _, said = run(work, "--only", "openvino*", code=2)
    assert "no stage is called 'openvino*'" in said
    run(work, "--workers", "1")
    assert run(work, "--from", "latency", "--workers", "1")[0] == ["trace", "latency", "report"]


def test_an_export_is_a_part_of_the_same_plan(work: Path) -> None:
    """What a run has built, an export puts into place; a user's own network is traced each time."""
    run(work, "--workers", "1")
    done = deploy("export", "-o", "exported", cwd=work)
    assert begun(done.stderr) == ["trace"]
    assert "compared with torch by a run of the same recipe" in done.stdout
    assert {name: found for name, found in hashes(work / "out").items() if ".onnx" in name} == hashes(work / "exported")
    side_by_side = deploy("export", "--workers", "2", "--no-cache", "-o", "two", cwd=work)
    assert "not yet compared with torch" in side_by_side.stdout
    assert set(begun(side_by_side.stderr)) == set(EVERY) - {"parity", "latency", "report"}
    assert hashes(work / "two") == hashes(work / "exported")


def test_images_that_change_during_a_run_are_told_and_no_figure_of_them_is_kept(work: Path) -> None:
    """It would be kept under what the images held when the plan was made."""
    images = work / "images"
    for label in "abc":
        (images / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (20 * number, 9, ord(label))).save(images / label / f"{number}.png")
    (work / "dtvit-deploy.toml").write_text(
        RECIPE.replace("samples = 2", 'samples = 2\nevaluation = "images"', 1)
        + "[preprocessing]\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n"
    )
    first, other = images / "a" / "0.png", images / "b" / "0.png"
    for change in ("first.write_bytes(other.read_bytes())", "first.unlink()", "other.rename(first)"):
        (work / "small.py").write_text(
            NETWORK + f"\nfrom pathlib import Path\nfirst, other = Path({str(first)!r}), Path({str(other)!r})\n{change}\n"
        )
        kept = first.read_bytes(), other.read_bytes()
        begun, said = run(work, "--workers", "1", code=2)
        assert begun[:2] == ["trace", "checked"]
        assert f"{images} has changed since the run began" in said
        assert not (work / "out" / "report.json").exists()
        first.write_bytes(kept[0])
        other.write_bytes(kept[1])
    (work / "small.py").write_text(NETWORK)
    assert "accuracy" in run(work, "--workers", "1", code=None)[1]


def test_what_cannot_be_built_is_a_gate_that_fails_beside_what_can(work: Path) -> None:
    (work / "dtvit-deploy.toml").write_text(
        RECIPE.replace('["fp32", "fp16"]', '["fp32", "int8"]') + "[int8]\nrandom_data = true\nsamples = 2\n"
    )
    _, said = run(work, "--json", code=1)
    report: dict[str, Any] = json.loads((work / "out" / "report.json").read_text())
    (failed,) = [gate for gate in report["verdict"]["gates"] if not gate["passed"]]
    assert failed["name"] == "onnx int8: built"
    assert "nothing of small:make would be INT8" in failed["reason"]
    assert sorted(path.name for path in (work / "out").glob("*.onnx")) == ["small.make.fp32.onnx"]
    assert "Traceback" not in said


def test_where_nothing_can_be_built_the_reason_is_all_there_is(work: Path) -> None:
    (work / "dtvit-deploy.toml").write_text(RECIPE.replace('["fp32", "fp16"]', '["int8"]') + "[int8]\nrandom_data = true\nsamples = 2\n")
    _, said = run(work, code=2)
    assert len(re.findall(r"^error: ", said, re.MULTILINE)) == 1
    assert "nothing of small:make would be INT8" in said
    assert not (work / "out").exists()


def test_several_recipes_and_several_models_are_one_plan(work: Path) -> None:
    (work / "both.toml").write_text(RECIPE.replace("[model]\n", "[[model]]\n").replace("[data]", '[[model]]\nname = "small:other"\n[data]'))
    begun, _ = run(work, "both.toml", "dtvit-deploy.toml", "--no-layers", "--workers", "1")
    assert {name.rpartition("/")[0] for name in begun} >= {"both/small.make", "both/small.other"}
    same = [name for name in begun if name in ("both/small.make/onnx fp32", "dtvit-deploy/onnx fp32")]
    assert len(same) == 1  # what two requests have in common is built once
    for folder in ("both/small.make", "both/small.other", "dtvit-deploy"):
        assert (work / "out" / folder / "report.json").is_file()
    assert hashes(work / "out" / "dtvit-deploy") == hashes(work / "out" / "both" / "small.make")


def start(work: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dtvit_deploy", "run", "--workers", "2"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=answering)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run that nobody disturbs comes to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.py").write_text(NETWORK)
    (folder / "dtvit-deploy.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTVIT_DEPLOY_CACHE", str(folder / "cache"))
        run(folder, "--workers", "1")
    return hashes(folder / "out")


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        pytest.param(signal.SIGTERM, "trace", marks=pytest.mark.thorough),
        pytest.param(signal.SIGTERM, "parity", marks=pytest.mark.thorough),
        (signal.SIGKILL, "onnx fp16"),
    ],
    ids=lambda value: getattr(value, "name", None) or value,
)
def test_whenever_it_ends_the_next_goes_on_and_comes_to_the_same(
    number: signal.Signals, stage: str, work: Path, undisturbed: dict[str, str]
) -> None:
    process = start(work)
    assert process.stderr is not None
    for line in process.stderr:
        if begun(line) == [stage]:
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (128 + number if number == signal.SIGTERM else -number)
    left = [path.name for path in (work / "out").iterdir()] if (work / "out").exists() else []
    assert [name for name in left if not name.startswith(".partial")] == []
    assert number == signal.SIGKILL or not (work / "out").exists()
    for _ in range(100):
        if not _children(process.pid):
            break
        time.sleep(0.1)
    assert not _children(process.pid)
    run(work, "--workers", "1")
    assert hashes(work / "out") == undisturbed


def _children(pid: int) -> list[str]:
    """Worker processes of one that has ended: they are told by whom they were started for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"end_with({pid})" in words:
            found.append(path.parent.name)
    return found
