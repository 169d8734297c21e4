"""The proof that nothing in a graph depends on data but values: what passes, and what is refused with the module to look at."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Link
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.static import DYNAMIC, SHAPED_BY_INPUT, dynamic_nodes, require_static
from dtvit_deploy.export.onnx.translate import onnx_from_program
from dtvit_deploy.export.program import program_from_reference
from dtvit_deploy.models.reference import Reference


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def graph(*nodes: onnx.NodeProto, output: tuple[int | str | None, ...] | None = (2, 3), **constants: Any) -> onnx.ModelProto:
    """Nodes from ``x`` (2, 3) and ``shape`` (2), both inputs, to ``y``."""
    ends = {"x": (TensorProto.FLOAT, (2, 3)), "shape": (TensorProto.INT64, (2,)), "flag": (TensorProto.BOOL, (2, 3))}
    inputs = [helper.make_tensor_value_info(name, *end) for name, end in ends.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)]
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(list(nodes), "net", inputs, outputs, values), opset_imports=[helper.make_opsetid("", 20)])


def node(operator: str, inputs: str, output: str = "y", module: str | None = None, **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, inputs.split(), [output], name=f"node_{output}", **attributes)
    if module is not None:
        made.metadata_props.add(key="module", value=module)
    return made


SCALAR = helper.make_tensor_value_info("again", TensorProto.BOOL, ())
COUNT = helper.make_tensor_value_info("count", TensorProto.INT64, ())
LOOP = helper.make_graph(
    [helper.make_node("Identity", ["x"], ["slice"])],
    "body",
    [COUNT, SCALAR],
    [SCALAR, helper.make_tensor_value_info("slice", TensorProto.FLOAT, (2, 3))],
)


class TestPasses:
    @pytest.mark.parametrize(
        "model",
        [
            graph(node("Relu", "x")),
            graph(node("Reshape", "x to"), to=[2, 3]),
            graph(node("Reshape", "x to", "flat"), node("Reshape", "flat back"), to=[-1], back=[2, -1]),
            graph(node("Slice", "x starts ends axes"), starts=[0], ends=[1], axes=[0], output=(1, 3)),
            graph(node("Expand", "x to"), to=[2, 3]),
            graph(node("Constant", "", "to", value_ints=[3, 2]), node("Reshape", "x to"), output=(3, 2)),
            graph(node("Where", "flag x x")),
            graph(node("Greater", "x x", "more"), node("Where", "more x zero"), zero=np.float32(0)),
            graph(node("Where", "first shape shape", "rows"), node("Gather", "x rows", axis=0), first=np.asarray([True, False])),
            graph(node("ArgMax", "x", "best", axis=1), node("Cast", "best", to=TensorProto.FLOAT), output=(2, 1)),
        ],
        ids=lambda model: "-".join(one.op_type for one in model.graph.node),
    )
    def test_what_has_constant_shapes(self, model: onnx.ModelProto) -> None:
        require_static(model)
        assert dynamic_nodes(model) == []


class TestRefused:
    @pytest.mark.parametrize("operator", sorted(DYNAMIC))
    def test_every_operator_that_chooses_or_counts_by_data(self, operator: str) -> None:
        inputs = {"Range": "first first first", "Loop": "trips again", "Scan": "x"}.get(operator, "x")
        body = {"body": LOOP} if operator == "Loop" else {}
        made = node(operator, inputs, module="blocks.3.attention", **body)
        ((found, reason),) = dynamic_nodes(graph(made, output=None, first=np.float32(1), trips=np.int64(2), again=np.bool_(True)))
        assert (found.op_type, reason) == (operator, "its result depends on data or shapes")

    @pytest.mark.parametrize(("operator", "first"), SHAPED_BY_INPUT.items())
    def test_every_operator_that_is_given_a_computed_shape(self, operator: str, first: int) -> None:
        inputs = " ".join(["x"] * first + ["shape"])
        ((found, reason),) = dynamic_nodes(graph(node(operator, inputs), output=None))
        assert (found.op_type, reason) == (operator, "it takes a shape that is computed while running")

    @pytest.mark.parametrize(("operator", "inputs"), [("Reshape", "x chosen"), ("Expand", "x chosen"), ("Tile", "x chosen")])
    def test_a_shape_that_is_chosen_by_data(self, operator: str, inputs: str) -> None:
        chosen = node("Where", "first shape shape", "chosen")
        ((found, reason),) = dynamic_nodes(graph(chosen, node(operator, inputs), output=None, first=np.asarray([True, False])))
        assert (found.op_type, reason) == (operator, "it takes a shape that is computed while running")

    def test_a_graph_with_a_free_dimension(self) -> None:
        model = graph(node("Relu", "x", "hidden", module="stem"), node("Relu", "hidden", module="head"), output=("batch", 3))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        with pytest.raises(
            InputError, match="Relu 'node_hidden' in stem: its output's shape is not known, or not in every dimension; Relu"
        ):
            require_static(model)

    def test_what_nobody_can_prove(self) -> None:
        made = helper.make_node("Mystery", ["x"], ["y"], domain="mine", name="odd")
        model = graph(made, output=None)
        model.opset_import.append(helper.make_opsetid("mine", 1))
        with pytest.raises(InputError, match=r"Mystery 'odd' in \(no module\): its output's shape is not known"):
            require_static(model)

    def test_five_are_shown_and_the_rest_are_counted(self) -> None:
        names = ["x", *"abcdefg", "y"]
        nodes = [node("Reshape", f"{one} shape", other, module=f"part.{one}") for one, other in itertools.pairwise(names)]
        with pytest.raises(InputError) as caught:
            require_static(graph(*nodes))
        assert str(caught.value).count("Reshape") == 5
        assert "Reshape 'node_a' in part.x: it takes a shape that is computed while running" in str(caught.value)
        assert str(caught.value).endswith("; and 3 more")
        assert "fixed sizes" in (caught.value.remedy or "")


class Gate(nn.Module):
    """A choice element by element, a mask, and a row that is chosen by data: none of them changes a shape."""

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.where(x > 0, x, x.exp()).masked_fill(x > 2, 0.5)
        return chosen[:, torch.where(x[0, 0] > 0, 1, 0)]


class Places(nn.Module):
    """The places of a mask, as torch.where gives them with one argument."""

    def forward(self, x: Tensor) -> Tensor:
        return x[torch.where(x > 0)]


class Picked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x > 0).float()


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Cut(nn.Module):
    """A size that is read from the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : torch.sym_min((x > 0).sum().item(), 3)].exp()  # type: ignore[no-untyped-call]


