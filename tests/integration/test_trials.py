"""What comes from elsewhere is tried in a process of its own, whatever loads it: work of hours and memory of a server are refused soon."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.openvino.ir import openvino_from_onnx
from dtvit_deploy.formats.engine.passport import GRAPH
from dtvit_deploy.runtimes import trial
from dtvit_deploy.runtimes.arm64.session import EmulatedArm64
from dtvit_deploy.runtimes.base import Runtime, SessionOptions
from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime
from dtvit_deploy.runtimes.openvino import OpenVinoRuntime
from dtvit_deploy.runtimes.registry import RUNTIMES, runtime_for
from dtvit_deploy.runtimes.tensorrt.emulated import EmulatedTensorRt
from fuzz import cases

pytest.importorskip("openvino", reason="OpenVINO is not installed")

Vouch = Callable[[Path, Manifest], Artifact]
SIGNATURE = Signature((TensorSpec("x", (1, 1)),), (TensorSpec("y", (1, 1)),))
KINDS = ("onnx", "openvino", "trtjob")


def graph(side: int, products: int) -> onnx.ModelProto:
    """x, spread over a matrix of that side, multiplied with itself again and again; one value of the last is the answer."""
    nodes = [helper.make_node("Expand", ["x", "size"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{index}", f"m{index}"], [f"m{index + 1}"]) for index in range(products)]
    nodes += [helper.make_node("ReduceMax", [f"m{products}"], ["y"], axes=[0, 1], keepdims=1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1)) for name in "xy"]
    sizes = numpy_helper.from_array(np.array([side, side]), "size")
    whole = helper.make_graph(nodes, "large", ends[:1], ends[1:], [sizes])
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def artefact(folder: Path, content: onnx.ModelProto, kind: str, vouch: Vouch) -> Artifact:
    path = folder / f"large.{kind}"
    if kind == "onnx":
        onnx.save(content, path)
    else:
        path.mkdir()
        onnx.save(content, folder / "source.onnx")
        if kind == "openvino":
            openvino_from_onnx(folder / "source.onnx", path / "model.xml")
        else:
            onnx.save(content, path / GRAPH)
    link = Link(kind=kind, sha256="0" * 64, options={"INFERENCE_PRECISION_HINT": "f32"})
    manifest = Manifest(model="any", format=kind, precision=Precision.FP32, sha256="0" * 64, signature=SIGNATURE, lineage=(link,))
    return vouch(path, manifest)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    cases.write_seeds(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_hours_is_given_up(kind: str, vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CPU_SECONDS", 2)
    large = artefact(tmp_path, graph(4096, 400), kind, vouch)  # 55 Tflop
    begun = time.perf_counter()
    with pytest.raises(InputError, match=r"loading and running large\.\w+ in \w[\w ]+ takes more than 2 s of processor time") as caught:
        runtime_for(large).load(large, SessionOptions())
    assert time.perf_counter() - begun < trial.SECONDS
    assert caught.value.remedy


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_fills_the_memory_is_refused(kind: str, vouch: Vouch, tmp_path: Path) -> None:
    large = artefact(tmp_path, graph(65536, 1), kind, vouch)  # 16 GiB for each tensor
    with pytest.raises(InputError, match=r"large\.\w+ takes more memory in|ends the process|does not load") as caught:
        runtime_for(large).load(large, SessionOptions())
    assert caught.value.remedy


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_order_is_tried_once_and_what_is_trusted_never(
    kind: str, vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def counted(*command: str) -> list[str]:
        calls.append(command)
        return real(*command)

    real = trial.child_command
    monkeypatch.setattr(trial, "child_command", counted)
    small = artefact(tmp_path, graph(3, 2), kind, vouch)
    runtime = runtime_for(small)
    runtime.load(msgspec.structs.replace(small, trusted=True), SessionOptions())
    assert not calls
    runtime.tensors(small)
    for _ in range(2):
        with runtime.load(small, SessionOptions()) as session:
            assert session.run({"x": np.ones((1, 1), np.float32)})["y"] == 27
    assert len(calls) == 1


def test_where_the_runtime_itself_is_not_here_the_trial_finds_no_fault(
    vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loads it says what is missing, and how to get it."""
    small = artefact(tmp_path, graph(3, 1), "onnx", vouch)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    refusal = trial._tried(small, OnnxRuntime, "ONNX Runtime")
    assert refusal is None or "ends the process" in refusal.message  # without numpy it cannot even begin


def test_a_runtime_that_is_in_no_table_is_tried_too(vouch: Vouch, tmp_path: Path) -> None:
    """The other process is told a class, and asks nobody what runtimes there are."""
    assert EmulatedArm64.name not in RUNTIMES
    small = artefact(tmp_path, graph(3, 1), "onnx", vouch)
    elsewhere = Signature((TensorSpec("z", (1, 1)),), SIGNATURE.outputs)
    other = Artifact(small.path, msgspec.structs.replace(small.manifest, signature=elsewhere))
    refusal = trial._tried(other, EmulatedArm64, "an ARM64 core")
    assert refusal is not None
    assert "is not the graph that its manifest describes" in refusal.message


def test_every_runtime_that_loads_a_graph_from_a_file_asks_for_a_trial(
    vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[type[Runtime]] = []

    def noted(artifact: Artifact, runtime: type[Runtime], title: str) -> None:
        asked.append(runtime)
        raise InputError("not now")

    for name in ("onnxruntime", "openvino", "tensorrt.emulated"):
        monkeypatch.setattr(f"dtvit_deploy.runtimes.{name}.require_survived", noted)
    for kind, runtime in zip(KINDS, ("onnxruntime", "openvino", "emulated-in-onnxruntime"), strict=True):
        (tmp_path / kind).mkdir()
        small = artefact(tmp_path / kind, graph(3, 1), kind, vouch)
        for use in (lambda one, it: one.tensors(it), lambda one, it: one.load(it, SessionOptions())):
            with pytest.raises(InputError, match="not now"):
                use(RUNTIMES[runtime](), small)
    assert asked == [kind for kind in (OnnxRuntime, OpenVinoRuntime, EmulatedTensorRt) for _ in range(2)]


class TestChangedFiles:
    """A seeded sample of `make fuzz`."""

    @pytest.mark.parametrize(("kind", "count"), [("onnx", 8), ("openvino", 8), ("pt", 60)])
    def test_each_is_refused_or_taken_and_some_are_refused(self, kind: str, count: int, seeds: Path, tmp_path: Path) -> None:
        before = sha256_of(seeds)
        found = [cases.run(kind, number, seeds, tmp_path) for number in range(10_000, 10_000 + count)]
        assert {outcome.what for outcome in found} <= {"accepted", "refused"}, [one for one in found if one.what == "defect"]
        assert any(outcome.what == "refused" for outcome in found)
        assert sha256_of(seeds) == before

    @pytest.mark.parametrize("kind", ["onnx", "openvino", "pt"])
    def test_the_file_that_they_are_made_from_is_taken(
        self, kind: str, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cases, "mutated_onnx", lambda content, _: content)
        monkeypatch.setattr(cases, "mutated_ir", lambda graph, constants, _: (graph, constants))
        monkeypatch.setattr(cases, "mutated_pt", lambda content, _: content)
        assert cases.run(kind, 0, seeds, tmp_path).what == "accepted"

    def test_the_counts_are_printed_and_what_is_no_refusal_fails_the_run(self) -> None:
        command = [sys.executable, "-m", "fuzz", "--onnx", "2", "--openvino", "0", "--pt", "0"]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["onnx", "openvino", "pt"]
