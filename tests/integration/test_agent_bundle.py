"""A bundle does its job where nobody can be reached, and what comes back is held to what was asked."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.bundle import JOB, README, RESULTS, RUN
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.bundle import read_bundle_results, write_bundle
from dtvit_deploy.remote.recorded import RecordedRuntime, latencies
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import open_session

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

FEEDS = 3


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A product and a maximum, as an ONNX file."""
    path = tmp_path_factory.mktemp("artifact") / "small.onnx"
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["scores"]), helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0)],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5]), helper.make_tensor_value_info("best", TensorProto.INT64, [1])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    digest = sha256_of(path)
    manifest = Manifest(
        model="small",
        format="onnx",
        precision=Precision.FP32,
        sha256=digest,
        signature=Signature((TensorSpec("x", (1, 8)),), (TensorSpec("scores", (1, 5)), TensorSpec("best", (1,), "int64"))),
        lineage=(Link(kind="onnx", sha256=digest),),
    )
    write_json(manifest_path(path), manifest)
    return load_artifact(path)


@pytest.fixture(scope="module")
def feeds() -> list[Feeds]:
    return [{"x": np.full((1, 8), index, np.float32)} for index in range(FEEDS)]


def asked_for(folder: Path, artifact: Artifact, feeds: list[Feeds], *, timed: bool = False) -> Asked:
    folder.mkdir(exist_ok=True)
    asking = Asking(folder)
    subject, given = asking.subject(artifact, "onnxruntime"), asking.feeds(feeds)
    asking.answers(subject, given)
    if timed:
        asking.latency([subject], [given], options=MeasureOptions(min_samples=8, min_seconds=0, warmup_seconds=0, max_warmup_seconds=0.1))
    return asking.asked


@pytest.fixture
def asked(tmp_path: Path, artifact: Artifact, feeds: list[Feeds]) -> Asked:
    return asked_for(tmp_path / "blobs", artifact, feeds)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


def unpacked(bundle: Path, into: Path) -> Path:
    subprocess.run(["tar", "xf", bundle, "-C", into], check=True)
    (folder,) = (each.parent for each in into.glob(f"*/{RUN}"))
    return folder


