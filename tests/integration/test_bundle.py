"""A device that nobody can reach: one archive goes there, one file comes back, and its figures are those of a device that is reached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from commandline import Done, deploy, refused
from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Manifest, manifest_path, read_json, write_json
from dtvit_deploy.formats.job.bundle import README, RESULTS, RUN
from dtvit_deploy.pipeline.bundle_request import SUFFIX

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 3)

    def forward(self, image):
        return self.head(nn.functional.gelu(self.stem(image)).mean((2, 3)))

def make():
    return Net().eval(), {"image": torch.zeros(1, 3, 16, 16)}
"""
RECIPE = """
[model]
name = "carried:make"
[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[data]
evaluation = "images"
[export]
targets = ["onnx", "openvino"]
"""
TIMED = ("--seconds", "0.1", "--latency-samples", "16")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder: a network, labelled images, and what was exported of them."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "carried.py").write_text(NETWORK)
    (folder / "dtvit-deploy.toml").write_text(RECIPE)
    random = np.random.RandomState(0)
    for index in range(9):
        place = folder / "images" / "abc"[index % 3] / f"{index:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (16, 16, 3), np.uint8)).save(place)
    deploy("export", "-o", "out", cwd=folder)
    return folder


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


def bundled(work: Path, *words: object, archive: str = "board.tar") -> dict[str, Any]:
    """What the command tells of the bundle that it made."""
    return dict(json.loads(deploy("bundle", "out", "-o", archive, *words, "--json", cwd=work).stdout))


def carried(board: Board, work: Path, made: dict[str, Any]) -> Done:
    """What a person does on the device: the archive is brought there, and the line that stands in it is called."""
    shutil.copy(work / made["archive"], board.folder)
    environment = {**os.environ, "PYTHON": str(board.python)}
    return subprocess.run(
        ["sh", "-c", made["there"]], env=environment, cwd=board.folder, capture_output=True, text=True, check=False, timeout=300
    )


def answered(board: Board, work: Path, made: dict[str, Any]) -> Path:
    done = carried(board, work, made)
    assert done.returncode == 0, done.stderr
    return board.folder / made["back"]