class Whole(nn.Module):
    """Sizes of all sorts, none of which depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.arange(x.shape[1], dtype=torch.float32).expand_as(x)
        return (x * (x > 0) + grid).reshape(x.shape[0], 2, -1).flatten(1)[:, :3].tile(1, 2)


class Summed(nn.Module):
    """An answer of one value: an output of a size that depends on data is refused before there is a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum().reshape(1, 1)


def exported(module: nn.Module) -> onnx.ModelProto:
    network = nn.Sequential(nn.Linear(4, 4), module, Summed())
    made = Link(kind="seeded", sha256="0" * 64)
    example = {"input": torch.tensor([[3.0, -1.0, 2.0, 1.0]])}
    reference = Reference(model="mine:net", module=network.eval(), inputs=example, output_names=(), weights=made)
    return onnx_from_program(program_from_reference(reference))[0]


@pytest.mark.parametrize(
    ("module", "operator"),
    [(Places(), "NonZero"), (Picked(), "NonZero"), (Masked(), "NonZero"), (Cut(), "Slice")],
    ids=lambda one: type(one).__name__,
)
def test_a_networks_dynamic_module_is_named(module: nn.Module, operator: str) -> None:
    with pytest.raises(InputError) as caught:
        require_static(exported(module))
    first = str(caught.value).removeprefix("the graph is not static: ").split(";")[0]
    assert first.startswith(f"{operator} ")
    assert " in 1: " in first


@pytest.mark.parametrize("module", [Whole(), Gate()], ids=lambda one: type(one).__name__)
def test_a_network_of_fixed_sizes_is_static(module: nn.Module) -> None:
    require_static(exported(module))
