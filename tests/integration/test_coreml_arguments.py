"""Arguments that coremltools ignores: the table says which, the installed release agrees, and no package is made without them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtvit_deploy.errors import InputError
from dtvit_deploy.process.quiet import quiet

pytest.importorskip("coremltools", reason="coremltools translates the programs")

from dtvit_deploy.export.coreml.arguments import RELEASES, honour, rows_of
from dtvit_deploy.export.coreml.keywords import keywords_read
from dtvit_deploy.export.coreml.program import prepared
from dtvit_deploy.export.coreml.saved import coremltools, write_program
from dtvit_deploy.export.program import node_map
from dtvit_deploy.export.rewrites.decomposition import decompose
from dtvit_deploy.runtimes.mil.evaluate import Evaluator
from dtvit_deploy.runtimes.mil.load import load_program

pytestmark = pytest.mark.slow
ROW = torch.linspace(-3, 3, 16).reshape(2, 8)
GRID = torch.sin(torch.arange(2 * 3 * 6 * 8.0)).reshape(2, 3, 6, 8)
COUNTS = (torch.arange(16).reshape(2, 8) * 7) % 10
HEADS = torch.cos(torch.arange(4 * 5 * 8.0)).reshape(1, 4, 5, 8)


class Case(NamedTuple):
    """A use of an operator that says something else than what coremltools takes for granted.

    Attributes:
        row: operator and argument in the table.
        use: of one tensor.
        refused: no other operators say the same.
    """

    row: tuple[str, str]
    use: Callable[[Tensor], Tensor]
    given: Tensor
    refused: bool = False


def sorter(x: Tensor) -> Tensor:
    return torch.searchsorted(x.flip(1), x, sorter=torch.arange(7, -1, -1).expand(2, 8).contiguous()).to(torch.int32)


IGNORED = {
    "gelu by tanh": Case(("gelu", "approximate"), lambda x: F.gelu(x, approximate="tanh"), ROW),
    "gelu by tanh, of what something else reads": Case(("gelu", "approximate"), lambda x: F.gelu(x, approximate="tanh") + F.gelu(x), ROW),
    "a multiple added": Case(("add", "alpha"), lambda x: torch.add(x, x * x, alpha=2.5), ROW),
    "a multiple of integers added": Case(("add", "alpha"), lambda x: torch.add(x, x * x, alpha=3), COUNTS),
    "a multiple subtracted": Case(("sub", "alpha"), lambda x: torch.sub(x, x * x, alpha=-2), ROW),
    "the mean of integers": Case(("mean", "dtype"), lambda x: x.mean(1, keepdim=True, dtype=torch.float32), COUNTS),
    "the mean of all integers": Case(("mean", "dtype"), lambda x: x.mean(dtype=torch.float32)[None], COUNTS),
    "an antialiased picture": Case(
        ("_upsample_bilinear2d_aa", "antialias"), lambda x: F.interpolate(x, size=(3, 8), mode="bilinear", antialias=True), GRID, True
    ),
    "pixels by a factor": Case(("upsample_nearest2d", "scale_factor"), lambda x: F.interpolate(x, scale_factor=1.7), GRID, True),
    "samples by a factor": Case(("upsample_nearest1d", "scale_factor"), lambda x: F.interpolate(x, scale_factor=0.6), GRID[0], True),
    "softplus up to a threshold": Case(("softplus", "threshold"), lambda x: F.softplus(x, 2.0, 1.0), ROW),
    "the best of all": Case(("argmax", "dim"), lambda x: x.argmax().to(torch.int32)[None], GRID),
    "the least of all, in as many axes": Case(("argmin", "dim"), lambda x: x.argmin(keepdim=True).to(torch.int32), GRID),
    "integers filled with a fraction": Case(("new_full", "dtype"), lambda x: x + x.new_full((2, 8), 2.7), COUNTS),
    "like integers": Case(("full_like", "dtype"), lambda x: x * torch.full_like(x, 2.7), COUNTS),
    "an integer of a fraction": Case(("scalar_tensor", "dtype"), lambda x: x * torch.scalar_tensor(2.7, dtype=torch.int64), COUNTS, True),
    "integers along a line": Case(("linspace", "dtype"), lambda x: x * torch.linspace(0, 9, 8, dtype=torch.int64), COUNTS, True),
    "bounds that cross": Case(("clamp", "max"), lambda x: torch.clamp(x, x * 2, x + 0.1), ROW),
    "a diagonal": Case(("diagonal", "dim1"), lambda x: x.diagonal(), ROW),
    "a diagonal above, of other axes": Case(("diagonal", "dim1"), lambda x: x.diagonal(2, -2, -1), GRID),
    "a diagonal below, of a tall matrix": Case(("diagonal", "dim1"), lambda x: x.diagonal(-1, 3, 2), GRID),
    "a diagonal as a copy": Case(("diagonal_copy", "dim1"), lambda x: torch.diagonal_copy(x, -1), ROW),
    "all dropped while inferring": Case(("native_dropout", "train"), lambda x: F.dropout(x, 1.0, training=True), ROW, True),
    "fewer heads of keys": Case(
        ("scaled_dot_product_attention", "enable_gqa"),
        lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, 2:], enable_gqa=True),
        HEADS,
    ),
}
FAILING = {
    "fewer heads of keys",
    "a diagonal above, of other axes",
    "a diagonal below, of a tall matrix",
    "a diagonal as a copy",
}
"""What the installed release refuses by itself, in words that help nobody."""
UNCOVERED = {("hann_window", "dtype")}
"""coremltools does not take the operator from an exported program at all."""
HONOURED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "plain gelu": (F.gelu, ROW),
    "plain sum": (lambda x: torch.add(x, x, alpha=1), ROW),
    "addmm": (lambda x: torch.addmm(x[:, :2], x, x.T, beta=0.5, alpha=3.0), ROW),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.3), ROW),
    "elu": (lambda x: F.elu(x, 0.3), ROW),
    "hardtanh": (lambda x: F.hardtanh(x, -0.2, 0.5), ROW),
    "softplus beta": (lambda x: F.softplus(x, 2.0), ROW),
    "clamp by numbers": (lambda x: x.clamp(0.2, 0.1), ROW),
    "layer norm": (lambda x: F.layer_norm(x, (8,), eps=0.1), ROW),
    "group norm": (lambda x: F.group_norm(x, 3, eps=0.1), GRID),
    "average without padding": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), GRID),
    "maximum with a rest": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), GRID),
    "bilinear, corners aligned": (lambda x: F.interpolate(x, size=(5, 13), mode="bilinear", align_corners=True), GRID),
    "antialiased and larger": (lambda x: F.interpolate(x, size=(12, 9), mode="bilinear", antialias=True), GRID),
    "pixels by a whole factor": (lambda x: F.interpolate(x, scale_factor=2), GRID),
    "pixels by sizes": (lambda x: F.interpolate(x, size=(13, 5)), GRID),
    "pad by reflection": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), GRID),
    "pad by a value": (lambda x: F.pad(x, (1, 2), value=3.0), ROW),
    "rounded quotient": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), ROW),
    "variance": (lambda x: x.var(1, correction=0, keepdim=True), ROW),
    "norm": (lambda x: torch.linalg.vector_norm(x, 1, 1, True), ROW),
    "the least three": (lambda x: x.topk(3, largest=False)[0], ROW),
    "sorted down": (lambda x: x.sort(descending=True)[0], ROW),
    "scaled attention": (lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.1), HEADS),
    "one head of keys": (lambda x: F.scaled_dot_product_attention(x, x[:, :1], x[:, 1:2], enable_gqa=True), HEADS),
    "a grid the other way": (lambda x: torch.meshgrid(x[0], x[1], indexing="xy")[0], ROW),
    "fractions of counts": (lambda x: torch.full_like(x, 3, dtype=torch.float32) / 2, COUNTS),
    "a whole among integers": (lambda x: x * torch.full((8,), 2.7, dtype=torch.int64), COUNTS),
    "filled with infinity": (lambda x: torch.maximum(x, torch.full_like(x, float("-inf"))), ROW),
    "an infinite number": (lambda x: torch.where(x > 0, x, torch.scalar_tensor(float("-inf"))).exp(), ROW),
    "places in floats": (lambda x: x + torch.arange(8, dtype=torch.float32) / 3, ROW),
    "a sequence and its order": (sorter, ROW),
    "the best of a row": (lambda x: x.argmax(1, keepdim=True).to(torch.int32), ROW),
}
"""Arguments that are not in the table, at other values than their defaults."""


class Net(nn.Module):
    def __init__(self, use: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x)


def program_of(use: Callable[[Tensor], Tensor], given: Tensor) -> Any:
    with quiet():
        return torch.export.export(Net(use), (given,)).run_decompositions({})


def translated(exported: Any, given: Tensor) -> Tensor:
    """What the package answers that coremltools makes of a program."""
    ct = coremltools()
    kind = np.float32 if given.is_floating_point() else np.int32
    prepared(exported)
    with quiet():
        program = ct.convert(
            exported,
            convert_to="milinternal",
            inputs=[ct.TensorType(name="x", shape=given.shape, dtype=kind)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
        )
    with tempfile.TemporaryDirectory() as folder:
        write_program(program, Path(folder) / "net.mlpackage")
        loaded = load_program(Path(folder) / "net.mlpackage")
        (answer,) = Evaluator(loaded, loaded.outputs).run({"x": given}).values()
    return answer


def agree(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", IGNORED)
def test_what_the_table_says_is_ignored_is_ignored(name: str) -> None:
    case = IGNORED[name]
    exported = program_of(case.use, case.given)
    if name in FAILING:  # its translation fails all the same, in words of its own
        with pytest.raises((ValueError, RuntimeError)):
            translated(exported, case.given)
    else:
        assert not agree(translated(exported, case.given), case.use(case.given))


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_ignored_is_written_otherwise_or_refused_by_name(name: str) -> None:
    case = IGNORED[name]
    exported = program_of(case.use, case.given)
    release = str(coremltools().__version__)
    if case.refused:
        with pytest.raises(InputError, match=r"ignores what the network asks for") as caught:
            honour(exported, node_map(exported), release)
        assert f"{case.row[1]} of {case.row[0]} (" in str(caught.value)
        assert caught.value.remedy
        assert not caught.value.remedy.startswith(";")
    else:
        assert honour(exported, node_map(exported), release)
        assert agree(translated(exported, case.given), case.use(case.given))


@pytest.mark.parametrize("name", HONOURED)
def test_what_the_table_does_not_name_is_honoured(name: str) -> None:
    use, given = HONOURED[name]
    exported = program_of(use, given)
    assert not honour(exported, node_map(exported), str(coremltools().__version__))
    assert agree(translated(exported, given), use(given))


def test_a_tensor_that_is_written_otherwise_keeps_its_name() -> None:
    exported = program_of(lambda x: F.gelu(torch.add(x, x, alpha=3), approximate="tanh"), ROW)
    before = [node.name for node in exported.graph.nodes]
    assert honour(exported, node_map(exported), "9.0")
    assert [node.name for node in exported.graph.nodes if node.name in before] == before
    assert exported.graph_signature.user_outputs == ("gelu",)


def test_so_does_one_that_torch_writes_with_others() -> None:
    exported = program_of(lambda x: F.elu(x * 2, 0.3), ROW)
    before = [node.name for node in exported.graph.nodes]
    assert decompose(exported, lambda operator: operator is not torch.ops.aten.elu.default)
    assert [node.name for node in exported.graph.nodes if node.name in before] == before
    assert exported.graph_signature.user_outputs == ("elu",)
    assert agree(exported.module()(ROW), F.elu(ROW * 2, 0.3))


def test_every_row_of_the_table_is_tried() -> None:
    rows = {(row.operator, row.argument) for row in rows_of(str(coremltools().__version__))}
    assert {case.row for case in IGNORED.values()} | UNCOVERED == rows


def test_a_release_without_a_table_is_held_to_the_newest_before_it() -> None:
    assert rows_of("9.0") is rows_of("9.0.1") is rows_of("9.7") is RELEASES["9.0"]
    assert rows_of("8.3") is RELEASES["9.0"]


def test_names_that_a_translation_asks_for_are_found_in_it() -> None:
    aten = torch.ops.aten
    asked = keywords_read(aten.addmm.default)
    assert asked is not None
    assert {"alpha", "beta"} <= asked
    assert "alpha" not in (keywords_read(aten.add.Tensor) or ())
    assert "reduce" in (keywords_read(aten.scatter.reduce) or ())
    assert keywords_read(aten.addcmul.default) is None  # it has no translation, which coremltools says itself


def test_an_argument_that_neither_the_translation_nor_the_table_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a release whose translation of an operator lost an argument that it has read until then."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    monkeypatch.setitem(_TORCH_OPS_REGISTRY.name_to_func_mapping, "div.tensor_mode", lambda context, node: None)
    monkeypatch.setitem(_TORCH_OPS_REGISTRY.name_to_func_mapping, "div", lambda context, node: None)
    exported = program_of(lambda x: torch.div(x, x + 9, rounding_mode="floor"), ROW)
    with pytest.raises(InputError, match=r"rounding_mode of div .* does not read rounding_mode=floor"):
        honour(exported, node_map(exported), "9.0")