def done(board: Board, bundle: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """What a person does on the device: unpack it there, and call what its two lines say."""
    folder = unpacked(bundle, board.folder)
    return folder, run(board, folder)


def run(board: Board, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": str(board.python)}
    return subprocess.run(["sh", folder / RUN], env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=300)


def test_the_results_are_those_of_this_machine(tmp_path: Path, board: Board, artifact: Artifact, feeds: list[Feeds]) -> None:
    asked = asked_for(tmp_path / "blobs", artifact, feeds, timed=True)
    write_bundle(asked, tmp_path / "job.tar")
    folder, found = done(board, tmp_path / "job.tar")
    assert found.returncode == 0, found.stderr
    assert found.stderr.splitlines()[-1] == f"done: take {RESULTS} back"
    assert "answers of small.onnx: done" in found.stderr
    given = ["README.txt", "agent.zip", "blobs", "job.json", "run.sh", "whole"]
    assert sorted(each.name for each in folder.iterdir()) == sorted([*given, "results.dtvit"])
    assert not (board.folder / "cache").exists()
    results = read_bundle_results(asked, folder / RESULTS)
    with RecordedRuntime(asked, results, 0).load(artifact, SessionOptions()) as there, open_session(artifact, SessionOptions()) as here:
        for feed in feeds:
            for name, array in here.run(feed).items():
                np.testing.assert_array_equal(there.run(feed)[name], array)
    (latency,) = latencies(asked, results, 1)
    assert len(latency.samples_ms) >= 8


def test_equal_requests_are_equal_bundles_with_two_lines_that_say_what_to_do(
    tmp_path: Path, artifact: Artifact, feeds: list[Feeds], asked: Asked
) -> None:
    write_bundle(asked, tmp_path / "one.tar")
    write_bundle(asked_for(tmp_path / "again", artifact, feeds), tmp_path / "two" / "one.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two" / "one.tar").read_bytes()
    folder = unpacked(tmp_path / "one.tar", tmp_path)
    assert len((folder / README).read_text().splitlines()) == 2
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {member.name.split("/")[0] for member in archive} == {folder.name}
        assert all(member.isfile() for member in archive)


def test_a_bundle_called_again_needs_nothing_but_what_is_in_it(tmp_path: Path, board: Board, asked: Asked) -> None:
    write_bundle(asked, tmp_path / "job.tar")
    folder, _ = done(board, tmp_path / "job.tar")
    first = (folder / RESULTS).read_bytes()
    (folder / RESULTS).unlink()
    assert run(board, folder).returncode == 0
    assert len((folder / RESULTS).read_bytes()) == pytest.approx(len(first), abs=100)
    read_bundle_results(asked, folder / RESULTS)


@pytest.mark.parametrize("what", ["a blob", "no blob", "the job", "no job"])
def test_a_bundle_that_was_damaged_is_one_message(tmp_path: Path, board: Board, asked: Asked, what: str) -> None:
    write_bundle(asked, tmp_path / "job.tar")
    folder = unpacked(tmp_path / "job.tar", board.folder)
    place = folder / JOB if "job" in what else next(folder.glob("blobs/*"))
    if what.startswith("no"):
        place.unlink()
    else:
        content = bytearray(place.read_bytes())
        content[len(content) // 2] ^= 0x20
        place.write_bytes(content)
    found = run(board, folder)
    assert found.returncode in (2, 3), found.stderr
    assert "Traceback" not in found.stderr
    assert not (folder / RESULTS).exists()
    assert board.processes() == []


def test_where_nothing_can_be_done_that_is_said_and_good_results_stay(tmp_path: Path, board: Board, asked: Asked) -> None:
    write_bundle(asked, tmp_path / "bundle.tar")
    folder, _ = done(board, tmp_path / "bundle.tar")
    results = (folder / RESULTS).read_bytes()
    (board.folder / "packages" / "numpy").rename(board.folder / "numpy")
    again = run(board, folder)
    assert again.returncode == 3
    assert "nothing that was asked could be done here" in again.stderr
    assert "PYTHON=" in again.stderr
    assert (folder / RESULTS).read_bytes() == results


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path, board: Board, asked: Asked) -> None:
    write_bundle(asked, tmp_path / "bundle.tar")
    folder, _ = done(board, tmp_path / "bundle.tar")
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = run(board, folder)
    finally:
        os.close(held)
    assert refused.returncode == 2
    assert "is being done already" in refused.stderr
    assert run(board, folder).returncode == 0


@pytest.mark.parametrize(("kind"), ["fifo", "folder"])
def test_an_archive_takes_the_place_of_files_alone(tmp_path: Path, asked: Asked, kind: str) -> None:
    place = tmp_path / "out"
    os.mkfifo(place) if kind == "fifo" else place.mkdir()
    before = place.lstat().st_mode
    with pytest.raises(InputError, match=r"written there|take the place"):
        write_bundle(asked, place)
    assert place.lstat().st_mode == before


def test_results_that_were_altered_or_are_of_another_job_are_refused(
    tmp_path: Path, board: Board, artifact: Artifact, feeds: list[Feeds], asked: Asked
) -> None:
    write_bundle(asked, tmp_path / "job.tar")
    folder, _ = done(board, tmp_path / "job.tar")
    other = asked_for(tmp_path / "other", artifact, feeds[:2])
    with pytest.raises(InputError, match="it answers another job"):
        read_bundle_results(other, folder / RESULTS)
    content = (folder / RESULTS).read_bytes()
    for at in (0, 30, len(content) // 2, len(content) - 1):
        (tmp_path / "altered").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(InputError):
            read_bundle_results(asked, tmp_path / "altered")
    (tmp_path / "cut").write_bytes(content[:-10])
    with pytest.raises(InputError, match="end within a frame"):
        read_bundle_results(asked, tmp_path / "cut")


def test_what_is_no_file_or_larger_than_any_answer_is_refused_at_once(tmp_path: Path, asked: Asked) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "nowhere", tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="there is no results file"):
            read_bundle_results(asked, place)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="no answer to this job has more"):
        read_bundle_results(asked, tmp_path / "large")


def test_a_blob_that_changed_while_the_bundle_was_made_is_told_and_no_bundle_is_left(tmp_path: Path, asked: Asked) -> None:
    name = asked.job.blobs[0].sha256
    (tmp_path / "changed").write_bytes(asked.blobs[name].read_bytes() + b"more")
    with pytest.raises(InputError, match="was changed while the bundle was made"):
        write_bundle(asked._replace(blobs={**asked.blobs, name: tmp_path / "changed"}), tmp_path / "out" / "job.tar")
    assert not (tmp_path / "out").exists()
