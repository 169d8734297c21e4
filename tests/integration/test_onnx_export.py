"""From a program to ONNX: what the graph says of itself, and that it is the same network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.artifacts.artifact import Link
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.calibration.feeds import adversarial_feeds, random_feeds
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.onnx.translate import OPSET, onnx_from_program
from dtvit_deploy.export.program import Program, program_from_reference
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import read_program_entry, write_program
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.torch.session import TorchSession


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Any:
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).reshape(count, tokens, width))


class Toy(nn.Module):
    """Two inputs, two outputs, and the operators of a light transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.stem[1].load_state_dict({"running_mean": torch.rand(16)}, strict=False)
        self.norm = nn.LayerNorm(16)
        self.attention = Attention(16, 2)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor, prompt: Tensor) -> dict[str, Tensor]:
        grid = F.interpolate(self.stem(image), scale_factor=0.5, mode="bilinear")
        tokens = torch.cat([grid.flatten(2).transpose(1, 2), prompt[:, None]], 1)
        tokens = tokens + self.attention(self.norm(tokens))
        tokens = tokens + self.mlp(tokens)
        return {"logits": self.head(tokens.mean(1)), "tokens": tokens}


def reference(module: nn.Module, **inputs: Tensor) -> Reference:
    made = Link(kind="seeded", sha256="0" * 64)
    return Reference(model="mine:net", module=module.eval(), inputs=inputs, output_names=(), weights=made)


def toy() -> Reference:
    torch.manual_seed(0)
    return reference(Toy(), image=torch.randn(1, 3, 32, 32), prompt=torch.randn(1, 16))


@pytest.fixture(scope="module")
def exported() -> tuple[onnx.ModelProto, Program]:
    return onnx_from_program(program_from_reference(toy()))


@pytest.fixture(scope="module")
def graph(exported: tuple[onnx.ModelProto, Program]) -> onnx.ModelProto:
    return exported[0]


@pytest.fixture(scope="module")
def program(exported: tuple[onnx.ModelProto, Program]) -> Program:
    return exported[1]


class TestGraph:
    def test_it_is_valid_and_of_the_opset_that_every_reader_takes(self, graph: onnx.ModelProto) -> None:
        onnx.checker.check_model(graph, full_check=True)
        assert {opset.domain: opset.version for opset in graph.opset_import} == {"": OPSET}
        assert OPSET == 20

    def test_a_gelu_is_one_operator(self, graph: onnx.ModelProto) -> None:
        assert [node.op_type for node in graph.graph.node].count("Gelu") == 1
        assert not {"Erf", "Tanh"} & {node.op_type for node in graph.graph.node}

    def test_inputs_and_outputs_are_the_signatures(self, graph: onnx.ModelProto, program: Program) -> None:
        for infos, specs in ((graph.graph.input, program.signature.inputs), (graph.graph.output, program.signature.outputs)):
            assert [info.name for info in infos] == [spec.name for spec in specs]
            assert [tuple(size.dim_value for size in info.type.tensor_type.shape.dim) for info in infos] == [spec.shape for spec in specs]

    def test_weights_are_inside_and_nothing_is_there_twice(self, graph: onnx.ModelProto) -> None:
        names = [tensor.name for tensor in graph.graph.initializer]
        assert len(set(names)) == len(names)
        assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer)
        made = [name for node in graph.graph.node for name in node.output]
        assert len(set(made)) == len(made)
        assert not set(made) & set(names)


