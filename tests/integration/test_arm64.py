"""FP16 for ARM64 without an ARM64 core: graphs that load there, sums in FP16, and what a check of the graph finds.

What an emulated core answers is in `tests/arm64`; here is what must hold on any machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from arm64.small import FLOAT, FLOAT16, INT64, MODULE, halves, of_one, quantised
from checking import checked
from commandline import deploy
from dtvit_deploy.artifacts.artifact import Link
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Cpu, Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.arm64.lint import Severity, lint
from dtvit_deploy.export.arm64.portable import portable_onnx
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.arm64 import portable_stage, told_of_arm64
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.pipeline.stages import load_onnx
from dtvit_deploy.runtimes.arm64.half_sums import convolution, product
from dtvit_deploy.runtimes.arm64.session import arm64_answers
from dtvit_deploy.runtimes.arm64.term_sums import term_sums
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.torch.sums import KNOWN, summed

Array = NDArray[Any]
IMAGE = halves(1, 6, 9, 9)
TWO = {"kernel_shape": [2, 2], "strides": [2, 2]}


def signature_of(model: onnx.ModelProto) -> Signature:
    """Of a graph whose shapes can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph

    def spec(info: onnx.ValueInfoProto) -> TensorSpec:
        kind = info.type.tensor_type
        return TensorSpec(info.name, tuple(size.dim_value for size in kind.shape.dim), helper.tensor_dtype_to_np_dtype(kind.elem_type).name)

    return Signature(tuple(map(spec, graph.input)), tuple(map(spec, graph.output)))


def answers(model: onnx.ModelProto, **feeds: Array) -> dict[str, Array]:
    return run_graph(model, signature_of(model), [feeds])[0]


def there(model: onnx.ModelProto, **feeds: Array) -> Array:
    """What is forecast of an ARM64 core."""
    answer: Array = arm64_answers(model, signature_of(model), [feeds])[0]["y"]
    return answer


