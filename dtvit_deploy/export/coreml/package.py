"""An exported program to a Core ML package, in FP32 or FP16.

coremltools translates the program in two halves here: the program to its own intermediate language (MIL), where tensors get back the
names that the passes took from them, and MIL to a package. Inputs and outputs are FP32 in either precision: FP16 ones would save a copy
and cost every application its plain arrays, and whoever wants the camera's pixels asks for an image input.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.coreml.arguments import honour
from dtvit_deploy.export.coreml.interface import Interface
from dtvit_deploy.export.coreml.names import restore_names
from dtvit_deploy.export.coreml.order import watched_orders
from dtvit_deploy.export.coreml.origin import explained, module_of
from dtvit_deploy.export.coreml.program import has_translation, prepared
from dtvit_deploy.export.coreml.saved import coremltools, write_mlpackage, write_program
from dtvit_deploy.export.garbage import uncollected
from dtvit_deploy.export.onnx.float16 import HEADROOM, LARGEST_FP16
from dtvit_deploy.export.program import node_map
from dtvit_deploy.export.rewrites.decomposition import decompose
from dtvit_deploy.formats.mlpackage.options import HeldAs
from dtvit_deploy.process.quiet import quiet

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from dtvit_deploy.artifacts.nodes import NodeMap


Measure = Callable[[Path], Mapping[str, float]]
"""Greatest finite |x| of each floating-point variable of an FP32 package, by its name there."""
Judge = Callable[[Path], None]
"""Raises :class:`InputError` where an FP32 package is another network than the program that it was made of."""
REPLACE = "replace that operator in your network by others, or export another target"
SQUARED = ("l2_norm", "reduce_l2_norm", "reduce_sum_square")
"""Operators that add squares of their input on the way."""


@dataclass(frozen=True)
class Converted:
    """What became of a program.

    Attributes:
        reasons: why modules stay FP32 in an FP16 package, by module.
        views: tensors that are held in another order than the node's whose name they have.
    """

    reasons: Mapping[str, str]
    views: Mapping[str, HeldAs]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{module} stays FP32: {reason}" for module, reason in self.reasons.items())


def mlpackage_from_program(
    exported: ExportedProgram,
    nodes: NodeMap,
    interface: Interface,
    precision: Precision,
    path: Path,
    *,
    measure: Measure | None = None,
    judge: Judge | None = None,
    keep_fp32: Sequence[str] = (),
    imprecise: Mapping[str, str] | None = None,
) -> Converted:
    """Convert, and write the package ``path``; the program is changed and must not be used afterwards.

    Args:
        exported: functional, as the ONNX exporter has left it.
        nodes: of that program.
        interface: names, types and metadata of what goes in and comes out.
        precision: FP32 or FP16.
        path: of the package.
        measure: tells what the tensors reach on real feeds; without it, and where it names none, tensors are taken to fit FP16.
        judge: is shown the translation in FP32, from which FP16 is made too.
        keep_fp32: torch modules (their children included) that stay FP32 by the user's wish.
        imprecise: torch modules (not their children) that stay FP32, with the reason.

    Raises:
        InputError: an operator has no translation or one that ignores its arguments, an interface cannot be had, ``judge`` refuses, or
            ``keep_fp32`` names a module that made no node.
        MissingError: coremltools cannot be used.
    """
    ct = coremltools()
    written_out = decompose(exported, has_translation)
    if honour(exported, nodes, str(ct.__version__)) or written_out:
        nodes = node_map(exported)
    made = prepared(exported)
    typing = _Typing(made, nodes, keep_fp32, imprecise or {}) if precision is Precision.FP16 else None
    pipeline = ct.PassPipeline()
    if typing and (measure or judge):
        _before_typing(pipeline, lambda whole: _seen(whole, judge, typing, measure))
    with quiet(), uncollected(), watched_orders() as orders, explained("translate", REPLACE, nodes, made):
        program = ct.convert(
            exported,
            convert_to="milinternal",
            inputs=interface.tensors(ct),
            outputs=interface.outputs(ct),
            minimum_deployment_target=interface.target(ct),
            compute_precision=ct.transform.FP16ComputePrecision(op_selector=typing.is_half) if typing else ct.precision.FLOAT32,
            pass_pipeline=pipeline,
        )
        views = restore_names(program, made, orders)
        if judge and not typing:
            _seen(program, judge)
        write_mlpackage(interface.model_of(ct, program), path)
    return Converted(typing.kept if typing else {}, views)


def _before_typing(pipeline: Any, look: Callable[[Any], None]) -> None:
    """Have the program looked at as it is when its operators are about to become FP16: what is asked about then is what was measured."""
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass

    @register_pass(namespace="dtvit", override=True)
    class measured(AbstractGraphPass):  # type: ignore[misc]  # noqa: N801 the registry names it after its class
        def apply(self, program: Any) -> None:
            look(program)

    pipeline.insert_pass(pipeline.passes.index("common::add_fp16_cast"), "dtvit::measured")


def _seen(program: Any, judge: Judge | None, typing: _Typing | None = None, measure: Measure | None = None) -> None:
    """Show a MIL program in FP32, as a package, to who judges and who measures it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.mlpackage"
        write_program(program, path)
        if judge:
            judge(path)
        if typing and measure:
            typing.judge(program, measure(path))