class TestModules:
    def test_every_node_names_one_that_exists(self, graph: onnx.ModelProto) -> None:
        known = {name for name, _ in Toy().named_modules() if name} | {"(the network itself)"}
        assert {module_of(node) for node in graph.graph.node} <= known

    @pytest.mark.parametrize(
        ("operator", "modules"),
        [
            ("Conv", {"stem.0"}),
            ("LayerNormalization", {"norm"}),
            ("Softmax", {"attention"}),
            ("Gelu", {"mlp.1"}),
            ("Resize", {"(the network itself)"}),
        ],
    )
    def test_it_is_the_one_that_computes_it(self, graph: onnx.ModelProto, operator: str, modules: set[str]) -> None:
        assert {module_of(node) for node in graph.graph.node if node.op_type == operator} == modules

    def test_so_is_that_of_a_node_whose_tensor_torch_does_not_know(self, graph: onnx.ModelProto, program: Program) -> None:
        products = [node for node in graph.graph.node if node.op_type == "MatMul" and program.nodes.get(node.output[0]) is None]
        assert {module_of(node) for node in products} == {"attention.qkv", "attention.out", "mlp.0", "mlp.2"}

    def test_and_that_of_a_node_that_makes_an_output(self, graph: onnx.ModelProto) -> None:
        makers = {name: module_of(node) for node in graph.graph.node for name in node.output}
        assert makers["logits"] == "head"
        assert makers["tokens"] == "(the network itself)"

    def test_nothing_else_of_the_exporter_is_left(self, graph: onnx.ModelProto) -> None:
        assert {entry.key for node in graph.graph.node for entry in node.metadata_props} == {"module"}
        every = (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer, *graph.graph.input)
        assert not any(part.doc_string for part in every)
        assert not graph.metadata_props
        assert not graph.graph.metadata_props
        assert graph.producer_name == "dtvit-deploy"
        words = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), ".py", "pkg.torch")
        assert not [word for word in words if word.encode() in graph.SerializeToString()]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The graph as translated, simplified and in FP16."""
    folder = tmp_path_factory.mktemp("chain")
    write_program(toy(), folder)
    entry = read_program_entry(folder)
    cache, guard = Cache(folder / "cache"), open_material(None, entry.artifact.manifest).guard()
    simplified = onnx_stage(entry, guard, cache)
    halved = float16_stage(simplified, guard, (), cache)
    return {
        stage: onnx.load(path)
        for stage, path in (("translated", entry.translated), ("simplified", simplified.path), ("float16", halved.path))
    }


class TestNames:
    """A tensor is found by its name in every artefact, and it is the same tensor."""

    @pytest.mark.parametrize(
        ("stage", "share", "tolerance"), [("translated", 0.8, 1e-5), ("simplified", 0.7, 1e-5), ("float16", 0.7, 1e-2)]
    )
    def test_a_shared_name_means_the_same_values(
        self, chain: dict[str, onnx.ModelProto], program: Program, stage: str, share: float, tolerance: float
    ) -> None:
        made = {name for node in chain[stage].graph.node for name in node.output}
        shared = tuple(node.name for node in program.nodes.nodes if node.name in made)
        assert len(shared) >= share * len(program.nodes.nodes)
        feeds = [*random_feeds(program.signature, 2), *adversarial_feeds(program.signature).values()]
        with TorchSession(program.exported, program.signature, SessionOptions(taps=shared)) as session:
            for feed in feeds:
                (outputs,) = run_graph(chain[stage], program.signature, [feed], shared)
                for name, expected in session.run(feed).items():
                    allowed = tolerance * float(np.abs(expected).max(initial=1.0))
                    np.testing.assert_allclose(outputs[name].ravel(), expected.ravel(), rtol=0, atol=allowed, err_msg=name)

    def test_simplification_merged_what_the_names_must_survive(self, chain: dict[str, onnx.ModelProto]) -> None:
        before, after = ([node.op_type for node in chain[stage].graph.node] for stage in ("translated", "simplified"))
        assert "BatchNormalization" in before
        assert "BatchNormalization" not in after
        assert after.count("Gemm") > before.count("Gemm")

    def test_a_merged_node_names_the_module_whose_values_come_out_of_it(self, chain: dict[str, onnx.ModelProto]) -> None:
        for stage in ("simplified", "float16"):
            assert {module_of(node) for node in chain[stage].graph.node if node.op_type in ("Conv", "Gemm")} == {
                "stem.1",  # the batch norm, which was folded into the convolution
                "attention.qkv",
                "attention.out",
                "mlp.0",
                "mlp.2",
                "head",
            }

    def test_every_node_of_every_stage_names_a_module(self, chain: dict[str, onnx.ModelProto]) -> None:
        for graph in chain.values():
            assert [node.name for node in graph.graph.node if module_of(node) == "(no module)"] == []


class TestRefusals:
    def test_an_operator_without_a_translation_is_named(self, capfd: pytest.CaptureFixture[str]) -> None:
        class Solver(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return torch.linalg.lu_factor(x)[0]

        program = program_from_reference(reference(Solver(), x=torch.eye(4)[None]))
        with pytest.raises(InputError, match=r"translated to ONNX opset 20: No ONNX function found .*linalg_lu_factor") as caught:
            onnx_from_program(program)
        assert len(str(caught.value)) < 1000
        assert caught.value.remedy
        said = capfd.readouterr()
        assert (said.out, said.err) == ("", "")

    def test_weights_beyond_one_file_are_refused_before_the_work(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.export.onnx.translate.LARGEST", 1000)
        with pytest.raises(InputError, match="one ONNX file holds less than 2 GiB"):
            onnx_from_program(program)


class Constant(nn.Module):
    """An input, a weight, a constant and one tensor twice, all as outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.anchors = nn.Buffer(torch.arange(6.0).reshape(2, 3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x)
        return {"y": y, "again": y, "x_itself": x, "anchors": self.anchors, "scale": self.anchors.exp()}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_outputs_of_every_origin_arrive(tmp_path: Path, precision: str) -> None:
    write_program(reference(Constant(), x=torch.randn(1, 4)), tmp_path)
    entry = read_program_entry(tmp_path)
    cache, guard = Cache(tmp_path / "cache"), open_material(None, entry.artifact.manifest).guard()
    artifact = onnx_stage(entry, guard, cache)
    if precision == "fp16":
        artifact = float16_stage(artifact, guard, (), cache)
    feeds = random_feeds(artifact.manifest.signature, 1)
    outputs = run_graph(onnx.load(artifact.path), artifact.manifest.signature, feeds)[0]
    assert list(outputs) == ["y", "again", "x_itself", "anchors", "scale"]
    np.testing.assert_array_equal(outputs["again"], outputs["y"])
    np.testing.assert_allclose(outputs["x_itself"], feeds[0]["x"], rtol=1e-3)
    np.testing.assert_allclose(outputs["anchors"], np.arange(6).reshape(2, 3))
    np.testing.assert_allclose(outputs["scale"], np.exp(np.arange(6)).reshape(2, 3), rtol=1e-3)


class Lookup(nn.Module):
    """Its second input must be 0 or 1."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 4)

    def forward(self, x: Tensor, index: Tensor) -> Any:
        return x + self.table(index)


def test_an_index_that_only_the_user_knows_comes_from_the_users_feeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_program(reference(Lookup(), x=torch.randn(1, 4), index=torch.zeros(1, dtype=torch.int64)), tmp_path)
    entry = read_program_entry(tmp_path)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(InputError, match="cannot run graph on such feeds") as caught:
        onnx_stage(entry, open_material(None, entry.artifact.manifest).guard(), cache)
    assert "--data" in (caught.value.remedy or "")
    assert capfd.readouterr().err == ""
    np.savez(tmp_path / "feeds.npz", x=np.zeros((2, 1, 4), np.float32), index=np.array([[0], [1]]))
    guard = open_material(tmp_path / "feeds.npz", entry.artifact.manifest).guard()
    assert onnx_stage(entry, guard, cache).path.is_file()
