"""TensorRT's artefacts without a GPU: their graphs answer in their own types, say that they are emulated, and are never timed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from checking import checked
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.cli import show
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.formats.engine import gpu as gpu_module
from dtvit_deploy.formats.engine.gpu import Gpu, Gpus
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LINK, PASSPORT, Passport
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.recipe.judging import Gates, Limits
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Report
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.pairing import Pairing
from dtvit_deploy.runtimes.registry import open_session, runtime_for
from dtvit_deploy.runtimes.tensorrt import session as tensorrt_module
from dtvit_deploy.runtimes.tensorrt.emulated import EmulatedTensorRt

Array = NDArray[Any]
FLOAT, FLOAT16, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8
SIGNATURE = Signature((TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 4)),))
X = np.array([[0.5, -1.0, 2.0, 300.0]], np.float32)


def graph(*nodes: onnx.NodeProto, **constants: Array) -> onnx.ModelProto:
    """Nodes from ``x`` to ``y``, both FP32."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, (1, 4)) for name in "xy")
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(list(nodes), "net", [x], [y], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


SCALED = graph(
    node("Cast", "x", "half", to=FLOAT16),
    node("Mul", "half large", "grown"),
    node("Div", "grown large", "back"),
    node("Cast", "back", "y", to=FLOAT),
    large=np.array(300, np.float16),
)
"""x · 300 ÷ 300 in FP16: 300 · 300 is more than FP16 holds."""


def vouched(path: Path, manifest: Manifest, format: str, **options: Any) -> Artifact:  # noqa: A002 - the manifest's word
    """The folder as an artefact that was made from another's graph."""
    digest = sha256_of(path)
    lineage = (*manifest.lineage, Link(kind=LINK, sha256=digest, options=options))
    write_json(manifest_path(path), msgspec.structs.replace(manifest, format=format, sha256=digest, lineage=lineage))
    return load_artifact(path)


def folder(path: Path, model: onnx.ModelProto, precision: Precision = Precision.FP16, **passport: Any) -> Artifact:
    """A folder with a graph, an engine that is none, and the passport of both."""
    path.mkdir()
    (path / GRAPH).write_bytes(model.SerializeToString())
    version = [int(part) for part in passport.get("version", "1.8.1.0").split(".")]  # of another release than 1.7 no more is known
    engine = struct.pack("<4sI16x4B", b"vtrt", 0, *version)
    (path / ENGINE).write_bytes(engine)
    words = {
        "library": "tensorrt-rtx",
        "version": "1.8.1.0",
        "capabilities": ("8.9", "12.0"),
        "platform": "linux x86_64",
        "engine": hashlib.sha256(engine).hexdigest(),
        "bytes": len(engine),
        "graph": sha256_of(path / GRAPH),
    }
    made = Link(kind="onnx", sha256="0" * 64)
    manifest = Manifest(model="any", format="onnx", precision=precision, sha256="0" * 64, signature=SIGNATURE, lineage=(made,))
    return vouched(path, manifest, "rtx", **{PASSPORT: msgspec.to_builtins(Passport(**words | passport))})


def answer(artifact: Artifact, taps: tuple[str, ...] = (), x: Array = X) -> dict[str, Array]:
    with EmulatedTensorRt().load(artifact, SessionOptions(taps=taps)) as session:
        return session.run({"x": x})


class TestArithmetic:
    def test_what_overflows_in_fp16_overflows_here_and_is_hidden_by_onnx_runtime_alone(self, tmp_path: Path) -> None:
        assert np.isfinite(run_graph(SCALED, SIGNATURE, [{"x": X}])[0]["y"]).all()
        np.testing.assert_array_equal(answer(folder(tmp_path / "net.rtx", SCALED))["y"], [[0.5, -1.0, 2.0, np.inf]])

    def test_inner_tensors_have_the_graphs_names_and_the_rounded_values(self, tmp_path: Path) -> None:
        artifact = folder(tmp_path / "net.rtx", SCALED)
        offered = EmulatedTensorRt().tensors(artifact)
        assert offered == ("half", "grown", "back")
        x = np.array([[0.1, 1 / 3, 1000.1, 217.0]], np.float32)
        inner = answer(artifact, offered, x)
        half = x.astype(np.float16)
        np.testing.assert_array_equal(inner["half"], half.astype(np.float32))
        np.testing.assert_array_equal(inner["grown"][0, :2], (half[0, :2] * np.float16(300)).astype(np.float32))
        assert np.isinf(inner["grown"][0, 2])
        with pytest.raises(InputError, match="no tensor grown_unrounded"):
            answer(artifact, ("grown_unrounded",))

    def test_quantised_values_are_those_of_the_grid_and_their_products_exact(self, tmp_path: Path) -> None:
        """Two products of 127 · 127 and their like are more than the 16-bit sums of kernels for CPUs without VNNI hold."""
        weights = np.full((4, 4), 127, np.int8)
        model = graph(
            node("QuantizeLinear", "x step zero", "q"),
            node("DequantizeLinear", "q step zero", "d"),
            node("DequantizeLinear", "w one zero", "wd"),
            node("MatMul", "d wd", "y"),
            step=np.array(0.5, np.float32),
            zero=np.array(0, np.int8),
            one=np.array(1, np.float32),
            w=weights,
        )
        x = np.array([[63.4, 63.5, 64.0, 1000.0]], np.float32)
        values = np.clip(np.rint(x / 0.5), -128, 127) * 0.5
        found = answer(folder(tmp_path / "net.rtx", model, Precision.INT8), x=x)
        np.testing.assert_array_equal(found["y"], values @ weights.astype(np.float64))


class TestWhatIsSaid:
    def test_the_conditions_say_that_it_is_emulated_and_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        without_gpu = Gpus((), "", "no NVIDIA driver is installed")
        monkeypatch.setattr(tensorrt_module, "gpus", lambda: without_gpu)
        artifact = folder(tmp_path / "net.rtx", SCALED)
        assert runtime_for(artifact).rung is Rung.EMULATED
        with open_session(artifact, SessionOptions()) as session:
            told = session.conditions
        assert told["runtime"] == f"emulated-in-onnxruntime {onnxruntime.__version__}"
        assert told["emulated"] == f"the graph in its own types in ONNX Runtime {onnxruntime.__version__}"
        assert told["engine"] == "not executed: no NVIDIA driver is installed"
        assert told["precision"].startswith("fp16 graph: every FP16 tensor rounded to FP16")

    def test_a_gpu_that_the_engine_is_not_for_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = pytest.importorskip("tensorrt_rtx", reason="the extra `trt-rtx` is not installed")
        ancient = Gpus((Gpu("Ancient", "7.0", 1 << 30),), "13.0", "")
        for module in (tensorrt_module, gpu_module):
            monkeypatch.setattr(module, "gpus", lambda: ancient)
        monkeypatch.setattr(gpu_module, "board", lambda root: "")
        monkeypatch.setattr(tensorrt_module, "missing_cuda", lambda: ("", ""))
        monkeypatch.setattr(real, "__version__", "1.8.1.0")
        artifact = folder(tmp_path / "net.rtx", SCALED)
        with open_session(artifact, SessionOptions()) as session:
            told = session.conditions["engine"]
        found, needed = "Ancient has compute capability 7.0", "one of compute capability 8.9 or 12.0"
        assert told == f"not executed: built for another GPU: {found}, and needed is {needed}"

    def test_a_job_is_emulated_before_it_is_built(self, tmp_path: Path) -> None:
        artifact = folder(tmp_path / "net.job", SCALED)
        job = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, format="trtjob"))
        with open_session(job, SessionOptions()) as session:
            assert session.conditions["engine"] == "not executed: it is yet to be built, on its device"
            assert session.run({"x": X})["y"].shape == (1, 4)


