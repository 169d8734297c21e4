"""A device at the far end of a bad line answers the same, and an outage that ends in time costs nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.transport import LostError
from dtvit_deploy.errors import MissingError
from sshd import Sshd, required, sshd
from wire import Wire, wire


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sshd, Wire]]:
    """100 ms and 2 % loss each way, which is 200 ms and 4 % there and back."""
    required()
    with wire(1, delay=0.1, loss=0.02) as line, sshd(tmp_path / "device", host=line.there, inside=line.inside) as server:
        monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
        yield server, line


def test_delay_and_loss_change_no_answer(far: tuple[Sshd, Wire]) -> None:
    server, line = far
    content = os.urandom(1 << 20)
    with Connection(parse(server.address)) as connection:
        assert connection.run(["cat"], stdin=content).stdout == content
        assert connection.run(["sh", "-c", "exit 9"]).returncode == 9
    assert line.lost > 0


def test_a_cable_that_is_pulled_for_a_while_loses_nothing(far: tuple[Sshd, Wire]) -> None:
    server, line = far
    count = "i=0; while [ $i -lt 20 ]; do echo $i; i=$((i + 1)); sleep 0.2; done"
    with Connection(parse(server.address)) as connection, connection.following(["sh", "-c", count]) as stream:
        assert stream.readline() == b"0\n"
        line.pulled = True
        time.sleep(3)
        line.pulled = False
        assert stream.read().split() == [str(number).encode() for number in range(1, 20)]
        assert connection.run(["echo", "here"]).stdout == b"here\n"


def test_a_cable_that_stays_pulled_is_a_lost_connection_and_then_a_device_that_does_not_answer(far: tuple[Sshd, Wire]) -> None:
    server, line = far
    server.configure("ServerAliveInterval 1", "ServerAliveCountMax 2", "ConnectTimeout 2")
    with Connection(parse(server.address)) as connection, connection.following(["sh", "-c", "echo here; cat"]) as stream:
        assert stream.readline() == b"here\n"
        line.pulled = True
        assert stream.read() == b""
        with pytest.raises(LostError):
            connection.run(["true"])
    with pytest.raises(MissingError, match=r"it does not answer: .*timed out"), Connection(parse(server.address)):
        pass
