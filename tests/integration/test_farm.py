"""A plan on a farm: Dask's own scheduler and workers, over TLS, with the figures of one process; workers come, go, and may be others."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dtvit_deploy
from commandline import begun, deploy
from dtvit_deploy.artifacts.artifact import sha256_of
from processes import seconds_of

pytestmark = pytest.mark.slow
pytest.importorskip("distributed", reason="Dask (the extra farm) is not installed")
if shutil.which("openssl") is None:
    pytest.skip("openssl, which makes the certificates, is not installed", allow_module_level=True)
DASK = Path(sys.executable).with_name("dask")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(32, 3)), (torch.zeros(1, 3, 32, 32),)
"""
RECIPE = """
[model]
name = "small:make"
[data]
samples = 2
evaluation = "images"
calibration = "more"
[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[export]
targets = ["onnx", "openvino"]
precisions = ["fp32", "int8"]
[int8]
samples = 6
search = false
[profile]
seconds = 0.1
samples = 64
"""
CUT = RECIPE + "[run]\nshard = 16\n"
"""Three stretches of 16 evaluation images, and as many of two calibration images."""
STRETCHES = [f"accuracy {number} of 3" for number in (1, 2, 3)]


class Farm:
    """A scheduler and its workers, each with a cache of its own."""

    def __init__(self, folder: Path, work: Path, host: str = "127.0.0.1") -> None:
        self.folder, self.work, self.host = folder, work, host
        with socket.socket() as one:
            one.bind((host, 0))
            self.address = f"tls://{host}:{one.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.certificates = certificates(folder)
        self.start("scheduler", "scheduler", "--port", self.address.rpartition(":")[2])

    def start(
        self, name: str, *words: str, host: str = "", inside: tuple[object, ...] = (DASK,), **variables: str
    ) -> subprocess.Popen[bytes]:
        command = [*inside, words[0], "--host", host or self.host, "--protocol", "tls", "--no-dashboard", *words[1:]]
        environment = {**os.environ, **self.certificates, "DTVIT_DEPLOY_CACHE": str(self.folder / name / "cache"), **variables}
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True)
        self.processes.append(process)
        return self.processes[-1]

    def worker(
        self, name: str, path: Path | None = None, host: str = "", inside: tuple[object, ...] = (DASK,), **variables: str
    ) -> subprocess.Popen[bytes]:
        words = ("worker", self.address, "--nthreads", "1", "--no-nanny", "--name", name, "--local-directory", str(self.folder / name))
        paths = [path, self.work] if path else [self.work]
        process = self.start(name, *words, host=host, inside=inside, PYTHONPATH=os.pathsep.join(map(str, paths)), **variables)
        wait_for(lambda: "Registered to" in (self.folder / f"{name}.log").read_text())
        return process

    def run(self, *words: str, code: int | None = None) -> tuple[str, dict[str, Any]]:
        """What a run on it says, and its report."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        done = deploy("run", "--scheduler", self.address, *words, cwd=self.work, code=code, **self.certificates)
        report = self.work / "out" / "report.json"
        return done.stdout + done.stderr, json.loads(report.read_text()) if report.is_file() else {}

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A run on it, whose words go to a file."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        command = [sys.executable, "-m", "dtvit_deploy", "run", "--scheduler", self.address]
        environment = {**os.environ, **self.certificates, "PYTHONPATH": str(self.work)}
        with log.open("wb") as file, subprocess.Popen(command, cwd=self.work, env=environment, stdout=file, stderr=file) as process:
            yield process

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def certificates(folder: Path) -> dict[str, str]:
    """An authority of the test's own, one certificate for all, and the variables by which Dask's configuration names them."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "asked.pem", "-subj", "/CN=test")
    openssl("x509", "-req", "-in", "asked.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "cert.pem")
    found = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        found[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(folder / "cert.pem")
        found[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(folder / "key.pem")
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "small.py").write_text(NETWORK)
    random = np.random.default_rng(0)
    for name, count in (("images", 16), ("more", 3)):
        for label in "abc":
            (folder / name / label).mkdir(parents=True)
            for number in range(count):
                picture = random.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(picture).save(folder / name / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def alone(work: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, str]]:
    """The report and the files of one process, uncut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path_factory.mktemp("alone")))
        (work / "dtvit-deploy.toml").write_text(RECIPE)
        deploy("run", "--workers", "1", "-o", "alone", cwd=work, code=None)  # whether a time can be taken is not asked
    return json.loads((work / "alone" / "report.json").read_text()), hashes(work / "alone")


@pytest.fixture(scope="module")
def farm(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("farm"), work)
    farm.worker("one")
    farm.worker("two")
    yield farm
    farm.end()


@pytest.fixture(autouse=True)
def _cut(work: Path, alone: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "dtvit-deploy.toml").write_text(CUT)
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("DASK_")]:
        monkeypatch.delenv(name)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("report.")}


def figures(report: dict[str, Any]) -> Any:
    """What a report says of artefacts, but for the time that they take."""
    subjects = [{name: value for name, value in one.items() if name not in ("latency", "verdict")} for one in report["subjects"]]
    return json.loads(json.dumps(subjects), object_hook=lambda table: {k: v for k, v in table.items() if k not in ("conditions", "device")})


def taken_by(report: dict[str, Any]) -> dict[str, str]:
    return {what.removesuffix(" taken by"): who for what, who in report["device"].items() if what.endswith(" taken by")}


def wait_for(condition: object, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_figures_artefacts_and_ranges_are_those_of_one_process_to_the_last_byte(
    farm: Farm, work: Path, alone: tuple[dict[str, Any], dict[str, str]]
) -> None:
    said, report = farm.run()
    assert all(stretch in said for stretch in STRETCHES)
    assert "ranges 3 of 3" in said
    assert figures(report) == figures(alone[0])
    assert hashes(work / "out") == alone[1]
    assert set(taken_by(report)) == {"accuracy", "parity", "latency"}
    assert all("one on " in who or "two on " in who for who in taken_by(report).values())
    # What the workers did is in this machine's cache; nothing is done twice.
    said, _ = farm.run()
    assert set(begun(said)) - {"latency", "report"} == {"trace"}


@pytest.mark.thorough
def test_stretches_side_by_side_on_one_machine_are_the_same_too(work: Path, alone: tuple[dict[str, Any], dict[str, str]]) -> None:
    done = deploy("run", "--workers", "2", "-o", "cut", cwd=work, code=None)
    assert set(STRETCHES) <= set(begun(done.stderr))
    assert figures(json.loads((work / "cut" / "report.json").read_text())) == figures(alone[0])
    assert hashes(work / "cut") == alone[1]


@pytest.mark.thorough
def test_a_worker_that_is_lost_in_an_evaluation_costs_no_figure(
    farm: Farm, work: Path, alone: tuple[dict[str, Any], dict[str, str]]
) -> None:
    third = farm.worker("three")
    (work / "dtvit-deploy.toml").write_text(RECIPE + "[run]\nshard = 8\n")
    log = work / "lost.log"
    with farm.running(log) as process:
        wait_for(lambda: "accuracy 3 of 6" in log.read_text() or process.poll() is not None)
        os.killpg(third.pid, signal.SIGKILL)
        assert process.wait() in (0, 1), log.read_text()
    assert figures(json.loads((work / "out" / "report.json").read_text())) == figures(alone[0])


@pytest.mark.thorough
def test_a_latency_is_not_taken_a_second_time_where_its_worker_was_lost(work: Path, tmp_path: Path) -> None:
    (work / "dtvit-deploy.toml").write_text(CUT.replace("seconds = 0.1", "seconds = 20"))
    (tmp_path / "farm").mkdir()
    farm = Farm(tmp_path / "farm", work)
    log = work / "latency.log"
    try:
        workers = [farm.worker(name, DTVIT_DEPLOY_CACHE=str(tmp_path / "shared")) for name in ("one", "two")]
        with farm.running(log) as process:
            wait_for(lambda: "latency" in begun(log.read_text()) or process.poll() is not None)
            alone: list[subprocess.Popen[bytes]] = []  # two looks at which the same worker was at work and no other: it measures
            while len(alone) < 2:
                at_work = [one for one in workers if busy(one.pid)]
                alone = [*alone, *at_work] if len(at_work) == 1 and alone in ([], at_work) else []
                assert process.poll() is None, log.read_text()
            os.killpg(alone[0].pid, signal.SIGKILL)
            process.wait()
        assert "measures time" in log.read_text()
        assert "it is not measured a second time" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        farm.end()


def test_a_scheduler_that_is_lost_ends_the_run_with_a_word(work: Path, tmp_path: Path) -> None:
    (tmp_path / "farm").mkdir()
    farm = Farm(tmp_path / "farm", work)
    log = work / "scheduler.log"
    try:
        farm.worker("one")
        with farm.running(log) as process:
            wait_for(lambda: "trace" in begun(log.read_text()) or process.poll() is not None)
            os.killpg(farm.processes[0].pid, signal.SIGKILL)
            assert process.wait(120) == 2
        assert f"the scheduler at {farm.address} does not answer any more" in log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        farm.end()


def busy(pid: int) -> bool:
    """Whether a worker's own process takes processor time now."""

    def taken() -> float:
        group = subprocess.run(["ps", "-o", "pid=", "-g", str(pid)], capture_output=True, text=True, check=True).stdout.split()
        return sum(seconds_of(int(one)) for one in group)

    before = taken()
    time.sleep(1)
    return taken() - before > 0.2


@pytest.mark.thorough
def test_a_worker_of_another_version_is_left_out(work: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(dtvit_deploy.__file__).parent, other / "dtvit_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    changed = other / "dtvit_deploy" / "pipeline" / "scoring.py"
    changed.write_text(changed.read_text() + "\n# another\n")
    (tmp_path / "farm").mkdir()
    farm = Farm(tmp_path / "farm", work)
    try:
        farm.worker("other", other)
        said, _ = farm.run(code=3)
        assert "is left out: dtvit-deploy" in said
        assert "install the same version everywhere" in said
        assert "Traceback" not in said
    finally:
        farm.end()


def test_without_certificates_nothing_is_sent(farm: Farm, work: Path) -> None:
    done = deploy("run", "--scheduler", farm.address, cwd=work, code=2)
    assert "names no certificate" in done.stderr
    done = deploy("run", "--scheduler", "tcp://127.0.0.1:9", cwd=work, code=2)
    assert "no scheduler answers at tcp://127.0.0.1:9" in done.stderr


@pytest.mark.thorough
def test_a_worker_without_pytorch_builds_and_is_asked_for_nothing_else(work: Path, tmp_path: Path) -> None:
    # A registry's network: one of a user's own is traced each time.
    small = '[model]\nname = "dualtoken-vit-t-mix"\ninput_size = [64, 64]\nnum_classes = 3\n'
    (work / "dtvit-deploy.toml").write_text(
        CUT.replace('[model]\nname = "small:make"\n', small).replace(', "int8"', "").replace("[int8]\nsamples = 6\nsearch = false\n", "")
    )
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(np.__file__).parents[1].iterdir():  # everything that is installed here, but for PyTorch
        if not entry.name.lower().startswith(("torch", "functorch", "nncf", "coremltools", "__editable__")):
            (packages / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (tmp_path / "farm").mkdir()
    farm = Farm(tmp_path / "farm", work)
    source = Path(dtvit_deploy.__file__).parents[1]
    try:
        whole = farm.worker("whole")
        farm.run("--only", "checked", code=0)
        os.killpg(whole.pid, signal.SIGKILL)
        farm.worker("bare", Path(os.pathsep.join(map(str, (source, packages)))), inside=(python, "-m", "dask"))
        said, _ = farm.run("--only", "openvino fp32", code=0)
        assert "1 worker on" in said
        assert list((farm.folder / "bare" / "cache").glob("stage-build-*"))
        said, _ = farm.run("--only", "parity", code=3)
        assert "no worker can do parity: it needs torch as it is here" in said
        assert "Traceback" not in said
    finally:
        farm.end()


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces, each with an address of its own on a bridge at 10.213.0.1."""

    def ip(words: str) -> bool:
        return subprocess.run(["ip", *words.split()], capture_output=True, check=False).returncode == 0

    names = ["dtvit1", "dtvit2"]
    if shutil.which("ip") is None or os.geteuid() or not (ip("link del dtvit-br") | ip("link add dtvit-br type bridge")):
        pytest.skip("network namespaces need root, CAP_NET_ADMIN and iproute2")
    try:
        made = [ip("addr add 10.213.0.1/24 dev dtvit-br"), ip("link set dtvit-br up")]
        for number, name in enumerate(names, 2):
            made += [
                ip(f"netns add {name}"),
                ip(f"link add {name}-a type veth peer name {name}-b"),
                ip(f"link set {name}-a master dtvit-br up"),
            ]
            made += [ip(f"link set {name}-b netns {name}"), ip(f"-n {name} addr add 10.213.0.{number}/24 dev {name}-b")]
            made += [ip(f"-n {name} link set {name}-b up"), ip(f"-n {name} link set lo up")]
        if not all(made):
            pytest.skip("network namespaces cannot be made here")
        yield names
    finally:
        for name in names:
            ip(f"netns del {name}")
            ip(f"link del {name}-a")
        ip("link del dtvit-br")


@pytest.mark.thorough
def test_workers_in_networks_of_their_own_have_the_same_figures(
    work: Path, tmp_path: Path, namespaces: list[str], alone: tuple[dict[str, Any], dict[str, str]]
) -> None:
    """Over TLS; nothing reaches them but the scheduler's address and what it tells of the others."""
    (tmp_path / "farm").mkdir()
    farm = Farm(tmp_path / "farm", work, host="10.213.0.1")
    try:
        for number, name in enumerate(namespaces, 2):
            farm.worker(name, host=f"10.213.0.{number}", inside=("ip", "netns", "exec", name, DASK))
        said, report = farm.run()
        assert "2 workers" in said
        assert figures(report) == figures(alone[0])
        assert hashes(work / "out") == alone[1]
    finally:
        farm.end()
