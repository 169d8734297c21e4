"""An ARM64 device that ssh reaches is asked what it is, and says that its processor is an emulated one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from arm64.device import CORE, Device
from arm64.environment import ONNX_RUNTIMES, Environment
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.examine import examine
from dtvit_deploy.devices.inventory import Device as Listed
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.probe import probe
from sshd import Sshd, sshd

pytestmark = [pytest.mark.arm64, pytest.mark.slow]
Started = Callable[..., AbstractContextManager[Sshd]]


@pytest.fixture
def start(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Starts the device's ssh server, with variables of its own."""
    device = Device(environment.folder)
    if device.missing:
        pytest.skip(device.missing)

    def started(**variables: str) -> AbstractContextManager[Sshd]:
        folder = tmp_path / "device"
        folder.mkdir()
        monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(folder / "client"))
        return sshd(folder, inside=device.inside(folder), variables=variables)

    return started


@pytest.fixture
def server(start: Started) -> Iterator[Sshd]:
    with start(QEMU_CPU=CORE) as found:
        yield found


def test_it_tells_what_it_is_and_that_it_is_emulated(server: Sshd) -> None:
    found = examine(Listed(name="arm", address=parse(server.address)))
    assert found.facts.architecture == "aarch64"
    assert found.facts.packages["onnxruntime"] == ONNX_RUNTIMES[-1]
    assert found.facts.packages["openvino"]
    assert found.facts.half
    assert not found.facts.broken
    assert not found.missing
    assert any("an emulated processor" in note for note in found.notes)


def test_that_it_is_emulated_shows_without_any_variable_that_says_so(start: Started) -> None:
    with start() as server:
        found = examine(Listed(name="arm", address=parse(server.address)))
    assert "qemu-aarch64" in found.facts.emulator


def test_a_core_without_fp16_arithmetic_says_so_whatever_cpuinfo_shows(start: Started) -> None:
    """As its kernel tells programs: the device's `/proc/cpuinfo` is that of another core here, as around an emulator it often is."""
    with start(QEMU_CPU="cortex-a57") as server, Connection(parse(server.address)) as connection:
        assert probe(connection).half is False


def test_words_and_data_pass_as_on_any_device(server: Sshd) -> None:
    words, content = ["a b", "$(x)", "it's", "a\nb", "!"], os.urandom(1 << 20)
    with Connection(parse(server.address)) as connection:
        assert connection.run(["printf", "%s|", *words]).stdout.decode() == "".join(f"{word}|" for word in words)
        assert connection.run(["cat"], stdin=content).stdout == content


def test_openvino_answers_there(server: Sshd) -> None:
    """In the kernels of its ARM64 build, on which whatever a device is asked about OpenVINO depends."""
    code = (
        "import numpy, platform, openvino, openvino.opset13 as op; x = op.parameter([1, 4], numpy.float32);"
        "network = openvino.Core().compile_model(openvino.Model([op.relu(x)], [x]), 'CPU');"
        "print(platform.machine(), network(numpy.float32([[-1, 2, -3, 4]]))[0].tolist())"
    )
    with Connection(parse(server.address)) as connection:
        assert connection.run(["python3", "-c", code]).stdout.decode().strip() == "aarch64 [[0.0, 2.0, 0.0, 4.0]]"
