"""What of a package would leave the Neural Engine, how often execution would go to and fro, and what costs time there.

A reckoning from documents, never a measurement: on a Mac, Core ML's compute plan tells. What the documents say is in
:mod:`dtvit_deploy.export.coreml.placement_rules`, and each finding names its source. They are notes, never errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.export.coreml.origin import WHOLE, module_of
from dtvit_deploy.export.coreml.placement_rules import FORM, INT8, LAYERS, RELAY, Found, dtype_of, found_in
from dtvit_deploy.export.coreml.saved import mil_of, read_mlpackage
from dtvit_deploy.formats.mlpackage.views import MOVES
from dtvit_deploy.plural import counted, some
from dtvit_deploy.process.quiet import quiet

FREE = ("const", "cast")
"""Constants, and what converts inputs and outputs, wherever it is done."""
SEVERAL = 10
"""Operators that only move data from which another order of the tensors is worth a word; ours, not a source's."""
_SHOWN = 3
"""Modules that a line names before it counts the rest."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule found in one torch module.

    Attributes:
        rule: short name of the rule.
        module: path of the torch module, as a person would write it.
        message: what is there.
        remedy: what to do about it.
        source: who says so.
        leaves: the operator would not run on the Neural Engine; else it would, at a cost.
        count: operators of the module that it is true of.
    """

    rule: str
    module: str
    message: str
    remedy: str
    source: str
    leaves: bool = False
    count: int = 1


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a package would run, reckoned from documents.

    Attributes:
        operators: of the package, constants and casts left out.
        leaving: of those, how many documents say would not run on the Neural Engine.
        crossings: how often execution would then go from the Neural Engine to another unit or back, were each to do all that it can.
        findings: what was found, merged for each module.
    """

    operators: int
    leaving: int
    crossings: int
    findings: tuple[Finding, ...]


def place(path: Path, nodes: NodeMap, *, relaid: bool = False) -> Placement:
    """Judge a package.

    Args:
        path: of the package.
        nodes: of the program that it was made from.
        relaid: what :data:`RELAY` can do was done.
    """
    with quiet():
        function = mil_of(read_mlpackage(path)).functions["main"]
    operators = [op for op in function.operations if op.op_type not in FREE and not op.op_type.startswith("constexpr_")]
    mixed = any(dtype_of(var) == "fp16" for op in operators for var in op.outputs)
    merged: dict[tuple[str, str, str, str], Finding] = {}
    stays = []
    for op in operators:
        found = list(found_in(op, mixed=mixed))
        stays.append(not any(one.leaves for one in found))
        for one in found:
            module = module_of(op, nodes)
            key = one.rule, module, one.message, one.remedy
            before = merged.get(key)
            merged[key] = msgspec.structs.replace(before, count=before.count + 1) if before else Finding(module=module, **one._asdict())
    crossings = _crossings(operators, stays)
    leaving = stays.count(False)
    whole = [Finding(module=WHOLE, **one._asdict()) for one in _of_all(operators, leaving, crossings, relaid)]
    return Placement(operators=len(operators), leaving=leaving, crossings=crossings, findings=(*whole, *merged.values()))


def lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """One line for all that has the same rule and remedy: a hundred linears are not a hundred lines."""
    groups: dict[tuple[str, str, bool], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.rule, finding.remedy, finding.leaves), []).append(finding)
    return tuple(_line(group) for group in groups.values())


def _line(group: Sequence[Finding]) -> str:
    first = max(group, key=lambda finding: finding.count)
    modules = list(dict.fromkeys(finding.module for finding in group))
    where = "" if modules == [WHOLE] else f"{some(modules, _SHOWN, 'module')}: "
    count = sum(finding.count for finding in group)
    others = len({finding.message for finding in group}) > 1
    times = f" ({'and the like, ' if others else ''}{count} times)" if count > 1 else ""
    return f"Neural Engine: {where}{first.message}{times}; {first.remedy} ({first.source})"


def _of_all(operators: Sequence[Any], leaving: int, crossings: int, relaid: bool) -> Iterator[Found]:
    moves = sum(op.op_type in MOVES for op in operators)
    if leaving < len(operators) and crossings:
        message = (
            f"reckoned from documents, not measured: {leaving} of {counted(len(operators), 'operator')} would leave it, and execution"
            f" would cross between units up to {counted(crossings, 'time')}; Core ML may leave for good at the first"
        )
        yield Found("crossings", message, "replace what leaves, as named below", LAYERS)
    if moves >= SEVERAL and not relaid:
        message = f"{moves} of {len(operators)} operators only move data (transposes and reshapes)"
        yield Found("moves", message, RELAY, FORM)
    if any(op.op_type == "quantize" for op in operators):
        message = (
            "INT8 activations and weights are documented to gain most on the Neural Engine of an A17 Pro or M4 and newer (Apple's table has"
            " gains on an A16 too), and to cost time on the CPU and sometimes the GPU"
        )
        yield Found("int8", message, "for other devices, export fp16 too and compare", INT8)


def _crossings(operators: Sequence[Any], stays: Sequence[bool]) -> int:
    """Changes of unit when each unit computes all that it can before the other goes on; all inputs are in memory that both reach."""
    maker = {var: index for index, op in enumerate(operators) for var in op.outputs}
    needs = [{maker[var] for var in _sources(op, maker)} for op in operators]
    left, done, crossings = set(range(len(operators))), set[int](), -1
    here = False
    while left:
        here, part = not here, set[int]()
        for index in sorted(left):
            if stays[index] is here and needs[index] <= done | part:
                part.add(index)
        done |= part
        left -= part
        crossings += bool(part)
        if not part and not any(needs[index] <= done for index in left):
            break
    return max(crossings, 0)


def _sources(op: Any, maker: dict[Any, int]) -> Iterator[Any]:
    """What an operator reads of others, through casts."""
    for value in op.inputs.values():
        for var in value if isinstance(value, (list, tuple)) else (value,):
            while var is not None and var not in maker and var.op is not None and var.op.op_type == "cast":
                var = var.op.inputs["x"]
            if var in maker:
                yield var
