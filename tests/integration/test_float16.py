"""Typed FP16: what becomes FP16, what stays FP32 and why, and that what would overflow does not.

ONNX Runtime's CPU provider computes FP16 operators in FP32 and rounds seldom, so it hides overflow. Graphs are evaluated here by ONNX's
own reference evaluator, which computes every operator in the type that the graph says.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from checking import checked
from dtvit_deploy.artifacts.artifact import Link
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.float16 import LARGEST_FP16, float16_onnx
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.runtimes.onnxruntime import magnitudes

Array = NDArray[Any]
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
X = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)


def node(operator: str, inputs: str, output: str, module: str = "", **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, ["" if name == "-" else name for name in inputs.split()], output.split(), **attributes)
    made.metadata_props.add(key="module", value=module)
    return made


def graph(*nodes: onnx.NodeProto, outputs: dict[str, int] | None = None, **constants: Any) -> onnx.ModelProto:
    """Nodes from ``x`` (1, 4) to ``y``; Python numbers and lists among the constants are FP32."""
    values = {name: value if isinstance(value, np.ndarray) else np.array(value, np.float32) for name, value in constants.items()}
    ends = [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": FLOAT}).items()]
    inputs = [helper.make_tensor_value_info("x", FLOAT, (1, 4))]
    initializers = [numpy_helper.from_array(value, name) for name, value in values.items()]
    made = helper.make_graph(list(nodes), "net", inputs, ends, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def types(model: onnx.ModelProto) -> dict[str, str]:
    """FP16, FP32 or another type of every tensor."""
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.input, *inferred.output)}
    found |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    short: dict[Any, str] = {FLOAT: "fp32", FLOAT16: "fp16"}
    return {name: short.get(kind) or str(TensorProto.DataType.Name(kind)) for name, kind in found.items()}


def evaluated(model: onnx.ModelProto, x: Array = X) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy tells of the overflow that is looked for
        outputs: Any = ReferenceEvaluator(model).run(None, {"x": x})
    answer: Array = outputs[0]
    return answer


def operators(model: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in model.graph.node]


MLP = graph(
    node("MatMul", "x w1", "hidden", "block.1"),
    node("Gelu", "hidden", "active", "block.1.act"),
    node("MatMul", "active w2", "mixed", "block.10"),
    node("Reshape", "mixed to", "y", ""),
    w1=np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4),
    w2=np.linspace(1, -1, 16, dtype=np.float32).reshape(4, 4),
    to=np.array([4]),
)


class TestTypes:
    def test_all_between_the_ends_is_fp16_and_the_ends_are_not(self) -> None:
        typed = float16_onnx(MLP, {})
        assert types(typed.model) == {
            "x": "fp32",
            "x_as_fp16": "fp16",
            "w1": "fp16",
            "hidden": "fp16",
            "active": "fp16",
            "w2": "fp16",
            "mixed": "fp16",
            "to": "INT64",
            "y_as_fp16": "fp16",
            "y": "fp32",
        }
        assert operators(typed.model) == ["Cast", "MatMul", "Gelu", "MatMul", "Reshape", "Cast"]
        assert (typed.kept, typed.notes) == ({}, ())

    def test_it_answers_as_well_as_fp16_can(self) -> None:
        np.testing.assert_allclose(evaluated(float16_onnx(MLP, {}).model), evaluated(MLP), rtol=5e-3, atol=5e-3)

    def test_the_graph_given_is_not_touched(self) -> None:
        before = MLP.SerializeToString(deterministic=True)
        float16_onnx(MLP, {"hidden": 1e6}, ["block.10"])
        assert MLP.SerializeToString(deterministic=True) == before

    def test_it_is_the_same_every_time(self) -> None:
        one, other = (float16_onnx(MLP, {"hidden": 1e6}).model.SerializeToString(deterministic=True) for _ in range(2))
        assert one == other

    def test_a_cast_belongs_to_the_module_whose_tensor_it_casts_or_to_the_first_reader(self) -> None:
        model = float16_onnx(MLP, {}, ["block.10"]).model
        casts = {one.output[0]: module_of(one) for one in model.graph.node if one.op_type == "Cast"}
        assert casts == {"x_as_fp16": "block.1", "active_as_fp32": "block.1.act", "mixed_as_fp16": "block.10", "y": "(the network itself)"}

    def test_what_its_operator_wants_in_fp32_stays_so(self) -> None:
        model = graph(
            node("Reshape", "x image", "picture"),
            node("Resize", "picture - scales", "large", mode="linear"),
            node("LayerNormalization", "large w", "normal average deviation", axis=-1),
            node("Add", "normal deviation", "y"),
            image=np.array([1, 1, 2, 2]),
            scales=[1, 1, 2, 2],
            w=[1, 2, 3, 4],
        )
        found = types(float16_onnx(model, {}).model)
        assert (found["picture"], found["scales"], found["large"], found["w"]) == ("fp16", "fp32", "fp16", "fp16")
        assert (found["normal"], found["deviation"], found["deviation_as_fp16"]) == ("fp16", "fp32", "fp16")

    def test_other_types_are_left_alone(self) -> None:
        model = graph(
            node("ArgMax", "x", "best", axis=1),
            node("Cast", "best", "number", to=FLOAT),
            node("Greater", "x zero", "positive"),
            node("Cast", "positive", "mask", to=FLOAT),
            node("Cast", "x", "wide", to=TensorProto.DOUBLE),
            node("Cast", "wide", "narrow", to=FLOAT),
            node("Sum", "number mask narrow", "y"),
            outputs={"y": FLOAT, "best": TensorProto.INT64, "positive": TensorProto.BOOL},
            zero=0,
        )
        found = types(float16_onnx(model, {}).model)
        assert {name: found[name] for name in ("best", "positive", "wide")} == {"best": "INT64", "positive": "BOOL", "wide": "DOUBLE"}
        assert {found[name] for name in ("number", "mask", "narrow", "y_as_fp16")} == {"fp16"}
        assert evaluated(float16_onnx(model, {}).model).tolist() == evaluated(model).tolist()

    def test_a_constant_node_keeps_the_type_that_it_says(self) -> None:
        model = graph(node("Constant", "", "one", value_float=1.0), node("Add", "x one", "y"))
        assert evaluated(float16_onnx(model, {}).model).tolist() == [[1.5, 0, 3, 4]]

    def test_an_inner_tensor_of_a_name_that_a_cast_would_take(self) -> None:
        model = graph(node("Neg", "x", "x_as_fp16"), node("Neg", "x_as_fp16", "y"))
        assert evaluated(float16_onnx(model, {}).model).tolist() == X.tolist()

    def test_an_output_may_be_read_within_the_graph(self) -> None:
        model = graph(node("Neg", "x", "y"), node("Neg", "y", "z"), outputs={"z": FLOAT, "y": FLOAT})
        typed = float16_onnx(model, {}).model
        assert types(typed)["y"] == types(typed)["z"] == "fp32"
        assert [one.name for one in typed.graph.output] == ["z", "y"]
        assert evaluated(typed).tolist() == X.tolist()


class TestKeptByWish:
    def test_a_module_and_its_children_stay_fp32(self) -> None:
        typed = float16_onnx(MLP, {}, ["block.1"])
        found = types(typed.model)
        assert (found["hidden"], found["active"], found["w1"]) == ("fp32", "fp32", "fp32")
        assert (found["active_as_fp16"], found["mixed"], found["w2"]) == ("fp16", "fp16", "fp16")  # block.10 is no child of block.1
        assert typed.notes == ("block.1 stays FP32: asked for", "block.1.act stays FP32: asked for")

    def test_neighbours_in_fp32_pass_their_tensors_on_as_they_are(self) -> None:
        assert operators(float16_onnx(MLP, {}, ["block"]).model) == ["MatMul", "Gelu", "MatMul", "Cast", "Reshape", "Cast"]

    def test_a_constant_that_both_read_is_there_in_both_types(self) -> None:
        model = graph(node("Add", "x w", "a", "one"), node("Add", "a w", "y", "two"), w=[1, 2, 3, 4])
        found = types(float16_onnx(model, {}, ["two"]).model)
        assert {name: kind for name, kind in found.items() if name.startswith("w")} == {"w": "fp16", "w_as_fp32": "fp32"}

    def test_a_module_that_made_nothing_is_refused_with_those_that_did(self) -> None:
        with pytest.raises(InputError, match=r"no node comes from a module 'block\.2', so nothing there can stay FP32") as caught:
            float16_onnx(MLP, {}, ["block.1", "block.2"])
        assert caught.value.remedy == "modules with nodes: block.1, block.1.act, block.10"


class TestOverflow:
    SCALED = graph(
        node("Mul", "x large", "scaled", "residual"),
        node("Add", "scaled x", "sum", "residual"),
        node("Mul", "sum small", "back", "norm"),
        node("Neg", "back", "y", "head"),
        large=1e5,
        small=1e-5,
    )
    REACHED: ClassVar = {"x": 3.0, "scaled": 3e5, "sum": 3e5, "back": 3.0, "y": 3.0}

    def test_a_naive_conversion_overflows_and_a_careful_one_does_not(self) -> None:
        naive, careful = float16_onnx(self.SCALED, {}), float16_onnx(self.SCALED, self.REACHED)
        assert not np.isfinite(evaluated(naive.model)).all()
        np.testing.assert_allclose(evaluated(careful.model), evaluated(self.SCALED), rtol=2e-3)

    def test_not_one_tensor_on_the_way_is_rounded_to_fp16(self) -> None:
        typed = float16_onnx(self.SCALED, self.REACHED)
        found = types(typed.model)
        assert {found[name] for name in ("scaled", "sum", "back")} == {"fp32"}
        assert operators(typed.model) == ["Mul", "Add", "Mul", "Cast", "Neg", "Cast"]

    def test_the_reason_has_the_figure(self) -> None:
        assert float16_onnx(self.SCALED, self.REACHED).notes == (
            "residual stays FP32: |scaled| reaches 3e+05, FP16 ends at 65504",
            "norm stays FP32: |sum| reaches 3e+05, FP16 ends at 65504",
        )

    @pytest.mark.parametrize(("reached", "stays"), [(32_000, False), (33_000, True), (np.inf, True), (np.nan, True)])
    def test_there_is_room_for_the_next_image(self, reached: float, stays: bool) -> None:
        assert bool(float16_onnx(MLP, {"active": reached}).kept) is stays

    @pytest.mark.parametrize(("stash", "reached", "stays"), [(1, 200.0, False), (10, 200.0, True), (10, 100.0, False)])
    def test_a_variance_is_computed_in_the_type_that_the_node_says(self, stash: int, reached: float, stays: bool) -> None:
        model = graph(node("LayerNormalization", "x ones", "y", "norm", stash_type=stash), ones=[1, 1, 1, 1])
        assert list(float16_onnx(model, {"x": reached}).kept) == ["norm"] * stays

    @pytest.mark.parametrize("value", [70_000, -70_000, -np.inf])
    def test_a_constant_that_fp16_cannot_hold_stays(self, value: float) -> None:
        model = graph(node("Add", "x mask", "masked", "attention"), node("Softmax", "masked", "y", "attention"), mask=[0, 0, value, 0])
        typed = float16_onnx(model, {"masked": abs(value)})
        assert types(typed.model)["mask"] == "fp32"
        np.testing.assert_allclose(evaluated(typed.model), evaluated(model), rtol=2e-3)

    def test_the_largest_number_of_fp16_is_none_of_those(self) -> None:
        model = graph(node("Min", "x most", "y"), most=LARGEST_FP16)
        assert types(float16_onnx(model, {}).model)["most"] == "fp16"

    def test_what_keeps_a_division_from_zero_does_not_become_zero(self) -> None:
        model = graph(
            node("ReduceL2", "x", "length", keepdims=1),
            node("Max", "length least", "divisor"),
            node("Div", "x divisor", "y"),
            least=1e-12,
        )
        typed = float16_onnx(model, {}).model
        assert evaluated(typed, np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]
        (least,) = (numpy_helper.to_array(tensor) for tensor in typed.graph.initializer)
        assert least == np.float16(2**-24)

    def test_magnitudes_are_those_of_the_feeds(self) -> None:
        signature = Signature((TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 4)),))
        found = magnitudes(self.SCALED, signature, [{"x": X}, {"x": -2 * X}])
        assert found == pytest.approx({name: 2 * size for name, size in self.REACHED.items()}, rel=1e-4)
        assert magnitudes(self.SCALED, signature, [{"x": X}, {"x": X * np.float32(np.nan)}])["sum"] == np.inf


class Residual(nn.Module):
    """Its sum is far beyond what FP16 holds; its answer is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return (x + self.second(8 * self.first(x).relu()) * 6e4) * 1e-5


class Overflowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.residual = Residual()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.residual(self.stem(x)))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("overflowing")
    made = Link(kind="seeded", sha256="0" * 64)
    inputs = {"x": torch.randn(1, 8)}
    write_program(Reference(model="mine:net", module=Overflowing().eval(), inputs=inputs, output_names=("logits",), weights=made), folder)
    return read_program_entry(folder)


def test_a_network_that_would_overflow_is_exported_verified_and_passes(overflowing: ProgramEntry, tmp_path: Path) -> None:
    cache, material = Cache(tmp_path), open_material(None, overflowing.artifact.manifest)
    simplified = onnx_stage(overflowing, material.guard(), cache)
    halved = float16_stage(simplified, material.guard(), (), cache)
    assert halved.manifest.precision is Precision.FP16
    link = halved.manifest.parent("float16")
    assert link is not None
    assert [note.split(" stays")[0] for note in link.notes if " stays FP32: " in note] == ["residual"]
    feed = material.ready[0]["x"]
    model = onnx.load(simplified.path)
    np.testing.assert_allclose(evaluated(onnx.load(halved.path), feed), evaluated(model, feed), rtol=0.02, atol=0.02)
    assert not np.isfinite(evaluated(float16_onnx(model, {}).model, feed)).all()
    report = checked(overflowing, [halved], material, Figures(parity=True, layers=True))
    assert report.verdict is not None
    assert report.verdict.passed, report.verdict.reason
    (layers,) = (subject.layers for subject in report.subjects if subject.layers)
    assert layers.first is None
