"""From a network to its exported program: what is refused and in which words, and what the program remembers."""

from __future__ import annotations

import collections
import dataclasses
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from dtvit_deploy.artifacts.artifact import Link, sha256_of
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.translate import onnx_from_program
from dtvit_deploy.export.program import Program, program_from_reference, require_answers_as, save_program
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.torch.session import TorchSession


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Applied(nn.Module):
    """A linear layer, and whatever a test does with what comes out of it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.linear(x))


def reference(module: nn.Module, outputs: tuple[str, ...] = (), **inputs: Tensor) -> Reference:
    made = Link(kind="seeded", sha256="0" * 64)
    return Reference(model="mine:net", module=module.eval(), inputs=inputs or {"x": torch.randn(1, 4)}, output_names=outputs, weights=made)


def exported(function: Callable[[Tensor], Any], outputs: tuple[str, ...] = ()) -> Program:
    return program_from_reference(reference(Applied(function), outputs))


def refusal(module: nn.Module | Callable[[Tensor], Any], outputs: tuple[str, ...] = ()) -> InputError:
    with pytest.raises(InputError) as caught:
        program_from_reference(reference(module if isinstance(module, nn.Module) else Applied(module), outputs))
    assert caught.value.remedy
    return caught.value


class Counting(nn.Module):
    """Its state moves on with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Buffer(torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.calls.add_(1)
        return x + self.calls


class TestDeterminism:
    @pytest.mark.parametrize(
        "function",
        [
            lambda y: F.dropout(y, 0.5, training=True),
            lambda y: y + torch.rand(1),
            lambda y: y > torch.randn(1, 4),
            lambda y: torch.multinomial(y.softmax(-1).expand(16, 4), 1),
        ],
        ids=["dropout", "rand", "boolean", "integer"],
    )
    def test_what_is_random_in_eval_is_refused(self, function: Callable[[Tensor], Any]) -> None:
        error = refusal(function)
        assert str(error).startswith("mine:net is not deterministic in eval: two runs of the same input differ by up to ")
        assert str(error).endswith("in output 'output'")

    def test_so_is_state_that_moves_on(self) -> None:
        assert "two runs of the same input differ by up to 1 in output 'output'" in str(refusal(Counting()))

    def test_and_an_output_whose_size_changes(self) -> None:
        assert "differ in shape" in str(refusal(lambda y: y[:, : int(torch.randperm(4)[0]) + 1] if torch.rand(1) < 2 else y))

    @pytest.mark.parametrize("function", [lambda y: y / 0 * 0, lambda y: (y, (y - y).log())], ids=["NaN", "infinity"])
    def test_an_answer_that_is_no_number_is_refused(self, function: Callable[[Tensor], Any]) -> None:
        assert "answers its example input with NaN or infinity in output" in str(refusal(function))


class TestInPlace:
    @pytest.mark.parametrize(
        "function",
        [lambda x: x.sub_(0.5).div_(0.25), lambda x: x[:, 0].zero_(), lambda x: F.relu(x, inplace=True), lambda x: x.copy_(-x)],
        ids=["normalised", "a view", "activated", "copied"],
    )
    def test_a_network_that_works_on_its_input_is_deterministic_and_leaves_it(self, function: Callable[[Tensor], Any]) -> None:
        class Own(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                function(x)
                return x * 2

        example = torch.tensor([[3.0, -1.0, 2.0, 1.0]])
        given = reference(Own(), x=example)
        program = onnx_from_program(program_from_reference(given))[1]
        require_answers_as(program, given)
        assert example.tolist() == [[3.0, -1.0, 2.0, 1.0]]

    def test_a_session_leaves_its_feeds_and_its_answers_are_its_own(self) -> None:
        class Own(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x, x.add_(1)

        program = onnx_from_program(program_from_reference(reference(Own())))[1]
        feeds = {"x": np.zeros((1, 4), np.float32)}
        with TorchSession(program.exported, program.signature, SessionOptions()) as session:
            first, second = session.run(feeds), session.run(feeds)
            feeds["x"] += 7
        assert all((one["output_0"] == 1).all() and (one["output_1"] == 1).all() for one in (first, second))

    def test_a_count_of_calls_changes_no_answer(self) -> None:
        class Counted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.calls = nn.Buffer(torch.zeros((), dtype=torch.long))

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                return x * 2

        program = onnx_from_program(program_from_reference(reference(Counted())))[1]
        assert program.exported.graph_signature.buffers_to_mutate == {}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        if y.sum() > 0:  # the branch
            return y
        return -y


def scaled(y: Tensor) -> Tensor:
    return y * float(y.max())  # the number


def selected(y: Tensor) -> Tensor:
    return y[:, : int(y.argmax()) + 1]  # the size


class TestDataDependence:
    @pytest.mark.parametrize(
        ("module", "comment"),
        [
            (nn.Sequential(nn.Linear(4, 4), Branching()), "# the branch"),
            (Applied(scaled), "# the number"),
            (Applied(selected), "# the size"),
        ],
        ids=["branch", "number", "size"],
    )
    def test_it_is_refused_with_the_place_in_the_users_own_file(
        self, module: nn.Module, comment: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        lines = Path(__file__).read_text().splitlines()
        number = next(number for number, line in enumerate(lines, 1) if line.endswith(comment) and "(" in line)
        error = refusal(module)
        assert str(error).startswith("mine:net cannot be exported as a static program")
        assert f"because of line {number} of {__file__} ({lines[number - 1].strip()})" in str(error)
        assert "a mask times a value" in (error.remedy or "")
        assert len(str(error)) < 1000
        said = capfd.readouterr()
        assert (said.out, said.err) == ("", "")  # torch prints the whole graph, twice

    def test_a_parametrization_that_cannot_be_traced_is_named_with_the_call_that_removes_it(self) -> None:
        class Shrunk(nn.Module):
            def forward(self, weight: Tensor) -> Tensor:
                return weight / 2 if weight.norm() > 1e3 else weight * float(weight.detach().max())

        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        parametrize.register_parametrization(network[1], "weight", Shrunk())
        assert "call torch.nn.utils.parametrize.remove_parametrizations(1, 'weight') in the factory" in (refusal(network).remedy or "")

    @pytest.mark.parametrize(
        ("function", "output", "operator"),
        [(lambda y: y[y > 0], "output", "index"), (lambda y: (y, y.nonzero() + 1), "output_1", "nonzero")],
        ids=["masked", "nonzero"],
    )
    def test_an_output_of_as_many_values_as_the_data_has_is_refused_by_what_makes_it_so(
        self, function: Callable[[Tensor], Any], output: str, operator: str
    ) -> None:
        error = refusal(nn.Sequential(nn.Linear(4, 4), Applied(function)))
        assert f"the shape of output '{output}' depends on the data, by {operator} in 1" in str(error)
        assert "torch.where" in (error.remedy or "")

    def test_a_choice_of_a_fixed_number_is_none(self) -> None:
        program = exported(lambda y: y.gather(1, y.topk(2).indices))
        assert program.signature.outputs[0].shape == (1, 2)

    def test_a_branch_on_shapes_is_none(self) -> None:
        program = exported(lambda y: y if y.shape[1] == 4 else -y)
        assert [spec.name for spec in program.signature.outputs] == ["output"]


class Scored(NamedTuple):
    logits: Tensor
    rest: tuple[Tensor, ...]


@dataclasses.dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None
    hidden: list[Tensor] = dataclasses.field(default_factory=list)


class TestOutputs:
    @pytest.mark.parametrize(
        ("function", "names"),
        [
            (lambda y: y, ["output"]),
            (lambda y: (y, -y), ["output_0", "output_1"]),
            (lambda y: [y, y.sum()], ["output_0", "output_1"]),
            (lambda y: {"zeta": y, "alpha": -y}, ["zeta", "alpha"]),
            (lambda y: (y, (y, y)), ["output_0", "output_1_0", "output_1_1"]),
            (lambda y: {"features": [y, -y], "score": y.sum()}, ["features_0", "features_1", "score"]),
            (lambda y: {"boxes": {"xy": y, "wh": (-y,)}}, ["boxes_xy", "boxes_wh_0"]),
            (lambda y: [{"logits": y}, {"logits": -y}], ["output_0_logits", "output_1_logits"]),
            (lambda y: y.topk(2), ["output_0", "output_1"]),
            (lambda y: Scored(y, (y.sum(),)), ["logits", "rest_0"]),
            (lambda y: Answer(y, hidden=[y]), ["logits", "hidden_0"]),
            (lambda y: collections.OrderedDict(loss=None, logits=y), ["logits"]),
            (lambda y: (None, y), ["output_1"]),
        ],
    )
    def test_they_are_named_by_what_is_returned(self, function: Callable[[Tensor], Any], names: list[str]) -> None:
        assert [spec.name for spec in exported(function).signature.outputs] == names

    def test_or_as_the_user_says(self) -> None:
        program = exported(lambda y: {"a": y, "b": y.sum(), "c": y.argmax(-1), "d": y > 0}, ("logits", "total", "best", "mask"))
        assert program.signature.outputs == (
            TensorSpec("logits", (1, 4)),
            TensorSpec("total", ()),
            TensorSpec("best", (1,), "int64"),
            TensorSpec("mask", (1, 4), "bool"),
        )

    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (lambda y: (y, 3), "tuple with a int in 'output_1'"),
            (lambda y: {"y": y, "of": {"names": ["cat"]}}, "dict with a str in 'of_names_0'"),
            (lambda y: (), "an empty tuple"),
            (lambda y: {"loss": None}, "an empty dict"),
            (lambda y: None, "NoneType"),
            (lambda y: 3.0, "float"),
        ],
    )
    def test_what_is_no_tensor_is_refused_with_its_place(self, function: Callable[[Tensor], Any], kind: str) -> None:
        error = refusal(function)
        assert str(error) == (
            f"mine:net returns {kind}; only tensors, in tuples, lists, dicts, named tuples and dataclasses, can be exported"
        )
        assert "torch.tensor(3)" in (error.remedy or "")

    @pytest.mark.parametrize(("function", "kind"), [(torch.fft.fft, "complex64"), (Tensor.bfloat16, "bfloat16")])
    def test_a_type_that_no_artefact_can_hold_is_refused(self, function: Callable[[Tensor], Any], kind: str) -> None:
        assert f"mine:net returns torch.{kind} in 'output'" in str(refusal(function))

    @pytest.mark.parametrize("names", [("a", "a"), ("a", "x"), ("", "b")])
    def test_names_that_clash_are_refused(self, names: tuple[str, ...]) -> None:
        error = refusal(lambda y: (y, -y), names)
        assert str(error) == f"output names must be unique and differ from the inputs: {', '.join(map(repr, names))}"

    def test_so_are_too_few_or_too_many(self) -> None:
        error = refusal(lambda y: (y, -y), ("logits",))
        assert str(error) == "1 output names were given (logits), but mine:net returns 2 tensors (output_0, output_1)"

    def test_a_containers_own_type_does_not_matter_to_the_file(self, tmp_path: Path) -> None:
        _, program = onnx_from_program(exported(lambda y: y.topk(2)))
        again = torch.export.load(save_program(program, tmp_path))
        assert len(again.graph_signature.user_outputs) == 2

    def test_one_tensor_that_is_several_outputs_has_a_copy_for_each(self) -> None:
        program = exported(lambda y: {"y": y, "z": y, "w": [y.relu(), y]})
        assert [spec.name for spec in program.signature.outputs] == ["y", "z", "w_0", "w_1"]
        assert len(set(program.exported.graph_signature.user_outputs)) == 4

    def test_a_weight_or_an_input_may_be_an_output(self) -> None:
        class Ends(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.anchors = nn.Parameter(torch.arange(3.0))

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x, self.anchors

        program = program_from_reference(reference(Ends()))
        assert [spec.shape for spec in program.signature.outputs] == [(1, 4), (3,)]
        assert not set(program.exported.graph_signature.user_outputs) & set(program.exported.graph_signature.user_inputs)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return x + self.linear(self.norm(x)).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor, gain: Tensor) -> dict[str, Tensor]:
        features = self.blocks(image) * gain
        return {"logits": self.head(features), "features": features}


@pytest.fixture(scope="module")
def net() -> Program:
    torch.manual_seed(0)
    example = {"image": torch.randn(1, 5, 4), "gain": torch.tensor(2.0)}
    return onnx_from_program(program_from_reference(reference(Net(), (), **example)))[1]


class TestNodes:
    def test_each_names_the_module_that_made_it(self, net: Program) -> None:
        blocks = {
            (op, f"blocks.{index}{module}")
            for index in (0, 1)
            for op, module in (("layer_norm", ".norm"), ("linear", ".linear"), ("relu", ""), ("add", ""))
        }
        assert {(node.op.split(".")[1], node.module) for node in net.nodes.nodes} == blocks | {("linear", "head"), ("mul", "")}
        assert net.nodes.module_of("mul") == "(the network itself)"
        assert net.nodes.module_of("nothing") == "(no module)"

    def test_they_stand_in_the_order_of_execution(self, net: Program) -> None:
        known = {"image", "gain"}
        for node in net.nodes.nodes:
            assert all(source in known or source.startswith("p_") for source in node.inputs), node
            known.add(node.name)

    def test_the_outputs_are_among_them_in_the_signatures_order(self, net: Program) -> None:
        assert [net.nodes.module_of(name) for name in net.nodes.outputs] == ["head", "(the network itself)"]
        assert [spec.name for spec in net.signature.outputs] == ["logits", "features"]

    def test_an_inner_tensor_makes_way_for_an_output_of_its_name(self) -> None:
        # The first linear layer's node is called linear, and the user calls the second one's answer so.
        def function(y: Tensor) -> dict[str, Tensor]:
            return {"linear": y.relu().tanh(), "relu": y.relu() + 1}

        graph, program = onnx_from_program(exported(function))
        made = [name for node in graph.graph.node for name in node.output]
        names = {node.name: node.module for node in program.nodes.nodes}
        assert len(set(made)) == len(made)
        assert {"linear", "relu", "linear_inner", "relu_inner"} <= set(made)
        assert not {"linear", "relu"} & names.keys()
        assert names["linear_inner"] == "linear"


def test_the_program_answers_as_the_network(net: Program) -> None:
    torch.manual_seed(0)
    example = torch.randn(1, 5, 4)  # drawn before the weights, as in the fixture
    module, feeds = Net().eval(), (example + 1, torch.tensor(-0.5))
    with torch.no_grad():
        expected, answer = module(*feeds), net.exported.module(check_guards=False)(*feeds)
    for got, values in zip(answer, expected.values(), strict=True):
        np.testing.assert_allclose(got.numpy(), values.numpy(), rtol=1e-6, atol=1e-6)


MINE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 4, 4)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image):
        tokens = self.norm(self.stem(image).flatten(2).transpose(1, 2))
        return {"logits": self.head(tokens.mean(1)), "tokens": tokens}

