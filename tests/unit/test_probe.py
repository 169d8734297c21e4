"""The probe: peak memory of a process as it reads it, and what it hands on to the process that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.memory import forget_peak, peak_memory_mib
from dtvit_deploy.runtimes.pairing import Pairing
from dtvit_deploy.runtimes.probe import main, probe
from dtvit_deploy.runtimes.registry import RUNTIMES


def test_peak_memory_remembers_what_was_freed() -> None:
    before = peak_memory_mib()
    assert before is not None
    block = bytearray(int(before + 64) << 20)  # more than ever before
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    del block
    after = peak_memory_mib()
    assert after is not None
    assert after >= before + 50


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system goes on from the greatest so far")
def test_the_peak_of_a_stage_is_not_that_of_the_one_before() -> None:
    block = bytearray(300 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    with_it = peak_memory_mib()
    del block
    if not forget_peak():
        pytest.skip("this system does not let a process write /proc/self/clear_refs")
    without = peak_memory_mib()
    assert with_it is not None
    assert without is not None
    assert without < with_it - 250


def test_peak_memory_of_a_child_is_not_its_parents() -> None:
    block = bytearray(200 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    program = "from dtvit_deploy.runtimes.memory import peak_memory_mib; print(peak_memory_mib())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 150


class _Recorder(FakeRuntime):
    """Notes what a session was opened with."""

    opened: list[tuple[bool, SessionOptions]]

    def load(self, artifact: Artifact, options: SessionOptions) -> Any:
        self.opened.append((artifact.trusted, options))
        return super().load(artifact, options)


@pytest.mark.parametrize(("trusted", "cuda_graph"), [(True, True), (True, False), (False, True)])
def test_trust_and_options_arrive_in_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trusted: bool, cuda_graph: bool
) -> None:
    path = tmp_path / "net.fake"
    path.write_bytes(b"any")
    digest, tensor = sha256_of(path), TensorSpec("x", (1, 2))
    manifest = Manifest(
        model="any",
        format="fake",
        precision=Precision.FP32,
        sha256=digest,
        signature=Signature((tensor,), (tensor,)),
        lineage=(Link(kind="fake", sha256=digest),),
    )
    write_json(manifest_path(path), manifest)
    runtime = _Recorder(function=lambda feeds: feeds)
    runtime.opened = []
    monkeypatch.setitem(RUNTIMES, "fake", lambda: runtime)

    def here(command: list[str], **_: Any) -> Any:
        main(*command[command.index("-c") + 3 :])
        return SimpleNamespace(returncode=0, stdout=capsys.readouterr().out.encode())

    monkeypatch.setattr(subprocess, "run", here)
    artifact = msgspec.structs.replace(load_artifact(path), trusted=trusted)
    options = SessionOptions(threads=3, cuda_graph=cuda_graph)
    assert probe(Pairing(artifact, runtime), options).first_load.median_ms >= 0
    assert runtime.opened == [(trusted, options)] * 3  # one start in each of three processes

    path.write_bytes(b"else")  # what is trusted are bytes, not a name
    with pytest.raises(InputError, match="changed after export"):
        probe(Pairing(artifact, runtime), options)