class _Typing:
    """Which operators become FP16, asked by coremltools operator by operator."""

    def __init__(self, made: Sequence[torch.fx.Node], nodes: NodeMap, keep: Sequence[str], imprecise: Mapping[str, str]) -> None:
        self._made, self._nodes, self._imprecise = made, nodes, imprecise
        self._overflowing: dict[Any, str] = {}
        self._wishes = tuple(wish.removesuffix(".") + "." for wish in keep)
        self.kept: dict[str, str] = {}
        modules = sorted({node.module for node in nodes.nodes if node.module})
        for wish in self._wishes:
            if not any((module + ".").startswith(wish) for module in modules):
                raise InputError(
                    f"no node comes from a module {wish[:-1]!r}, so nothing there can stay FP32",
                    remedy="modules with nodes: " + ", ".join(modules[:12]) + (", …" if len(modules) > 12 else ""),
                )

    def judge(self, program: Any, magnitudes: Mapping[str, float]) -> None:
        """Find the operators that FP16 cannot hold, before any of them is changed and with it the names of what it reads."""
        for op in program.functions["main"].operations:
            if op.op_type != "const" and (reason := _overflow(op, magnitudes)):
                self._overflowing[op] = reason

    def is_half(self, op: Any) -> bool:
        if op.op_type == "const":
            return True
        module = module_of(op, self._nodes, self._made)
        asked = "asked for" if self._wishes and (module + ".").startswith(self._wishes) else ""
        reason = asked or self._overflowing.get(op, "") or self._imprecise.get(module, "")
        if reason:
            self.kept.setdefault(module, reason)
        return not reason


def _overflow(op: Any, magnitudes: Mapping[str, float]) -> str:
    """What of an operator FP16 cannot hold; infinities it can."""
    for var in (*_vars(op.inputs.values()), *op.outputs):
        size, margin = magnitudes.get(var.name, 0.0), HEADROOM
        if isinstance(var.val, (np.ndarray, np.floating)) and var.val.dtype == np.float32:
            size, margin = float(np.abs(var.val, where=np.isfinite(var.val), out=np.zeros_like(var.val)).max(initial=0.0)), 1.0
        if not size * margin < LARGEST_FP16:
            return f"|{var.name}| reaches {size:.3g}, FP16 ends at {LARGEST_FP16:.0f}"
    if op.op_type in SQUARED and not (square := magnitudes.get(op.inputs["x"].name, 0.0) ** 2) * HEADROOM < LARGEST_FP16:
        return f"{op.op_type} adds squares of {op.inputs['x'].name} up to {square:.3g}, FP16 ends at {LARGEST_FP16:.0f}"
    return ""


def _vars(values: Any) -> list[Any]:
    return [var for value in values for var in (value if isinstance(value, (list, tuple)) else (value,))]
