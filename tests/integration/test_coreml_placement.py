"""Notes on what would leave the Neural Engine: each with its remedy and its source, and none where nothing is known against a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtvit_deploy.nodes import Node, NodeMap

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow


def weights(*shape: int) -> Any:
    return np.ones(shape, np.float16)


@pytest.fixture
def placed(tmp_path: Path) -> Callable[..., Any]:
    """Judge what a function makes of an FP16 tensor."""

    def judge(write: Callable[[Any, Any], Any], shape: tuple[int, ...] = (1, 8, 16, 32), *, half: bool = True) -> Any:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder, Function, Program, types

        from dtvit_deploy.export.coreml_interface import model_of_mil
        from dtvit_deploy.export.coreml_placement import place
        from dtvit_deploy.export.mlpackage import write_mlpackage
        from dtvit_deploy.quiet import quiet

        with quiet():
            kind = types.fp16 if half else types.fp32
            with Function({"x": Builder.placeholder(shape, name="x", dtype=kind)}, opset_version=ct.target.iOS17) as function:
                function.set_outputs([write(Builder, function.inputs["x"])])
            program = Program()
            program.add_function("main", function)
            write_mlpackage(model_of_mil(program, 17), tmp_path / "net.mlpackage")
        return place(tmp_path / "net.mlpackage", NodeMap([Node(name="y", module="blocks.0", op="aten.x")]))

    return judge


def test_a_convolution_in_fp16_is_left_in_peace(placed: Callable[..., Any]) -> None:
    found = placed(lambda mb, x: mb.conv(x=mb.relu(x=x), weight=weights(8, 8, 3, 3), name="y"))
    assert (found.operators, found.leaving, found.crossings, found.findings) == (2, 0, 0, ())


@pytest.mark.parametrize(
    ("rule", "write", "shape"),
    [
        ("dilation", lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 3, 3), dilations=[2, 2], name="y"), (1, 8, 16, 64)),
        ("kernel", lambda mb, x: mb.conv(x=x, weight=weights(8, 8, 9, 9), name="y"), (1, 8, 16, 64)),
        ("pool", lambda mb, x: mb.avg_pool(x=x, kernel_sizes=[14, 14], strides=[1, 1], pad_type="valid", name="y"), (1, 8, 16, 64)),
        ("pool", lambda mb, x: mb.avg_pool(x=x, kernel_sizes=[4, 4], strides=[4, 4], pad_type="valid", name="y"), (1, 8, 16, 64)),
        ("operator", lambda mb, x: mb.gather(x=x, indices=[1, 0], axis=1, name="y"), (1, 8, 16, 64)),
        ("size", lambda mb, x: mb.relu(x=x, name="y"), (1, 1, 1, 16385)),
    ],
)
def test_what_leaves_is_named_with_module_remedy_and_source(placed: Callable[..., Any], rule: str, write: Any, shape: Any) -> None:
    found = placed(lambda mb, x: write(mb, x), shape)
    (finding,) = [finding for finding in found.findings if finding.leaves]
    assert (finding.rule, finding.module, found.leaving) == (rule, "blocks.0", 1)
    assert finding.remedy
    assert "https://" in finding.source


@pytest.mark.parametrize(
    ("rule", "said", "write", "shape"),
    [
        ("linear", "a linear over 49 tokens, which could be a 1×1 convolution on 7×7", "linear", (1, 49, 64)),
        ("linear", "a linear over 196 tokens, which could be a 1×1 convolution on 14×14", "linear", (1, 14, 14, 64)),
        ("rank", "a tensor of 5 axes", "split", (1, 8, 16, 32)),
        ("last-axis", "a last axis of 1, padded to 64 bytes: 32 times the memory", "relu", (1, 64, 128, 1)),
        ("broadcast", "1×8×1×32", "sub", (1, 8, 16, 32)),
    ],
)
def test_what_costs_does_not_leave(placed: Callable[..., Any], rule: str, said: str, write: str, shape: Any) -> None:
    made = {
        "linear": lambda mb, x: mb.linear(x=x, weight=weights(32, 64), name="y"),
        "split": lambda mb, x: mb.reshape(x=x, shape=[1, 2, 4, 16, 32], name="y"),
        "relu": lambda mb, x: mb.relu(x=x, name="y"),
        "sub": lambda mb, x: mb.sub(x=x, y=mb.reduce_mean(x=x, axes=[2], keep_dims=True), name="y"),
    }
    found = placed(made[write], shape)
    (finding,) = [finding for finding in found.findings if finding.rule == rule]
    assert said in finding.message
    assert (finding.leaves, found.leaving, finding.module) == (False, 0, "blocks.0")


def test_fp32_leaves_as_a_whole_and_crosses_nothing(placed: Callable[..., Any]) -> None:
    found = placed(lambda mb, x: mb.relu(x=mb.tanh(x=x), name="y"), half=False)
    assert (found.leaving, found.operators, found.crossings) == (2, 2, 0)
    assert {finding.rule for finding in found.findings} == {"fp32"}


def test_crossings_count_every_change_of_unit(placed: Callable[..., Any]) -> None:
    def there_and_back(mb: Any, x: Any) -> Any:
        for _ in range(2):
            x = mb.gather(x=mb.relu(x=x), indices=[1, 0, 2, 3, 4, 5, 6, 7], axis=1)
        return mb.relu(x=x, name="y")

    found = placed(there_and_back)
    assert (found.leaving, found.operators, found.crossings) == (2, 5, 4)
    (crossing,) = [finding for finding in found.findings if finding.rule == "crossings"]
    assert "2 of 5 operators would leave it" in crossing.message


def test_two_branches_cross_once(placed: Callable[..., Any]) -> None:
    def branches(mb: Any, x: Any) -> Any:
        one = mb.gather(x=x, indices=list(range(8)), axis=1)
        other = mb.gather(x=mb.tanh(x=x), indices=list(range(7, -1, -1)), axis=1)
        return mb.add(x=one, y=mb.add(x=other, y=mb.relu(x=x)), name="y")

    assert placed(branches).crossings == 2


def test_a_line_speaks_for_all_modules_of_a_rule() -> None:
    from dtvit_deploy.export.coreml_placement import Finding, lines

    def of(module: str, message: str = "a thing") -> Finding:
        return Finding(rule="r", module=module, message=message, remedy="do", source="S")

    assert lines([of("a"), of("b"), of("c"), of("d")]) == ("Neural Engine: a, b, c and 1 more modules: a thing (4 times); do (S)",)
    assert lines([of("a"), of("a", "another")]) == ("Neural Engine: a: a thing (and the like, 2 times); do (S)",)
    assert lines([of("(the network itself)")]) == ("Neural Engine: a thing; do (S)",)