def one_after_the_other(a: Array, b: Array) -> Array:
    """A matrix product in NumPy, each step rounded to FP16."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(a.shape[1]):
            total = (total.astype(np.float64) + np.outer(a[:, k], b[k]).astype(np.float64)).astype(np.float16)
    return total.astype(np.float32)


class TestPortable:
    POOLS = pytest.mark.parametrize(
        ("operator", "attributes", "extra"),
        [
            ("AveragePool", TWO, {}),
            ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, {}),
            ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, {}),
            ("AveragePool", {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [1, 0, 2, 1]}, {}),
            ("GlobalAveragePool", {}, {}),
            ("MaxPool", TWO, {"places": INT64}),
            ("Erf", {}, {}),
        ],
    )

    @POOLS
    def test_an_operator_without_a_sound_kernel_computes_in_fp32_between_two_casts(
        self, operator: str, attributes: Any, extra: Any
    ) -> None:
        model = of_one(operator, {"x": IMAGE}, extra=extra, **attributes)
        found = portable_onnx(model)
        onnx.checker.check_model(found.model, full_check=True)
        kinds = {info.name: info.type.tensor_type.elem_type for info in found.model.graph.value_info}
        (node,) = (node for node in found.model.graph.node if node.op_type == operator)
        assert node.name == "node_of_it"
        assert kinds[node.input[0]] == kinds[node.output[0]] == FLOAT
        assert kinds["made"] == FLOAT16
        assert [module_of(one) for one in found.model.graph.node if one.name.endswith("_cast")] == [MODULE, MODULE]
        assert found.changed == {MODULE: operator}
        assert not lint(found.model)
        expected = answers(model, x=IMAGE)
        for name, value in answers(found.model, x=IMAGE).items():
            np.testing.assert_allclose(value, expected[name], rtol=2.0**-10)

    @pytest.mark.parametrize(
        ("operator", "attributes"), [("MaxPool", TWO), ("Gelu", {}), ("Softmax", {}), ("ReduceMean", {}), ("GlobalMaxPool", {})]
    )
    def test_the_rest_stays_as_it_is(self, operator: str, attributes: Any) -> None:
        model = of_one(operator, {"x": IMAGE}, **attributes)
        found = portable_onnx(model)
        assert found.model is model
        assert not found.notes

    def test_so_does_a_pool_that_is_fp32_already(self) -> None:
        model = of_one("AveragePool", {"x": IMAGE}, **TWO)
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "to":
                    attribute.i = FLOAT
        assert portable_onnx(model).model is model

    def test_the_graph_given_is_not_touched(self) -> None:
        model = of_one("AveragePool", {"x": IMAGE}, **TWO)
        before = model.SerializeToString(deterministic=True)
        portable_onnx(model)
        assert model.SerializeToString(deterministic=True) == before

    def test_a_name_that_a_cast_would_take_is_left_to_who_has_it(self) -> None:
        model = of_one("AveragePool", {"x": IMAGE}, **TWO)
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "made_as_fp32"
        found = portable_onnx(model)
        onnx.checker.check_model(found.model, full_check=True)
        np.testing.assert_allclose(answers(found.model, x=IMAGE)["y"], answers(model, x=IMAGE)["y"], rtol=2.0**-10)


class TestLint:
    @pytest.mark.parametrize(
        ("model", "rule", "severity"),
        [
            (of_one("AveragePool", {"x": IMAGE}, **TWO), "average-pool", Severity.ERROR),
            (of_one("AveragePool", {"x": IMAGE}, opset=22, **TWO), "average-pool", Severity.ERROR),
            (of_one("AveragePool", {"x": IMAGE}, opset=18, **TWO), "pool-sum", Severity.WARNING),
            (of_one("GlobalAveragePool", {"x": IMAGE}), "pool-sum", Severity.WARNING),
            (of_one("MaxPool", {"x": IMAGE}, opset=11, **TWO), "max-pool", Severity.ERROR),
            (of_one("MaxPool", {"x": IMAGE}, extra={"places": INT64}, **TWO), "indices", Severity.ERROR),
            (of_one("Erf", {"x": IMAGE}), "erf", Severity.WARNING),
            (of_one("Attention", {name: halves(1, 2, 4, 8) for name in "qkv"}, opset=23), "attention", Severity.WARNING),
        ],
    )
    def test_each_rule_names_the_module_and_a_way_out(self, model: onnx.ModelProto, rule: str, severity: Severity) -> None:
        (found,) = lint(model)
        assert (found.rule, found.severity, found.module) == (rule, severity, MODULE)
        assert "ONNX Runtime 1." in found.message
        assert found.remedy
        assert "{module}" not in found.remedy

    @pytest.mark.parametrize(("operator", "refused"), [("Add", True), ("Mul", True), ("Concat", True), ("Sub", False), ("Max", False)])
    @pytest.mark.parametrize("kind", [FLOAT16, FLOAT])
    def test_scales_in_fp16_around_what_is_fused(self, operator: str, refused: bool, kind: int) -> None:
        model = quantised(operator, {"a": IMAGE, "b": IMAGE}, kind, **({"axis": 1} if operator == "Concat" else {}))
        assert [found.rule for found in lint(model)] == (["scales"] if refused and kind == FLOAT16 else [])

    def test_a_graph_that_was_optimised_for_one_kind_of_cpu(self) -> None:
        model = of_one("MaxPool", {"x": IMAGE}, **TWO)
        model.graph.node[1].domain = "com.microsoft.nchwc"
        model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
        assert [found.rule for found in lint(model)] == ["layout"]

    def test_nothing_is_known_against_the_same_in_fp32(self) -> None:
        for operator, attributes in (("AveragePool", TWO), ("GlobalAveragePool", {}), ("Erf", {})):
            model = of_one(operator, {"x": IMAGE}, **attributes)
            model.graph.node[0].attribute[0].i = FLOAT
            assert not lint(model)


class TestSums:
    def test_a_product_rounds_after_each_term(self) -> None:
        a, b = halves(5, 40, scale=8), halves(40, 7, seed=1)
        found = product(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        assert np.array_equal(found, one_after_the_other(a, b))
        assert not np.array_equal(found, (a @ b).astype(np.float16))

    @pytest.mark.parametrize(("a", "b"), [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 1, 3, 4), (5, 4, 6))])
    def test_its_shapes_are_those_of_a_matrix_product(self, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        one, other = torch.randint(-4, 5, a).float(), torch.randint(-4, 5, b).float()  # exact in any order
        assert torch.equal(product(one, other), torch.matmul(one, other))

    @pytest.mark.parametrize(
        ("x", "w", "stride", "pads", "dilation", "groups"),
        [
            ((1, 6, 9, 8), (8, 3, 3, 3), (2, 1), (1, 0, 1, 2), (1, 2), 2),
            ((2, 4, 11), (4, 1, 3), (1,), (1, 1), (1,), 4),
            ((1, 2, 5, 5, 5), (3, 2, 2, 2, 2), (1, 2, 1), (0, 1, 0, 0, 0, 1), (2, 1, 1), 1),
            ((1, 3, 4, 4), (2, 3, 4, 4), (4, 4), (0,) * 4, (1, 1), 1),
        ],
    )
    def test_a_convolution_is_one(self, x: tuple[int, ...], w: tuple[int, ...], stride: Any, pads: Any, dilation: Any, groups: int) -> None:
        image, kernel, bias = (torch.randint(-3, 4, shape).float() for shape in (x, w, w[:1]))
        axes = len(stride)
        around = [pads[index] for axis in reversed(range(axes)) for index in (axis, axis + axes)]
        plain = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[axes - 1]
        expected = plain(torch.nn.functional.pad(image, around), kernel, bias, stride, 0, dilation, groups)
        assert torch.equal(convolution(image, kernel, bias, stride, pads, dilation, groups), expected)

    def test_aten_s_products_are_known_and_others_are_left_alone(self) -> None:
        x, w, b = (torch.randint(-3, 4, shape).float() for shape in ((2, 3, 8), (5, 8), (5,)))
        aten = torch.ops.aten
        image, kernel = torch.randint(-3, 4, (1, 4, 6, 6)).float(), torch.randint(-3, 4, (4, 2, 3, 3)).float()
        calls: list[tuple[Any, tuple[Any, ...]]] = [
            (aten.linear.default, (x, w, b)),
            (aten.matmul.default, (x, w.t())),
            (aten.mm.default, (x[0], w.t())),
            (aten.bmm.default, (x, w.t().expand(2, 8, 5))),
            (aten.addmm.default, (b, x[0], w.t())),
            (aten.baddbmm.default, (b, x, w.t().expand(2, 8, 5))),
            (aten.conv2d.default, (image, kernel, None, [2, 2], [1, 1], [1, 1], 2)),
            (aten.conv2d.padding, (image, kernel, None, [1, 1], "same", [2, 2], 2)),
            (aten.convolution.default, (image, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2)),
            (aten.convolution.default, (image, kernel, None, [1, 1], [1, 1], [1, 1], True, [0, 0], 2)),
        ]
        for target, args in calls:
            found = summed(target, args, {})
            assert found is not None
            assert torch.equal(found, target(*args)), target
        assert summed(aten.relu.default, (x,), {}) is None

    @pytest.mark.parametrize(
        "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.tensor([[True, False], [False, False]])}]
    )
    def test_attention_is_taken_apart_as_it_is_in_onnx(self, options: dict[str, Any]) -> None:
        q, k, v = (torch.from_numpy(halves(1, 2, 2, 8, seed=seed)) for seed in range(3))
        target = torch.ops.aten.scaled_dot_product_attention.default
        assert target in KNOWN
        found = summed(target, (q, k, v), options)
        assert found is not None
        assert torch.allclose(found, target(q, k, v, **options), atol=0.01)

    def test_terms_that_cancel_add_up_to_their_magnitudes(self) -> None:
        image = halves(1, 2, 4, 4)
        graph = of_one("Conv", {"x": image}, {"w": halves(3, 2, 3, 3, seed=1), "b": halves(3, seed=2)}, pads=[1] * 4)
        single = onnx.ModelProto()
        single.CopyFrom(graph)
        for tensor in single.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
        del single.graph.node[0], single.graph.node[-1]
        single.graph.node[0].input[0], single.graph.node[0].output[0] = "x", "y"
        found = term_sums(single, signature_of(single), [{"x": image}, {"x": -2 * image}])
        weights, bias = torch.from_numpy(halves(3, 2, 3, 3, seed=1)), torch.from_numpy(halves(3, seed=2))
        expected = torch.nn.functional.conv2d(2 * torch.from_numpy(image).abs(), weights.abs(), bias.abs(), padding=1).max()
        assert found == {"y": pytest.approx(float(expected), rel=1e-5)}


class TestForecast:
    """A graph as an ARM64 core answers it."""

    @pytest.mark.parametrize("order", [1, -1])
    def test_terms_that_cancel_overflow_on_the_way(self, order: int) -> None:
        x = np.full((1, 1024), 256, np.float32)
        w = np.repeat([1.0, -1.0], 512)[::order, None].copy()
        model = of_one("MatMul", {"x": x}, {"w": w})
        assert answers(model, x=x)["y"] == 0
        assert np.isinf(there(model, x=x)).all()

    def test_a_tensor_between_two_fp16_nodes_is_rounded_which_x86_does_not(self) -> None:
        x = np.full((1, 4), 300, np.float32)
        model = of_one("Mul", {"x": x, "z": x})
        scaled = helper.make_node("Mul", ["made", "thousandth"], ["small"], name="scaling")
        model.graph.node.insert(3, scaled)
        model.graph.node[-1].input[0] = "small"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float16(0.001), "thousandth"))
        assert np.allclose(answers(model, x=x, z=x)["y"], 90, rtol=1e-2)
        assert np.isinf(there(model, x=x, z=x)).all()

    @pytest.mark.parametrize(
        ("operator", "constants", "attributes"),
        [
            ("Gemm", {"w": halves(5, 6, seed=1), "b": halves(5, seed=2)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
            ("Gemm", {"w": halves(9, 5, seed=1)}, {"transA": 1}),
            ("MatMul", {"w": halves(6, 5, seed=1)}, {}),
        ],
    )
    def test_products_are_right_but_for_their_rounding(self, operator: str, constants: Any, attributes: Any) -> None:
        x = halves(9, 6)
        model = of_one(operator, {"x": x}, constants, **attributes)
        np.testing.assert_allclose(there(model, x=x), answers(model, x=x)["y"], rtol=0.01, atol=0.02)

    @pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    def test_convolutions_take_padding_by_name(self, padding: str) -> None:
        x = halves(1, 3, 8, 7)
        model = of_one("Conv", {"x": x}, {"w": halves(4, 3, 3, 2, seed=1)}, auto_pad=padding, strides=[2, 1])
        np.testing.assert_allclose(there(model, x=x), answers(model, x=x)["y"], rtol=0.01, atol=0.02)


class Cancelling(nn.Module):
    """Products whose terms are far larger than their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.spread, self.gather, self.head = nn.Linear(8, 512), nn.Linear(512, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.spread.weight.fill_(0.05)
            self.spread.bias.fill_(300)
            self.gather.weight.copy_(torch.tensor([1.0, -1.0]).repeat_interleave(256).expand(8, -1) + 0.02 * torch.randn(8, 512))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gather(self.spread(x)))


