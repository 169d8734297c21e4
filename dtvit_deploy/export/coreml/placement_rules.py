"""What is written about the Neural Engine, as rules that a saved program can be held to.

Core ML decides on the device; Apple publishes no list of what runs where, and says that it changes with device, system and tensor sizes
(https://github.com/apple/coremltools/issues/1780). So each rule says no more than its source, and names it. An operator *leaves* where a
source says that it was refused and no newer one says otherwise; what is called slow, or what sources differ on, is only told. Some sources
are old (iOS 13), and Apple's own rules are written for Core AI, by their account from what the hardware does.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from dtvit_deploy.plural import counted

ARTICLE = "https://machinelearning.apple.com/research/neural-engine-transformers"
RULES = (
    "https://github.com/apple/coreai-models/blob/main/skills/skills/model-authoring/references/neural_engine_rules.md,"
    " Apple's, written for Core AI"
)
FORM = f"{ARTICLE}; {RULES}"
HEADS = "https://github.com/apple/ml-ane-transformers/blob/main/ane_transformers/reference/multihead_attention.py; " + RULES
TYPED = "https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html"
INT8 = "https://apple.github.io/coremltools/docs-guides/source/opt-quantization-perf.html"
SHAPES = "https://developer.apple.com/forums/thread/724930; https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html"
RECURRENCE = "https://github.com/apple/coremltools/issues/1780"
CONVERTER = "https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/frontend/torch/ops.py, in comments"
LAYERS = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md, which calls some of its list guesses"
GATHER = f"sources differ: {LAYERS}, has it as unsupported; {CONVERTER}, has it as running there"
DILATION = f"sources differ: {LAYERS}, has it as unsupported; {RULES}, have large rates as expensive"
LOG = "https://github.com/hollance/neural-engine/issues/2, a log of iOS 13"
POOL = f"sources differ: https://github.com/ultralytics/yolov5/issues/2526, by experiment; {LOG}, names 13"
SIZE = "https://github.com/ncdrone/rustane/issues/13, on an M3 Ultra, by an interface that is not Core ML's"
BROADCAST = f"sources differ: {LOG}, refuses it; https://github.com/apple/ml-vision-transformers-ane, made for the Neural Engine, does it"

LANE = 64
"""Bytes that the last axis is padded to (`RULES`)."""
WORTH = 1 << 18
"""Bytes in one tensor that are worth a line: ours, since no source has a number."""
LARGE_KERNEL = 7
"""Largest kernel that is not called large: ours; Apple's example of a large one has 9, of a small one 5 (`RULES`)."""
DOUBTFUL_POOL, REFUSED_POOL, LARGEST_SCALE, LARGEST_WIDTH = 7, 13, 2, 16384
PALETTE_STRIDE = 2
GATHERS = ("gather", "gather_along_axis", "gather_nd")
SCATTERS = ("scatter", "scatter_along_axis", "scatter_nd")
RECURRENT = ("gru", "lstm", "rnn")
RESIZES = ("resize_bilinear", "resize_nearest_neighbor", "upsample_bilinear", "upsample_nearest_neighbor")
RELAY = "--layout ane"
AGAIN = ", and train again"


class Found(NamedTuple):
    """What a rule says of an operator; see :class:`~dtvit_deploy.export.coreml.placement.Finding`."""

    rule: str
    message: str
    remedy: str
    source: str
    leaves: bool = False