class TestRefusals:
    def test_a_graph_that_is_not_the_passports_is_refused(self, tmp_path: Path) -> None:
        artifact = folder(tmp_path / "net.rtx", SCALED, graph="0" * 64)
        for refused in (lambda: answer(artifact), lambda: EmulatedTensorRt().tensors(artifact)):
            with pytest.raises(InputError, match=r"graph\.onnx in net\.rtx is not the one that the engine was built from"):
                refused()

    def test_an_artefact_without_a_graph_is_refused(self, tmp_path: Path) -> None:
        artifact = folder(tmp_path / "net.rtx", SCALED)
        (artifact.path / GRAPH).unlink()
        with pytest.raises(InputError, match=r"net\.rtx holds no graph\.onnx, so there is nothing to evaluate"):
            answer(artifact)

    @pytest.mark.parametrize(
        "spoilt",
        [
            graph(node("Mul", "x absent", "y")),
            graph(node("NoSuchOperator", "x", "y")),
            graph(node("Cast", "x", "y", to=FLOAT16)),
            graph(node("Add", "y x", "y")),
            onnx.ModelProto(),
        ],
        ids=["a missing tensor", "an unknown operator", "another type", "a circle", "nothing"],
    )
    def test_a_graph_that_makes_no_sense_is_refused_and_not_crashed_on(self, tmp_path: Path, spoilt: onnx.ModelProto) -> None:
        with pytest.raises(InputError) as caught:
            answer(folder(tmp_path / "net.rtx", spoilt))
        assert len(str(caught.value).splitlines()) == 1
        assert caught.value.remedy