def make():
    return Net(), {"image": torch.zeros(1, 3, 8, 8)}
"""
EXPORT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import read_program_entry, write_program
folder = Path(sys.argv[1])
write_program(load_reference(Model(name="mine:make")), folder)
entry = read_program_entry(folder)
cache, guard = Cache(folder / "cache"), open_material(None, entry.artifact.manifest).guard()
simplified = onnx_stage(entry, guard, cache)
float16_stage(simplified, guard, (), cache)
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same export by two processes, in two places, with another order of every set and dict of strings."""
    folders, running = [], []
    for seed in "12":
        place = tmp_path_factory.mktemp(f"machine-{seed}-folder")
        (place / "mine.py").write_text(MINE)
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}"}
        (place / "out").mkdir()
        running.append(subprocess.Popen([sys.executable, "-c", EXPORT, "out"], cwd=place, env=environment))
        folders.append(place / "out")
    assert [process.wait(120) for process in running] == [0, 0]
    return folders


def written(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_two_exports_are_the_same_byte_for_byte(twice: list[Path]) -> None:
    one, other = map(written, twice)
    assert one.keys() == other.keys()
    assert {Path(name).name for name in one} >= {"program.pt2", "program.pt2.json", "nodes.json", "model.onnx", "model.onnx.json"}
    assert [name for name in one if sha256_of(one[name]) != sha256_of(other[name])] == []


def contents(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from map(archive.read, archive.namelist())


def test_nothing_of_the_machine_is_written_into_an_artefact(twice: list[Path]) -> None:
    places = {
        "this repository": Path(__file__).parents[2],
        "the user's folder": twice[0].parent,
        "installed packages": Path(sysconfig.get_path("purelib")),
        "Python": Path(sys.prefix),
        "torch": Path(torch.__file__).parent,
    }
    words = {what: str(place).encode() for what, place in places.items()} | {"a source file": b"mine.py", "a line": b'File "'}
    home = str(Path.home()).encode()
    if len(home) > len("/root"):  # as short as that, it may stand in weights by chance
        words["home"] = home
    found = [
        (name, what)
        for name, path in written(twice[0]).items()
        for content in contents(path)
        for what, word in words.items()
        if word in content
    ]
    assert found == []
