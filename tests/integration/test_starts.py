"""What comes before steady inference, stage by stage; and an artefact that fails there, which costs the others nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, manifest_path
from dtvit_deploy.artifacts.failure import FailedError, FailureClass
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.timing import latency
from dtvit_deploy.process.child import child_command
from dtvit_deploy.process.memory import killed_for_it
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.cold import STARTS, Taken, required, told
from dtvit_deploy.runtimes.failed import of_process
from dtvit_deploy.runtimes.pairing import pairings
from dtvit_deploy.runtimes.probe import probe
from judged import Judged, judged, picture

QUICK = MeasureOptions(min_samples=8, min_seconds=0, warmup_seconds=0, max_warmup_seconds=0.2, energy_seconds=0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 4)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(image.flatten(1))
        return logits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judged(Small(), picture(), tmp_path_factory.mktemp("made"))


def named(made: Judged, folder: Path, name: str) -> Artifact:
    path = folder / f"{name}.onnx"
    shutil.copy(made.artifact.path, path)
    shutil.copy(manifest_path(made.artifact.path), manifest_path(path))
    return load_artifact(path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is begun for each start")
def test_each_stage_has_its_time_its_range_and_its_memory(made: Judged) -> None:
    (pairing,) = pairings((made.artifact,))
    found = probe(pairing, SessionOptions())
    assert found.warm_load is not None
    for stage in (found.first_load, found.first_inference, found.warm_load):
        assert 1 <= len(stage.samples_ms) <= STARTS
        assert 0 < stage.least_ms <= stage.median_ms <= stage.most_ms
        assert stage.most_ms in stage.samples_ms
        assert stage.peak_mib is not None
        assert stage.peak_mib > 10
    assert found.warm == "the file in the system's page cache"
    assert found.steady_peak_mib is not None
    assert found.peak_mib == max(found.first_load.peak_mib or 0, found.first_inference.peak_mib or 0, found.warm_load.peak_mib or 0,
                                 found.steady_peak_mib)  # fmt: skip


def test_an_artefact_that_fails_at_its_start_costs_the_others_nothing(made: Judged, tmp_path: Path) -> None:
    good, spoilt = named(made, tmp_path, "good"), named(made, tmp_path, "spoilt")
    content = bytearray(spoilt.path.read_bytes())
    content[-1] ^= 1  # after it was looked at
    spoilt.path.write_bytes(content)
    bench = Bench(made.program, pairings((spoilt, good)), made.material, 1, Silent())
    reference, failed, measured = latency(bench, QUICK)
    assert reference.latency is not None
    assert measured.latency is not None
    assert measured.latency.starts is not None
    assert failed.latency is None
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.stage) == (FailureClass.CORRUPT, "start")
    assert "spoilt.onnx could not be loaded and run in a process of its own" in failed.failure.message
    assert "changed after export" in failed.failure.message
    assert bench.conditions(bench.pairings[0])["runtime"] == "onnxruntime"  # nobody loads it once more to ask


def test_where_all_of_them_fail_the_first_says_why(made: Judged, tmp_path: Path) -> None:
    spoilt = named(made, tmp_path, "spoilt")
    spoilt.path.write_bytes(spoilt.path.read_bytes() + b"x")
    bench = Bench(made.program, pairings((spoilt,)), made.material, 1, Silent())
    with pytest.raises(InputError, match="changed after export"):
        latency(bench, QUICK)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("std::bad_alloc"), FailureClass.OUT_OF_MEMORY),
        (MissingError("no runtime"), FailureClass.MISSING),
        (ImportError("no module"), FailureClass.MISSING),
        (InputError("an operator that is not known"), FailureClass.REFUSED),
        (TimeoutError("too long"), FailureClass.TIMEOUT),
        (RuntimeError("an exception of its own"), FailureClass.CRASH),
    ],
)
@pytest.mark.filterwarnings("default")
def test_what_goes_wrong_in_a_start_has_a_class(error: Exception, kind: FailureClass) -> None:
    def fails() -> Taken:
        raise error

    with pytest.raises(FailedError) as caught:
        required(told(fails))
    assert caught.value.failure.kind is kind
    assert msgspec.json.decode(msgspec.json.encode(told(fails))) == msgspec.to_builtins(told(fails))


@pytest.mark.parametrize(
    ("ends", "kind", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", FailureClass.CRASH, "it was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", FailureClass.TIMEOUT, "it was ended by SIGXCPU"),
        ("sys.exit('std::bad_alloc')", FailureClass.OUT_OF_MEMORY, "std::bad_alloc"),
        ("sys.exit('who knows')", FailureClass.CRASH, "who knows"),
    ],
)
def test_a_process_that_tells_nothing_is_known_by_its_end(ends: str, kind: FailureClass, says: str) -> None:
    limited = f"import os, resource, signal, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); {ends}"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    failure = of_process("net.onnx could not be loaded", done.returncode, done.stderr)
    assert (failure.kind, failure.message) == (kind, f"net.onnx could not be loaded: {says}")


def test_a_process_that_the_system_ends_for_memory_is_told_from_one_that_somebody_ends(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], check=False).returncode
    assert of_process("it", ended, "").kind == FailureClass.CRASH
    starved = of_process("it", ended, "", starved=True)
    assert (starved.kind, starved.message) == (FailureClass.OUT_OF_MEMORY, "it: the system ended it, since memory ran out")
    assert of_process("it", -signal.SIGSEGV, "", starved=True).kind == FailureClass.CRASH  # which is another end
    assert killed_for_it(tmp_path) == 0  # where nothing tells
    for name, content in (
        ("proc/vmstat", "nr_free_pages 5\noom_kill 3\n"),
        ("proc/self/cgroup", "0::/job\n"),
        ("sys/fs/cgroup/job/memory.events", "oom 9\noom_kill 2\noom_group_kill 0\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert killed_for_it(tmp_path) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing forks")
def test_a_fork_that_is_ended_ends_its_process_in_the_same_way(made: Judged) -> None:
    program = """
import os, resource, signal
from pathlib import Path
from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.runtimes.cold import take
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
artifact = load_artifact(Path(sys.argv[1]))
take("onnxruntime", artifact.manifest, artifact.path, lambda cache: os.kill(os.getpid(), signal.SIGABRT), warm=False)
"""
    done = subprocess.run(child_command("exec(sys.argv.pop(1))", program, str(made.artifact.path)), capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT


def test_openvino_finds_what_it_compiled_before(made: Judged, openvino_of: Callable[[Judged], Artifact]) -> None:
    (pairing,) = pairings((openvino_of(made),))
    found = probe(pairing, SessionOptions())
    assert found.warm_load is not None
    assert found.warm == "OpenVINO's cache of compiled models (CACHE_DIR)"


@pytest.fixture
def openvino_of(tmp_path: Path) -> Callable[[Judged], Artifact]:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.pipeline.openvino import openvino_stage

    return lambda made: openvino_stage(made.artifact, Precision.FP32, Cache(tmp_path / "cache"))
