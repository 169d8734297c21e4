"""Notes on what would leave the Neural Engine: each with its remedy and its source, and none where nothing is known against a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtvit_deploy.artifacts.nodes import Node, NodeMap

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow


def wide_pool(mb: Any, x: Any) -> Any:
    """An operator that leaves."""
    return mb.max_pool(x=x, kernel_sizes=[15, 15], strides=[1, 1], pad_type="same")


def weights(*shape: int) -> Any:
    return np.ones(shape, np.float16)


@pytest.fixture
def placed(tmp_path: Path) -> Callable[..., Any]:
    """Judge what a function makes of an FP16 tensor."""

    def judge(write: Callable[[Any, Any], Any], shape: tuple[int, ...] = (1, 8, 16, 32), *, half: bool = True) -> Any:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder, Function, Program, types

        from dtvit_deploy.export.coreml.interface import model_of_mil
        from dtvit_deploy.export.coreml.placement import place
        from dtvit_deploy.export.coreml.saved import write_mlpackage
        from dtvit_deploy.process.quiet import quiet

        with quiet():
            kind = types.fp16 if half else types.fp32
            with Function({"x": Builder.placeholder(shape, name="x", dtype=kind)}, opset_version=ct.target.iOS17) as function:
                function.set_outputs([write(Builder, function.inputs["x"])])
            program = Program()
            program.add_function("main", function)
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.mlpackage"
            write_mlpackage(model_of_mil(program, 17), path)
        return place(path, NodeMap([Node(name="y", module="blocks.0", op="aten.x")]))

    return judge


SQUARE = (1, 8, 32, 32)


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (lambda mb, x: mb.conv(x=mb.relu(x=x), weight=weights(8, 8, 7, 7), strides=[4, 4], name="y"), SQUARE),
        (lambda mb, x: mb.max_pool(x=x, kernel_sizes=[7, 7], strides=[4, 4], pad_type="valid", name="y"), SQUARE),
        (lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2, name="y"), SQUARE),
        (lambda mb, x: mb.reshape(x=x, shape=[1, 2, 4, 32, 32], name="y"), SQUARE),
        (lambda mb, x: mb.softmax(x=x, axis=1, name="y"), (1, 8, 196, 196)),
        (lambda mb, x: mb.softmax(x=x, axis=3, name="y"), (1, 1, 512, 512)),
        (lambda mb, x: mb.softmax(x=x, axis=3, name="y"), (1, 8, 64, 64)),
        (lambda mb, x: mb.add(x=x, y=np.float16(-40000), name="y"), SQUARE),
        (lambda mb, x: mb.mul(x=x, y=mb.sigmoid(x=x), name="y"), SQUARE),
        (lambda mb, x: mb.relu(x=x, name="y"), (1, 1, 1, 16384)),
        (lambda mb, x: mb.relu(x=x, name="y"), (1, 16385, 1, 32)),
        (lambda mb, x: mb.relu(x=x, name="y"), (1, 64, 64, 1)),
        (lambda mb, x: mb.linear(x=x, weight=weights(32, 64), name="y"), (1, 64)),
    ],
)
def test_what_no_source_speaks_against_is_left_in_peace(placed: Callable[..., Any], write: Any, shape: Any) -> None:
    found = placed(write, shape)
    assert (found.leaving, found.crossings) == (0, 0)
    assert not [finding for finding in found.findings if finding.rule != "moves"]


@pytest.mark.parametrize(
    ("rule", "said", "write", "shape"),
    [
        ("operator", "scatter ", lambda mb, x: mb.scatter(data=x, indices=[1], updates=weights(1, 1, 32, 32), axis=1, name="y"), SQUARE),
        ("pool", "over 14×14", lambda mb, x: mb.avg_pool(x=x, kernel_sizes=[14, 14], strides=[1, 1], pad_type="same", name="y"), SQUARE),
        ("upsample", "by 4", lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=4, scale_factor_width=2, name="y"), SQUARE),
        ("size", "of 16385", lambda mb, x: mb.relu(x=x, name="y"), (1, 1, 1, 16385)),
    ],
)
def test_what_leaves_is_named_with_module_remedy_and_source(
    placed: Callable[..., Any], rule: str, said: str, write: Any, shape: Any
) -> None:
    found = placed(write, shape)
    (finding,) = found.findings
    assert (finding.rule, finding.module, finding.leaves, found.leaving) == (rule, "blocks.0", True, 1)
    assert said in finding.message
    assert finding.remedy
    assert "https://" in finding.source


@pytest.mark.parametrize(
    ("rule", "said", "write", "shape"),
    [
        ("linear", "49 tokens, which could be a 1×1 convolution on 7×7", "linear", (1, 49, 64)),
        ("linear", "196 tokens, which could be a 1×1 convolution on 14×14", "linear", (1, 14, 14, 64)),
        ("last-axis", "a last axis of 1, padded to 64 bytes: 32 times the memory", "relu", (1, 64, 128, 1)),
        ("broadcast", "mul of 1×8×32×32 and 1×8×1×1", "squeeze", SQUARE),
        ("dilation", "a dilation of 2", "dilated", SQUARE),
        ("kernel", "a kernel of 9×9", "large", SQUARE),
        ("kernel", "a kernel of 16×16", "patches", SQUARE),
        ("stride", "a stride of 7×7", "sevens", SQUARE),
        ("stride", "a stride of 4×4 with a palette", "palette", SQUARE),
        ("pool", "over 9×9 may leave it", "pool", SQUARE),
        ("pool", "a pool of stride 3", "threes", SQUARE),
        ("gather", "gather may leave it", "gather", SQUARE),
        ("attention", "a softmax of 1×8×196×196", "softmax", (1, 8, 196, 196)),
        ("infinite", "an infinite constant", "mask", SQUARE),
    ],
)
def test_what_costs_or_is_disputed_does_not_leave(placed: Callable[..., Any], rule: str, said: str, write: str, shape: Any) -> None:
    def palette(mb: Any, x: Any) -> Any:
        table, indices = np.ones(16, np.float16), np.zeros(8 * 8 * 4 * 4 // 2, np.uint8)
        weight = mb.constexpr_lut_to_dense(lut=table, indices=indices, shape=np.array([8, 8, 4, 4], np.uint32))
        return mb.conv(x=x, weight=weight, strides=[4, 4], name="y")

    made = {
        "linear": lambda mb, x: mb.linear(x=x, weight=weights(32, 64), name="y"),
        "relu": lambda mb, x: mb.relu(x=x, name="y"),
        "squeeze": lambda mb, x: mb.mul(x=x, y=mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True), name="y"),
        "dilated": lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 3, 3), dilations=[2, 2], name="y"),
        "large": lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 9, 9), name="y"),
        "patches": lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 16, 16), strides=[16, 16], name="y"),
        "sevens": lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 7, 7), strides=[7, 7], name="y"),
        "palette": palette,
        "pool": lambda mb, x: mb.max_pool(x=x, kernel_sizes=[9, 9], strides=[1, 1], pad_type="same", name="y"),
        "threes": lambda mb, x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[3, 3], pad_type="valid", name="y"),
        "gather": lambda mb, x: mb.gather(x=x, indices=[1, 0], axis=1, name="y"),
        "softmax": lambda mb, x: mb.softmax(x=x, axis=-1, name="y"),
        "mask": lambda mb, x: mb.add(x=x, y=np.float16(-np.inf), name="y"),
    }
    found = placed(made[write], shape)
    (finding,) = [finding for finding in found.findings if finding.rule != "moves"]
    assert said in finding.message
    assert (finding.rule, finding.leaves, found.leaving, finding.module) == (rule, False, 0, "blocks.0")
    assert finding.remedy
    assert "https://" in finding.source


@pytest.mark.parametrize(
    ("options", "advised"),
    [
        ({"strides": [16, 16]}, "pixel_unshuffle"),
        ({"strides": [8, 8]}, "train again"),
        ({"strides": [16, 16], "pad_type": "custom", "pad": [8, 8, 8, 8]}, "train again"),
    ],
)
def test_a_patch_embedding_has_an_equal_that_needs_no_training(placed: Callable[..., Any], options: Any, advised: str) -> None:
    (finding,) = placed(lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 16, 16), name="y", **options), SQUARE).findings
    assert advised in finding.remedy


def test_the_network_is_told_of_its_moves_and_of_int8(placed: Callable[..., Any]) -> None:
    def moved(times: int) -> Callable[[Any, Any], Any]:
        def write(mb: Any, x: Any) -> Any:
            for _ in range(times):
                x = mb.transpose(x=x, perm=[0, 2, 3, 1])
            x = mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8")
            return mb.relu(x=mb.dequantize(input=x, scale=np.float16(0.1)), name="y")

        return write

    moves, eight = (one for one in placed(moved(10)).findings if one.module == "(the network itself)")
    assert (moves.rule, eight.rule, moves.leaves, eight.leaves) == ("moves", "int8", False, False)
    assert "10 of 13 operators only move data" in moves.message
    assert "moves" not in {one.rule for one in placed(moved(1)).findings}  # one is not worth a word


def test_what_stays_fp32_among_fp16_is_told_why_and_not_to_export_fp16(placed: Callable[..., Any]) -> None:
    def kept(mb: Any, x: Any) -> Any:
        return mb.cast(x=mb.tanh(x=mb.cast(x=mb.relu(x=x), dtype="fp32"), name="y"), dtype="fp16")

    (finding,) = (one for one in placed(kept).findings if one.rule == "fp32")
    assert (finding.module, finding.count) == ("blocks.0", 1)
    assert "--precision fp16" not in finding.remedy


def test_shapes_of_a_run_and_recurrences_leave() -> None:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, Function, get_new_symbol, types

    from dtvit_deploy.export.coreml.placement_rules import found_in
    from dtvit_deploy.process.quiet import quiet

    inputs = {"x": Builder.placeholder((get_new_symbol(), 1, 8), dtype=types.fp16)}
    with quiet(), Function(inputs, opset_version=ct.target.iOS17) as function:
        x = function.inputs["x"]
        gates = {"weight_ih": weights(16, 8), "weight_hh": weights(16, 4), "bias": weights(16)}
        sequence = Builder.lstm(x=x, initial_h=weights(1, 4), initial_c=weights(1, 4), output_sequence=True, **gates)
        function.set_outputs([sequence[0]])
    found = {one.rule: one for one in found_in(sequence[0].op)}
    assert set(found) == {"operator", "dynamic"}
    assert all(one.leaves and one.remedy and "https://" in one.source for one in found.values())


def test_fp32_leaves_as_a_whole_and_crosses_nothing(placed: Callable[..., Any]) -> None:
    found = placed(lambda mb, x: mb.relu(x=mb.tanh(x=x), name="y"), half=False)
    assert (found.leaving, found.operators, found.crossings) == (2, 2, 0)
    assert {finding.rule for finding in found.findings} == {"fp32"}


def test_crossings_count_every_change_of_unit(placed: Callable[..., Any]) -> None:
    def there_and_back(mb: Any, x: Any) -> Any:
        for _ in range(2):
            x = wide_pool(mb, mb.relu(x=x))
        return mb.relu(x=x, name="y")

    found = placed(there_and_back)
    assert (found.leaving, found.operators, found.crossings) == (2, 5, 4)
    (crossing,) = [finding for finding in found.findings if finding.rule == "crossings"]
    assert "reckoned from documents, not measured: 2 of 5 operators would leave it" in crossing.message


def test_two_branches_cross_once(placed: Callable[..., Any]) -> None:
    def branches(mb: Any, x: Any) -> Any:
        one, other = wide_pool(mb, x), wide_pool(mb, mb.tanh(x=x))
        return mb.add(x=one, y=mb.add(x=other, y=mb.relu(x=x)), name="y")

    assert placed(branches).crossings == 2


def test_a_line_speaks_for_all_modules_of_a_rule() -> None:
    from dtvit_deploy.export.coreml.placement import Finding, lines

    def of(module: str, message: str = "a thing") -> Finding:
        return Finding(rule="r", module=module, message=message, remedy="do", source="S")

    assert lines([of("a"), of("b"), of("c"), of("d")]) == ("Neural Engine: a, b, c and 1 more module: a thing (4 times); do (S)",)
    assert lines([of("a"), of("a", "another")]) == ("Neural Engine: a: a thing (and the like, 2 times); do (S)",)
    assert lines([of("(the network itself)")]) == ("Neural Engine: a thing; do (S)",)