def found_in(op: Any, *, mixed: bool = False) -> Iterator[Found]:
    """All that is known of one operator; ``mixed`` says that others of its package are FP16."""
    kind = op.op_type
    yield from _types(op, mixed)
    if kind in RECURRENT:
        yield Found("operator", f"{kind} is not supported there", "replace it in this module", RECURRENCE, True)
    elif kind in SCATTERS:
        yield Found("operator", f"{kind} is said to leave it", "replace what writes into parts of a tensor", CONVERTER, True)
    elif kind in GATHERS:
        remedy = "if the compute plan shows a change of unit there, take slices or a product with a constant"
        yield Found("gather", f"{kind} may leave it", remedy, GATHER)
    elif kind in ("conv", "conv_transpose"):
        yield from _convolution(op)
    elif kind in ("avg_pool", "max_pool", "l2_pool"):
        yield from _pool(op)
    elif kind in RESIZES:
        yield from _resize(op)
    elif kind == "linear":
        yield from _linear(op)
    elif kind == "softmax":
        yield from _softmax(op)
    elif kind in ("add", "sub", "mul", "real_div", "maximum", "minimum", "select"):
        yield from _elementwise(op)
    yield from _tensors(op)


def _types(op: Any, mixed: bool) -> Iterator[Found]:
    if any(dtype_of(var) == "fp32" for var in op.outputs):
        kept = "what FP16 cannot hold, --keep-fp32, --image-input and --classifier leave so: make it as little as you can"
        yield Found("fp32", "FP32 runs on the CPU and the GPU", kept if mixed else "export with --precision fp16, or int8", TYPED, True)
    if any(not _is_fixed(var) for var in op.outputs):
        message = "of shapes that only a run tells, the input's default one alone runs there (from iOS 17.4, more where the app loads the"
        message += " package with the reshape hint 'infrequent')"
        yield Found("dynamic", message, "export one package for each size", SHAPES, True)


def _convolution(op: Any) -> Iterator[Found]:
    weight = op.inputs["weight"]
    kernel, strides, dilations = list(weight.shape[2:]), _numbers(op, "strides"), _numbers(op, "dilations")
    if any(dilation > 1 for dilation in dilations):
        remedy = "chain smaller rates, of twos and threes" + AGAIN
        yield Found("dilation", f"a dilation of {max(dilations)}", remedy, DILATION)
    if max(kernel, default=1) > LARGE_KERNEL:
        patches = op.op_type == "conv" and kernel == strides and not any(_numbers(op, "pad")) and set(dilations) <= {1}
        remedy = "F.pixel_unshuffle and a 1×1 convolution are equal" if patches else "stack smaller ones" + AGAIN
        yield Found("kernel", f"a kernel of {_times(kernel)}; large ones are called expensive", remedy, RULES)
    palette = weight.op is not None and weight.op.op_type.startswith("constexpr_lut")
    if palette and max(strides, default=1) > PALETTE_STRIDE:
        message = f"a stride of {_times(strides)} with a palette of weights, for which strides up to {PALETTE_STRIDE} are advised"
        yield Found("stride", message, "keep the weights of this module as they are, or as INT8", RULES)
    elif not all(_of_twos_and_threes(stride) for stride in strides) or (len(set(strides)) > 1 and min(strides) > 2):
        message = f"a stride of {_times(strides)}; equal ones of twos and threes are called efficient"
        yield Found("stride", message, "take such a stride" + AGAIN, RULES)


def _pool(op: Any) -> Iterator[Found]:
    kernel, strides = _numbers(op, "kernel_sizes"), _numbers(op, "strides")
    largest = max(kernel, default=1)
    if largest > REFUSED_POOL:
        message = f"a pool over {_times(kernel)}: more than {REFUSED_POOL} was refused"
        yield Found("pool", message, "pool twice, or take the mean over the axes", LOG, True)
    elif largest > DOUBTFUL_POOL:
        yield Found("pool", f"a pool over {_times(kernel)} may leave it: more than {DOUBTFUL_POOL} did", "pool twice", POOL)
    if any(stride not in (1, 2, 4) for stride in strides):
        yield Found("pool", f"a pool of stride {max(strides)}: 2 and 4 are advised", "take one of these, or pool twice", RULES)


def _resize(op: Any) -> Iterator[Found]:
    before, after = op.inputs["x"], op.outputs[0]
    if not (_is_fixed(before) and _is_fixed(after)):
        return
    scale = max(new / old for old, new in zip(before.shape[-2:], after.shape[-2:], strict=True))
    if scale > LARGEST_SCALE:
        message = f"{op.op_type} by {scale:g}: more than {LARGEST_SCALE} was refused"
        yield Found("upsample", message, f"scale by {LARGEST_SCALE} more than once", LOG, True)


