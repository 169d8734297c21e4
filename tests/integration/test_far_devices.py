"""Two devices at once behind bad lines, 200 ms and 2 % of the packets each way: every answer is the one of a device at hand.

`make endurance-devices` does the same with whole commands, three devices, and an outage of twenty seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.reconnecting import Reconnecting
from dtvit_deploy.remote.device import Device
from far import Far, far_devices
from jobs import answers, asked_for, perform, small_feeds

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
OUTAGE = 3.0


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Far]]:
    folder = tmp_path_factory.mktemp("far") / "far"
    with far_devices(folder, ("one", "two"), first=30, delay=0.1, loss=0.02) as devices, pytest.MonkeyPatch.context() as changed:
        changed.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(folder / "client"))
        yield devices


@pytest.mark.thorough
def test_delay_loss_and_a_cable_that_is_pulled_in_the_middle_cost_no_answer(
    tmp_path: Path, board: Board, exported: list[Artifact], far: dict[str, Far]
) -> None:
    asked = asked_for(tmp_path, exported[:1], small_feeds(60))
    at_hand = answers(perform(board.device(), asked))
    found: dict[str, list[dict[str, bytes]]] = {}

    def ask(name: str, device: Far, connection: Reconnecting) -> None:
        def advanced(task: str, part: float) -> None:
            if task != "sending" and not device.line.pulled and name not in pulled:
                pulled.add(name)
                device.line.pulled = True
                threading.Timer(OUTAGE, setattr, (device.line, "pulled", False)).start()

        found[name] = answers(perform(Device(connection, python=str(device.board.python)), asked, advanced=advanced))

    pulled = set[str]()
    with ExitStack() as held:
        ways = {name: held.enter_context(Reconnecting(name, partial(Connection, parse(f"ssh://{name}")))) for name in far}
        threads = [threading.Thread(target=ask, args=(name, device, ways[name])) for name, device in far.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {"one": at_hand, "two": at_hand}
    assert pulled == {"one", "two"}
    assert all(device.line.lost for device in far.values())