class Residual(nn.Module):
    """Overflows FP16 between its two layers, and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return (x + self.second(8 * self.first(x).relu()) * 6e4) * 1e-5


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.residual, self.head = nn.Linear(8, 8), Residual(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.residual(self.stem(x)))


class Made:
    """One small network as a program, as ONNX, and as TensorRT-RTX's folders in FP32, in mixed FP16 and in FP16 throughout."""

    def __init__(self, work: Path) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        weights = Link(kind="seeded", sha256="0" * 64)
        reference = Reference(
            model="mine:net", module=Network().eval(), inputs={"x": torch.randn(1, 8)}, output_names=("logits",), weights=weights
        )
        (work / "program").mkdir()
        write_program(reference, work / "program")
        self.program: ProgramEntry = read_program_entry(work / "program")
        self.material: Material = open_material(None, self.program.artifact.manifest)
        cache = Cache(work / "cache")
        self.onnx = onnx_stage(self.program, self.material.guard(), cache)
        mixed = float16_stage(self.onnx, self.material.guard(), (), cache)
        self.fp32 = self._folder(work / "net.fp32.rtx", self.onnx.path.read_bytes(), self.onnx.manifest)
        self.mixed = self._folder(work / "net.fp16.rtx", mixed.path.read_bytes(), mixed.manifest)
        throughout = float16_onnx(onnx.load(self.onnx.path), {}).model.SerializeToString()
        self.fp16 = self._folder(work / "net.throughout.rtx", throughout, mixed.manifest)

    @staticmethod
    def _folder(path: Path, content: bytes, manifest: Manifest) -> Artifact:
        path.mkdir()
        (path / GRAPH).write_bytes(content)
        return vouched(path, manifest, "rtx")

    def check(self, command: str, figures: Figures, *artifacts: Artifact, gates: Gates | None = None) -> Report:
        return checked(self.program, artifacts, self.material, figures, command=command, gates=gates)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    if tensorrt_module.gpus().found:
        pytest.skip("there is a GPU, and these artefacts have no engine for it")
    return Made(tmp_path_factory.mktemp("made"))


class TestVerify:
    def test_layers_are_walked_and_the_module_that_overflows_is_named(self, made: Made) -> None:
        report = made.check("verify", Figures(parity=True, layers=True), made.fp32, made.mixed, made.fp16)
        assert report.verdict is not None
        _, fp32, mixed, fp16 = report.subjects
        assert {subject.rung for subject in (fp32, mixed, fp16)} == {Rung.EMULATED}
        for subject in (fp32, mixed):
            assert subject.verdict is not None
            assert subject.verdict.passed, subject.verdict.reason
            assert subject.layers is not None
            assert subject.layers.first is None
            assert len(subject.layers.layers) > 5
        assert fp16.verdict is not None
        assert not fp16.verdict.passed
        assert fp16.layers is not None
        assert fp16.layers.first is not None
        assert fp16.layers.first.startswith("residual")


NOT_MEASURED = "not measured: emulated, at a speed that is not the device's; a figure needs the device"


class TestLatency:
    def test_it_is_measured_of_the_others_only_and_the_report_says_so(
        self, made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        probed: list[str] = []
        monkeypatch.setattr("dtvit_deploy.pipeline.timing.probe", _recording(probed))
        report = made.check("profile", Figures(latency=True), made.fp32, made.onnx, made.mixed)
        reference, fp32, plain, mixed = report.subjects
        assert probed == [made.program.artifact.name, made.onnx.name]
        assert reference.latency is not None
        assert plain.latency is not None
        assert plain.latency.conditions["measured"] == "interleaved with 1 other"
        assert plain.latency.conditions["runtime"].startswith("onnxruntime ")
        assert (fp32.latency, mixed.latency) == (None, None)
        assert f"latency of net.fp32.rtx, net.fp16.rtx {NOT_MEASURED}" in report.notes
        show.report(report)
        row = next(line for line in capsys.readouterr().out.splitlines() if "net.fp16.rtx" in line and "│" in line)
        assert [cell.strip() for cell in row.split("│")][2:9] == ["–"] * 7
        assert NOT_MEASURED in render_markdown(report).replace("\\", "")

    def test_of_emulated_artefacts_alone_it_is_refused_at_once(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.pipeline.timing.probe", _never)
        with pytest.raises(MissingError, match=r"the latency of net\.fp32\.rtx, net\.fp16\.rtx cannot be measured here") as caught:
            made.check("profile", Figures(latency=True), made.fp32, made.mixed)
        assert caught.value.remedy == "profile on the device; verify and evaluate work here"

    def test_a_run_goes_on_without_it_and_a_limit_on_it_fails_as_not_measured(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.pipeline.timing.probe", _never)
        figures = Figures(parity=True, latency=True)
        report = made.check("run", figures, made.fp32)
        assert report.verdict is not None
        assert report.verdict.passed, report.verdict.reason
        assert "latency" not in report.data
        assert all(subject.latency is None for subject in report.subjects)
        held = made.check("run", figures, made.fp32, gates=Gates(fp32=Limits(p50_ms=5.0))).verdict
        assert held is not None
        (failed,) = held.failed
        assert failed.name == "net.fp32.rtx: p50 (gate 'p50_ms' of the recipe)"
        assert failed.reason == "not measured; at most 5 asked"


def _recording(names: list[str]) -> Callable[[Pairing, SessionOptions], Any]:
    from dtvit_deploy.harness.latency.starts import Start, Starts, Taken, starts_of

    def probe(pairing: Pairing, options: SessionOptions) -> Starts:
        names.append(pairing.name)
        return starts_of(Taken(first=(Start(load_ms=1.0, first_ms=1.0),)))

    return probe


def _never(artifact: Artifact, options: SessionOptions) -> Any:
    raise AssertionError(f"{artifact.name} was started to be timed: {json.dumps(str(artifact.path))}")