def _linear(op: Any) -> Iterator[Found]:
    shape = tuple(op.inputs["x"].shape)
    if len(shape) < 3 or not _is_fixed(op.inputs["x"]):
        return
    if len(shape) == 4 and shape[2] == 1 and shape[1] > 1:  # a sum over tokens, which lie last: what --layout ane leaves of linears
        return
    tokens = prod(shape[1:-1])
    side = isqrt(tokens)
    grid = _times(shape[1:-1] if len(shape) > 3 else (side, side) if side * side == tokens else (1, tokens))
    yield Found("linear", f"a linear over {counted(tokens, 'token')}, which could be a 1×1 convolution on {grid}", RELAY, FORM)


def _softmax(op: Any) -> Iterator[Found]:
    x, axis = op.inputs["x"], op.inputs["axis"]
    shape = tuple(x.shape)
    if len(shape) != 4 or not _is_fixed(x) or shape[1] == 1 or int(axis.val) not in (-1, 3) or 2 * prod(shape) < WORTH:
        return
    message = f"a softmax of {_times(shape)} over its last axis, all heads in one tensor; Apple splits heads and has keys as channels"
    yield Found("attention", message, "compare with an attention that is written so", HEADS)


def _elementwise(op: Any) -> Iterator[Found]:
    for var in op.inputs.values():
        if isinstance(value := getattr(var, "val", None), (np.ndarray, np.floating)) and value.dtype.kind == "f" and np.isinf(value).any():
            yield Found("infinite", "an infinite constant, which a softmax there is said to get wrong", "write -40000 for -inf", RULES)
    if op.op_type == "select":
        return
    both = [op.inputs["x"], op.inputs["y"]]
    if any(var.val is not None for var in both) or not all(len(var.shape) == 4 and _is_fixed(var) for var in both):
        return
    small, large = sorted((tuple(var.shape) for var in both), key=prod)
    if small[1] == large[1] and small[2:] == (1, 1) != large[2:]:
        message = f"{op.op_type} of {_times(large)} and {_times(small)}, one number for each channel"
        remedy = "if the compute plan shows a change of unit there, write out the smaller one"
        yield Found("broadcast", message, remedy, BROADCAST)


def _tensors(op: Any) -> Iterator[Found]:
    for var in op.outputs:
        shape = tuple(var.shape)
        if not _is_fixed(var) or not shape:
            continue
        if shape[-1] > LARGEST_WIDTH:
            message = f"a last axis of {shape[-1]}; {LARGEST_WIDTH} was the most that compiled"
            yield Found("size", message, "cut the tensor", SIZE, True)
        width = {"fp16": 2, "fp32": 4, "int8": 1, "uint8": 1}.get(dtype_of(var), 0)
        row = shape[-1] * width
        padded = -(-row // LANE) * LANE if row else 0
        if padded >= 2 * row > 0 and (padded - row) * prod(shape[:-1]) >= WORTH:
            message = f"a last axis of {shape[-1]}, padded to {LANE} bytes: {padded / row:.0f} times the memory, where it leaves the cache"
            yield Found("last-axis", message, "put the longest axis last", FORM)


def _of_twos_and_threes(number: int) -> bool:
    for factor in (2, 3):
        while number % factor == 0:
            number //= factor
    return number == 1


def _times(sizes: Any) -> str:
    return "×".join(map(str, sizes))


def dtype_of(var: Any) -> str:
    return str(getattr(var.dtype, "__name__", ""))


def _is_fixed(var: Any) -> bool:
    return all(not hasattr(size, "free_symbols") for size in getattr(var, "shape", ()))


def _numbers(op: Any, name: str) -> list[int]:
    value = op.inputs.get(name)
    return [] if value is None or value.val is None else [int(number) for number in value.val]
