"""What of a package would leave the Neural Engine, how often execution would go to and fro, and what costs time there.

Core ML decides on the device, by rules that Apple does not publish; on a Mac, its compute plan tells. What can be said before is what
Apple has written and others have measured, and each finding names its source. Where sources differ, the finding says so; what the sources
call slow, and not unsupported, does not count as leaving. They are notes, never errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt, prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dtvit_deploy.coreml.views import MOVED, node_of
from dtvit_deploy.export.mlpackage import mil_of, read_mlpackage
from dtvit_deploy.nodes import NodeMap
from dtvit_deploy.quiet import quiet

ARTICLE = "https://machinelearning.apple.com/research/neural-engine-transformers"
VISION = "https://machinelearning.apple.com/research/vision-transformers"
TYPED = "https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html"
INT8 = "https://apple.github.io/coremltools/docs-guides/source/opt-quantization-perf.html"
SHAPES = "https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html; https://developer.apple.com/forums/thread/724930"
LAYERS = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md, which calls some of its list guesses"
POOLS = "https://github.com/hollance/neural-engine/issues/1 and 2, log messages of iOS 13"
KERNELS = "https://github.com/ultralytics/yolov5/issues/2526, by experiment; Core ML's log has named 13 (hollance/neural-engine, issue 1)"
SIZES = "https://github.com/ncdrone/rustane/issues/13, measured on an M3 Ultra"
BROADCAST = (
    "sources differ: https://github.com/hollance/neural-engine/issues/2 has a log of iOS 13 that refuses it, and the layer norm of"
    " https://github.com/apple/ml-ane-transformers, made for the Neural Engine, does it"
)

WHOLE = "(the network itself)"
LANE = 64
"""Bytes that the last axis is padded to (`ARTICLE`)."""
WORTH = 1 << 18
"""Bytes of padding in one tensor that are worth a line."""
LARGEST_POOL, LARGEST_STRIDE, LARGEST_KERNEL, LARGEST_AXIS = 13, 2, 7, 16384
GATHERS = ("gather", "gather_along_axis", "gather_nd")
RECURRENT = ("gru", "lstm", "rnn")
MOVES = ("transpose", "reshape", "expand_dims", "squeeze")
FREE = ("const", "cast")
"""Constants, and what converts inputs and outputs, wherever it is done."""
RELAY = "--layout ane"
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
    """Where a package would run.

    Attributes:
        operators: of the package, constants and casts left out.
        leaving: of those, how many would not run on the Neural Engine.
        crossings: how often execution would go from the Neural Engine to another unit or back, were each to do all that it can.
        findings: what was found, merged for each module.
    """

    operators: int
    leaving: int
    crossings: int
    findings: tuple[Finding, ...]


class _Found(NamedTuple):
    rule: str
    message: str
    remedy: str
    source: str
    leaves: bool = False


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
    merged: dict[tuple[str, str, str, str], Finding] = {}
    stays = []
    for op in operators:
        found = list(_of(op))
        stays.append(not any(one.leaves for one in found))
        for one in found:
            module = _module(op, nodes)
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
    rest = f" and {len(modules) - _SHOWN} more modules" if len(modules) > _SHOWN else ""
    where = "" if modules == [WHOLE] else f"{', '.join(modules[:_SHOWN])}{rest}: "
    count = sum(finding.count for finding in group)
    others = len({finding.message for finding in group}) > 1
    times = f" ({'and the like, ' if others else ''}{count} times)" if count > 1 else ""
    return f"Neural Engine: {where}{first.message}{times}; {first.remedy} ({first.source})"


def _module(op: Any, nodes: NodeMap) -> str:
    name = str(op.outputs[0].name).partition(MOVED)[0]
    module = nodes.module_of(node_of(name.removesuffix("_cast_fp16")))
    return WHOLE if module == "(no module)" else module


def _of(op: Any) -> Iterator[_Found]:
    """What is known of one operator."""
    yield from _types(op)
    if op.op_type in (*GATHERS, *RECURRENT):
        yield _Found("operator", f"{op.op_type} is said not to run there", "replace it in this module", LAYERS, True)
    if op.op_type in ("conv", "conv_transpose"):
        yield from _convolution(op)
    if op.op_type in ("avg_pool", "max_pool", "l2_pool"):
        yield from _pool(op)
    if op.op_type == "linear":
        yield from _linear(op)
    if op.op_type in ("add", "sub", "mul", "real_div", "maximum", "minimum"):
        yield from _broadcast(op)
    yield from _tensors(op)


def _types(op: Any) -> Iterator[_Found]:
    if any(_dtype(var) == "fp32" for var in op.outputs):
        remedy = "export with --precision fp16, or int8; of such a package, take --keep-fp32 back"
        yield _Found("fp32", "FP32 runs on the CPU and the GPU", remedy, TYPED, True)
    if any(not _is_fixed(var) for var in op.outputs):
        message = "shapes that only a run tells run there in the input's default shape, if at all"
        yield _Found("dynamic", message, "export one package for each size", SHAPES, True)


def _convolution(op: Any) -> Iterator[_Found]:
    dilations = _numbers(op, "dilations")
    if any(dilation > 1 for dilation in dilations):
        yield _Found("dilation", "dilated convolutions are said not to run there", "replace it by several that are not", LAYERS, True)
    kernel = op.inputs["weight"].shape[2:]
    if max(kernel, default=1) > LARGEST_KERNEL:
        message = f"a kernel of {'×'.join(map(str, kernel))}: more than {LARGEST_KERNEL} was seen to split execution"
        yield _Found("kernel", message, "stack smaller ones", KERNELS, True)


def _pool(op: Any) -> Iterator[_Found]:
    kernel, strides = _numbers(op, "kernel_sizes"), _numbers(op, "strides")
    if max(kernel, default=1) > LARGEST_POOL:
        message = f"a pool over {'×'.join(map(str, kernel))}: more than {LARGEST_POOL} was refused"
        yield _Found("pool", message, "pool twice, or take the mean over the axes", POOLS, True)
    elif max(strides, default=1) > LARGEST_STRIDE:
        yield _Found("pool", f"a pool of stride {max(strides)}: more than {LARGEST_STRIDE} was refused", "pool twice", POOLS, True)


def _linear(op: Any) -> Iterator[_Found]:
    shape = tuple(op.inputs["x"].shape)
    if len(shape) < 3 or not _is_fixed(op.inputs["x"]):
        return
    if len(shape) == 4 and shape[2] == 1 and shape[1] > 1:  # a sum over tokens, which lie last: what --layout ane leaves of linears
        return
    tokens = prod(shape[1:-1])
    side = isqrt(tokens)
    grid = "×".join(map(str, shape[1:-1] if len(shape) > 3 else (side, side) if side * side == tokens else (1, tokens)))
    yield _Found("linear", f"a linear over {tokens} tokens, which could be a 1×1 convolution on {grid}", RELAY, ARTICLE)


def _broadcast(op: Any) -> Iterator[_Found]:
    both = [op.inputs["x"], op.inputs["y"]]
    if any(var.val is not None for var in both) or not all(len(var.shape) == 4 and _is_fixed(var) for var in both):
        return
    if both[0].shape != both[1].shape:
        one, other = ("×".join(map(str, var.shape)) for var in both)
        remedy = "if the compute plan shows a change of unit there, write out the smaller one"
        yield _Found("broadcast", f"{op.op_type} of {one} and {other}, one repeated over the other", remedy, BROADCAST)


def _tensors(op: Any) -> Iterator[_Found]:
    for var in op.outputs:
        shape = tuple(var.shape)
        if not _is_fixed(var) or not shape:
            continue
        if len(shape) > 4:
            yield _Found("rank", f"a tensor of {len(shape)} axes", "reshape in steps of at most 4 axes, or " + RELAY, VISION)
        if max(shape) > LARGEST_AXIS:
            message = f"an axis of {max(shape)}, and {LARGEST_AXIS} was the most that was accepted"
            yield _Found("size", message, "cut the tensor", SIZES, True)
        width = {"fp16": 2, "fp32": 4, "int8": 1, "uint8": 1}.get(_dtype(var), 0)
        row = shape[-1] * width
        padded = -(-row // LANE) * LANE if row else 0
        if padded >= 2 * row > 0 and (padded - row) * prod(shape[:-1]) >= WORTH:
            message = f"a last axis of {shape[-1]}, padded to {LANE} bytes: {padded / row:.0f} times the memory"
            yield _Found("last-axis", message, "put the longest axis last", ARTICLE)


def _of_all(operators: Sequence[Any], leaving: int, crossings: int, relaid: bool) -> Iterator[_Found]:
    moves = sum(op.op_type in MOVES for op in operators)
    if leaving < len(operators) and crossings:
        message = (
            f"{leaving} of {len(operators)} operators would leave it, and execution would cross between units up to {crossings} times;"
            " Core ML may leave for good at the first"
        )
        yield _Found("crossings", message, "replace what leaves, as named below", LAYERS)
    if moves and not relaid:
        message = f"{moves} of {len(operators)} operators only move data (transposes and reshapes)"
        yield _Found("moves", message, RELAY, ARTICLE)
    if any(op.op_type == "quantize" for op in operators):
        message = "INT8 activations gain time on the Neural Engine of an A17 Pro, M4 or later, and may cost time on CPU and GPU"
        yield _Found("int8", message, "for older devices, export fp16 too and compare", INT8)


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


def _dtype(var: Any) -> str:
    return str(getattr(var.dtype, "__name__", ""))


def _is_fixed(var: Any) -> bool:
    return all(not hasattr(size, "free_symbols") for size in getattr(var, "shape", ()))


def _numbers(op: Any, name: str) -> list[int]:
    value = op.inputs.get(name)
    return [] if value is None or value.val is None else [int(number) for number in value.val]
