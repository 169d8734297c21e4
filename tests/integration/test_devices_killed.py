"""Whoever works for a job on either side of a connection may be killed: the next call ends as if nobody were, and nothing is left.

`make endurance-devices` does the same to whole commands, at sixty moments.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import Bench, Ended, Moment
from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.formats.job.job import encode_job
from jobs import asked_for, small_feeds
from sshd import sshd

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
CLIENT = """
import hashlib, sys
from pathlib import Path
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.reconnecting import Reconnecting
from dtvit_deploy.formats.job.job import decode_job
from dtvit_deploy.remote.device import Device

address, python, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
job = decode_job((folder / "job").read_bytes())
with Reconnecting("the bench", lambda: Connection(parse(address))) as way:
    results = Device(way, python=python).perform(job, {blob.sha256: folder / blob.sha256 for blob in job.blobs})
digest = hashlib.sha256()
for task in range(len(job.tasks)):
    for part in results.parts(task):
        for name, array in sorted(part.items()):
            digest.update(name.encode() + array.tobytes())
print(digest.hexdigest())
"""
"""A host that does a job, without whatever a whole command does besides; it prints what the answers are."""
TRIES = 3
"""A moment may be over before it is seen."""


class Undisturbed:
    """A job, and what it ends with."""

    def __init__(self, folder: Path, bench: Bench, artifact: Artifact) -> None:
        folder.mkdir()
        asked = asked_for(folder, [artifact], small_feeds(40))
        (folder / "job").write_bytes(encode_job(asked.job))
        for name, path in asked.blobs.items():
            shutil.copy(path, folder / name)
        self.command = [sys.executable, "-c", CLIENT, bench.server.address, str(bench.board.python), str(folder)]
        self.folder, self.bench = folder, bench
        self.ended = self.call()
        assert self.ended.code == 0, self.ended.said

    def call(self, moment: Moment | None = None) -> Ended:
        return self.bench.run(self.command, self.folder, moment)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, exported: list[Artifact]) -> Iterator[Undisturbed]:
    folder = tmp_path_factory.mktemp("bench")
    with sshd(folder / "server") as server:
        yield Undisturbed(folder / "asked", Bench(server, Board(folder / "board"), folder / "user"), exported[0])


@pytest.mark.parametrize(
    "moment",
    [
        Moment("client", event="put"),
        pytest.param(Moment("client", event="follow"), marks=pytest.mark.thorough),
        pytest.param(Moment("ssh", event="begin"), marks=pytest.mark.thorough),
        Moment("session", event="put"),
        pytest.param(Moment("command", event="bring"), marks=pytest.mark.thorough),
        Moment("command", event="begin"),
        Moment("worker", event="follow"),
        pytest.param(Moment("connection", event="put"), marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_the_next_call_ends_as_one_that_nobody_disturbed_and_nothing_is_left(undisturbed: Undisturbed, moment: Moment) -> None:
    bench = undisturbed.bench
    for _ in range(TRIES):
        shutil.rmtree(bench.board.root)
        disturbed = undisturbed.call(moment)
        if disturbed.killed:
            break
    assert disturbed.killed
    if moment.kind == "client":
        assert disturbed.code == -9
    else:  # and whoever else is killed, the call that is disturbed goes on by itself
        assert (disturbed.code, disturbed.out) == (0, undisturbed.ended.out), disturbed.said
    again = undisturbed.call()
    assert (again.code, again.out) == (0, undisturbed.ended.out), again.said
    assert bench.left() == []