class Places(nn.Module):
    """Looks where its maxima were."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool, self.smooth = nn.MaxPool2d(2, 2, return_indices=True), nn.Conv2d(4, 4, 1), nn.AvgPool2d(3, 2, 1)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found, places = self.pool(self.stem(x))
        return self.smooth(self.unpool(found)), places


def program_of(module: nn.Module, x: Tensor, outputs: tuple[str, ...], folder: Path) -> ProgramEntry:
    torch.set_num_threads(1)
    made = Link(kind="seeded", sha256="0" * 64)
    write_program(Reference(model="mine:net", module=module.eval(), inputs={"x": x}, output_names=outputs, weights=made), folder)
    return read_program_entry(folder)


@pytest.fixture(scope="module")
def cancelling(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.manual_seed(0)
    return program_of(Cancelling(), torch.randn(1, 8), ("logits",), tmp_path_factory.mktemp("cancelling"))


def test_a_network_whose_sums_overflow_there_is_told_of_it_and_passes_on_x86_alone(cancelling: ProgramEntry, tmp_path: Path) -> None:
    material = open_material(None, cancelling.artifact.manifest)
    cache = Cache(tmp_path)
    halved = portable_stage(float16_stage(onnx_stage(cancelling, material.guard(), cache), material.guard(), (), cache), cache)
    assert [note for note in halved.manifest.lineage[-1].notes if note.startswith("gather: the terms of ") and "--arm64" in note]

    def report(*, arm64: bool) -> Any:
        return checked(cancelling, [halved], material, arm64=arm64)

    assert report(arm64=False).verdict.passed
    held = report(arm64=True)
    assert not held.verdict.passed
    (failed,) = (subject for subject in held.subjects if subject.verdict and not subject.verdict.passed)
    assert failed.name == "ONNX FP16 in emulated-arm64"
    assert str(failed.rung) == "emulated"
    assert failed.layers is not None


def test_exported_for_such_a_core_it_passes_there_too_without_being_asked(cancelling: ProgramEntry, tmp_path: Path) -> None:
    material, cache = open_material(None, cancelling.artifact.manifest), Cache(tmp_path)
    halved = portable_stage(float16_stage(onnx_stage(cancelling, material.guard(), cache), material.guard(), (), cache, Cpu.ARM64), cache)
    assert not any("--arm64" in note for note in halved.manifest.lineage[-1].notes)
    link = halved.manifest.parent("float16")
    assert link is not None
    assert [note.split(" stays")[0] for note in link.notes if " stays FP32: the terms of " in note] == ["gather"]
    report = checked(cancelling, [halved], material)
    assert report.verdict is not None
    assert report.verdict.passed, report.verdict.reason
    assert [subject.name for subject in report.subjects] == ["torch FP32", "ONNX FP16", "ONNX FP16 in emulated-arm64"]


def test_maxima_whose_places_are_used_are_refused_until_they_are_portable(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = program_of(Places(), torch.randn(1, 3, 12, 12), ("y", "places"), tmp_path)
    material, cache = open_material(None, program.artifact.manifest), Cache(tmp_path / "cache")
    halved = float16_stage(onnx_stage(program, material.guard(), cache), material.guard(), (), cache)
    with pytest.raises(InputError, match=r"would not work in ONNX Runtime on an ARM64 CPU: error: .*(pool|smooth)") as caught:
        told_of_arm64(halved, Cpu.ARM64)
    assert "--arm64" in str(caught.value.remedy)
    noted = told_of_arm64(halved, Cpu.X86_64)
    assert any("leaves its indices" in note for link in noted.manifest.lineage for note in link.notes)

    def report(artifact: Any, *, arm64: bool) -> Any:
        return checked(program, [artifact], material, arm64=arm64)

    plain = report(halved, arm64=False)
    assert any("leaves its indices" in note for note in plain.notes)
    wrong = [gate.name for gate in report(halved, arm64=True).verdict.failed]
    assert f"{halved.name}: loads and answers on ARM64" in wrong
    portable = told_of_arm64(portable_stage(halved, cache), Cpu.ARM64)
    assert not lint(load_onnx(portable))
    last = portable.manifest.lineage[-1]
    assert last.kind == "portable"
    assert set(last.options["fp32"]) == {"pool", "smooth"}
    gates = {gate.name: gate.passed for gate in report(portable, arm64=True).verdict.gates}
    assert gates.pop(f"{portable.name}: loads and answers on ARM64")
    # Where all values are next to 0, FP16 makes ties of them, on any CPU.
    assert [name for name, passed in gates.items() if not passed and "'places' on tiny" not in name] == []


def test_a_graph_whose_sums_make_no_sense_is_refused_in_one_message() -> None:
    x = halves(1, 3, 8, 7)
    model = of_one("Conv", {"x": x}, {"w": halves(4, 3, 3, 2, seed=1)})
    signature = signature_of(model)
    for attribute, value in (("strides", [1]), ("group", 2)):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        wrong.graph.node[1].attribute.append(helper.make_attribute(attribute, value))
        with pytest.raises(InputError, match=r"graph (cannot|is no graph that can) be evaluated|cannot be inferred"):
            arm64_answers(wrong, signature, [{"x": x}])


def test_an_arm64_cpu_is_for_onnx_alone(tmp_path: Path) -> None:
    from dtvit_deploy.models.options import Model
    from dtvit_deploy.recipe.buildable import require_buildable
    from dtvit_deploy.recipe.tables import Export, Recipe

    with pytest.raises(InputError, match="an ARM64 CPU was named, and the target onnx not"):
        require_buildable(Recipe(model=Model(name="dualtoken-vit-t-mix"), export=Export(targets=(Target.OPENVINO,), cpu=Cpu.ARM64)))
    done = deploy("export", "--model", "dualtoken-vit-t-mix", "-t", "openvino", "--arm64", "-o", tmp_path / "out", code=2)
    assert "add --target onnx" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_recipe_names_the_cpu(tmp_path: Path) -> None:
    from dtvit_deploy.recipe.reading import load_recipe

    path = tmp_path / "recipe.toml"
    path.write_text('[model]\nname = "dualtoken-vit-t-mix"\n[export]\nprecisions = ["fp16"]\ncpu = "arm64"\n')
    assert load_recipe(path).export.cpu is Cpu.ARM64
    path.write_text('[model]\nname = "dualtoken-vit-t-mix"\n[export]\ncpu = "arm"\n')
    with pytest.raises(InputError, match=r"export\.cpu = 'arm' is not known; known there: x86-64, arm64"):
        load_recipe(path)