@pytest.fixture(scope="module")
def everything(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a bundle that asks for every kind of figure."""
    board = Board(tmp_path_factory.mktemp("board"))
    with killed_later(board):
        return answered(board, work, bundled(work, "--evaluate", "--layers", *TIMED))


def told(work: Path, results: Path, *words: object, code: int | None = None) -> dict[str, Any]:
    """The report of results that came back."""
    return dict(json.loads(deploy("report", "--import", results, *words, "--json", cwd=work, code=code).stdout))


def by_name(report: dict[str, Any], figure: str) -> dict[str, Any]:
    return {subject["name"]: subject[figure] for subject in report["subjects"]}


def test_one_report_has_what_was_measured_here_and_what_came_back(work: Path, everything: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    here = json.loads(deploy("verify", "out", "--layers", "-o", out, "--json", cwd=work).stdout)
    both = told(work, everything, "--device-name", "bench", "-o", out)
    assert both == json.loads((out / "report.json").read_text())
    parity, rungs = by_name(both, "parity"), by_name(both, "rung")
    assert list(rungs) == ["torch FP32", "ONNX FP32", "OpenVINO FP32", "ONNX FP32 on bench", "OpenVINO FP32 on bench"]
    for name in ("ONNX FP32", "OpenVINO FP32"):
        assert parity[f"{name} on bench"] == parity[name] == by_name(here, "parity")[name]
        assert (rungs[name], rungs[f"{name} on bench"]) == ("executed", "on device")
        assert by_name(both, "accuracy")[f"{name} on bench"]["samples"] == 9
        assert len(by_name(both, "latency")[f"{name} on bench"]["samples_ms"]) >= 16
        for one, other in zip(by_name(both, "layers")[name]["layers"], by_name(both, "layers")[f"{name} on bench"]["layers"], strict=True):
            assert other["name"] == one["name"]
            assert other["error"] == pytest.approx(one["error"], rel=1e-6)
    assert by_name(both, "accuracy")["torch FP32"]["agreement"] is None or by_name(both, "accuracy")["torch FP32"]["agreement"] == 1
    assert any("came by a file" in note and os.uname().nodename in note for note in both["notes"])
    assert "by a file" in both["device"]["on bench"]
    assert {gate["name"] for gate in here["verdict"]["gates"]} < {gate["name"] for gate in both["verdict"]["gates"]}
    assert (out / "report.md").read_text().count("on bench") > 3


@pytest.mark.thorough
def test_what_is_brought_back_twice_is_there_once(work: Path, everything: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    reports = [told(work, everything, "--device-name", "bench", "-o", out) for _ in range(2)]
    first, again = ({key: value for key, value in one.items() if key not in ("created", "device")} for one in reports)
    assert first == again
    assert [one["name"] for one in again["subjects"]] == ["torch FP32", "ONNX FP32 on bench", "OpenVINO FP32 on bench"]


def test_the_request_is_found_by_the_results_alone(work: Path, everything: Path, tmp_path: Path) -> None:
    request = next(work.glob(f"{everything.parent.name}{SUFFIX}"))
    bundled(work, "--no-profile", "--samples", 2, archive="other.tar")
    assert len(told(work, everything, request.name)["subjects"]) == 3
    said = refused("report", "out", "--import", everything, cwd=work)
    assert "whose request is not in out" in said
    said = refused("report", next(each for each in work.glob(f"*{SUFFIX}") if each != request).name, "--import", everything, cwd=work)
    assert "results of the bundle" in said
    beside = tmp_path / "stick" / everything.parent.name  # the whole stick came back, and the command is called elsewhere
    shutil.copytree(everything.parent, beside)
    shutil.copytree(work / "out", tmp_path / "stick" / "out")
    shutil.copytree(work / "images", tmp_path / "stick" / "images")
    shutil.copy(request, beside.parent)
    (tmp_path / "away").mkdir()
    assert len(told(tmp_path / "away", beside / RESULTS)["subjects"]) == 3


@pytest.mark.thorough
def test_samples_that_were_moved_are_found_again_and_others_are_refused(work: Path, everything: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(work, folder)
    (folder / "images").rename(folder / "pictures")
    said = refused("report", "--import", everything, cwd=folder)
    assert "are not there now" in said
    assert "--data" in said
    assert all(
        one["passed"]
        for one in by_name(told(folder, everything, "--data", "pictures", "--device-name", "board"), "parity")["ONNX FP32 on board"]
    )
    picture = next(folder.glob("pictures/*/*.png"))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture)
    said = refused("report", "--import", everything, "--data", "pictures", cwd=folder)
    assert "the samples are not those that were bundled" in said
    picture.unlink()
    said = refused("report", "--import", everything, "--data", "pictures", cwd=folder)
    assert "the samples are not those that were bundled" in said


def test_an_artefact_that_was_exported_anew_is_not_taken_for_that_of_then(work: Path, everything: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(work, folder)
    path = next(folder.glob("out/*.openvino"))
    one = next(folder.glob("out/*.onnx"))
    mine: Manifest = read_json(manifest_path(one), Manifest)
    content = one.read_bytes().replace(b"gelu", b"gelv")
    one.write_bytes(content)
    assert "was changed after export" in refused("report", "--import", everything, cwd=folder)
    digest = hashlib.sha256(content).hexdigest()
    lineage = (*mine.lineage[:-1], msgspec.structs.replace(mine.lineage[-1], sha256=digest))
    write_json(manifest_path(one), msgspec.structs.replace(mine, sha256=digest, lineage=lineage))
    assert "another artefact than the one that was bundled" in refused("report", "--import", everything, cwd=folder)
    shutil.rmtree(path)
    assert "there is no artefact" in refused("report", "--import", everything, cwd=folder)


@pytest.mark.parametrize("what", ["half", "another byte", "nothing", "an image", "a report"])
def test_what_is_no_whole_results_file_is_one_message(work: Path, everything: Path, tmp_path: Path, what: str) -> None:
    content = everything.read_bytes()
    middle = len(content) // 2
    file = tmp_path / RESULTS
    file.write_bytes(
        {
            "half": content[:middle],
            "another byte": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "nothing": b"",
            "an image": next(work.glob("images/*/*.png")).read_bytes(),
            "a report": b'{"command": "verify"}',
        }[what]
    )
    assert len(refused("report", "--import", file, cwd=work).splitlines()) <= 2


@pytest.mark.thorough
def test_a_bundle_for_a_latency_alone_is_a_profile(work: Path, board: Board) -> None:
    made = bundled(work, "--no-verify", *TIMED, archive="timed.tar")
    assert made["told"] == "2 artefacts in onnxruntime and openvino: answers to 1 feed, latency"
    report = told(work, answered(board, work, made), "--device-name", "bench")
    assert report["command"] == "profile"
    assert not any(by_name(report, "parity").values())
    assert by_name(report, "latency")["torch FP32"] is None
    assert len(by_name(report, "latency")["ONNX FP32 on bench"]["samples_ms"]) >= 16
    assert [gate["name"] for gate in report["verdict"]["gates"]] == ["on bench: a latency to believe"]


def test_a_bundle_for_answers_alone_looks_into_what_is_wrong_and_called_again_gives_the_same(work: Path, board: Board) -> None:
    asked = ("--no-profile", "--samples", 3, "--runtime", "onnxruntime", "--tolerance", "output=1e-12")
    made = bundled(work, *asked, archive="answers.tar")
    first = told(work, answered(board, work, made), "--device-name", "bench", code=1)
    run = board.folder / made["back"].replace(RESULTS, RUN)
    assert subprocess.run(["sh", run], env={**os.environ, "PYTHON": str(board.python)}, check=False).returncode == 0
    second = told(work, board.folder / made["back"], "--device-name", "bench", "--no-layers", code=1)
    assert first["command"] == "verify"
    assert by_name(first, "parity") == by_name(second, "parity")
    layers = by_name(first, "layers")["ONNX FP32 in onnxruntime on bench"]
    assert (layers["samples"], layers["rung"]) == (2, "on device")
    assert by_name(second, "layers")["ONNX FP32 in onnxruntime on bench"] is None


@pytest.mark.thorough
def test_a_runtime_that_is_not_there_costs_the_others_nothing(work: Path, board: Board) -> None:
    made = bundled(work, *TIMED, archive="some.tar")
    (board.folder / "packages" / "openvino").unlink()
    results = answered(board, work, made)
    report = told(work, results, "--device-name", "bench", code=1)
    assert list(by_name(report, "rung")) == ["torch FP32", "ONNX FP32 on bench"]
    assert by_name(report, "latency")["ONNX FP32 on bench"]["samples_ms"]
    failed = [gate["name"] for gate in report["verdict"]["gates"] if not gate["passed"]]
    assert [name for name in failed if "openvino" in name] == [name for name in failed if "p50" not in name]
    assert failed
    assert all(name.startswith("on bench: ") for name in failed if "openvino" in name)


@pytest.mark.thorough
def test_an_emulated_processor_answers_and_is_not_timed(work: Path, tmp_path: Path) -> None:
    board = Board(tmp_path / "board", DTVIT_DEPLOY_EMULATED="qemu-aarch64")
    with killed_later(board):
        results = answered(board, work, bundled(work, *TIMED, archive="emulated.tar"))
    report = told(work, results, "--device-name", "bench", code=0)
    assert by_name(report, "rung")["ONNX FP32 on bench"] == "emulated processor"
    assert by_name(report, "latency")["ONNX FP32 on bench"] is None
    assert any("not measured" in note for note in report["notes"])


def test_what_is_interrupted_there_goes_on_when_it_is_called_again(work: Path, board: Board) -> None:
    made = bundled(work, "--no-verify", "--seconds", "3", "--latency-samples", "16", archive="long.tar")
    shutil.copy(work / made["archive"], board.folder)
    environment = {**os.environ, "PYTHON": str(board.python)}
    process = subprocess.Popen(
        ["sh", "-c", made["there"]], env=environment, cwd=board.folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    while "answers of" not in (line := process.stderr.readline()) or "done" not in line:
        assert line
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (board.folder / made["back"]).exists()
    found = told(work, answered(board, work, made))
    assert len(found["subjects"]) == 3, [gate["reason"] for gate in found["verdict"]["gates"]]


def test_a_name_of_an_archive_runs_nothing_there(work: Path, board: Board) -> None:
    name = '-rf $(touch run) `touch run`; touch run; it\'s "this" & *.tar'
    made = bundled(work, "--no-profile", "--samples", 1, "--no-adversarial", f"--out={name}", archive="unused.tar")
    assert not (work / "unused.tar").exists()
    results = answered(board, work, made)
    assert results.is_file()
    assert not (board.folder / "run").exists()
    assert made["there"] in (results.parent / README).read_text()
    (work / name).unlink()


def test_what_cannot_be_bundled_is_told_before_anything_is_written(work: Path) -> None:
    asked = ("bundle", "out")
    assert "asks for nothing" in refused(*asked, "--no-verify", "--no-profile", cwd=work)
    assert "no output" in refused(*asked, "--tolerance", "nonsense=1", cwd=work)
    assert "is a folder" in refused(*asked, "-o", "images", cwd=work, out=False)
    assert "is not a folder" in refused(*asked, "-o", "carried.py/board.tar", cwd=work, out=False)
    assert "no name that can be typed" in refused(*asked, "-o", "two\nlines.tar", cwd=work, out=False)
    assert "nothing to show" in refused("report", cwd=work)
    assert "about results that are imported" in refused("report", "out", "--data", "images", cwd=work)
    assert "no name of a device" in refused("report", "--import", "x", "--device-name", "a b", cwd=work)


def test_a_report_of_another_network_or_other_samples_stays_as_it_was(work: Path, everything: Path, tmp_path: Path) -> None:
    deploy("verify", "out", "--data", "images/a", "--no-adversarial", "-o", tmp_path / "other", cwd=work, code=None)
    before = (tmp_path / "other" / "report.json").read_bytes()
    done = deploy("report", "--import", everything, "-o", tmp_path / "other", cwd=work, code=2)
    assert "brought back about 9 of the images in images" in done.stderr
    assert (tmp_path / "other" / "report.json").read_bytes() == before
