"""INT8 in a Core ML package: activations and weights (W8A8) from the range table, or weights alone.

W8A8 is written with the passes that coremltools' own ``linear_quantize_activations`` runs. That function observes the ranges by predicting,
which needs a Mac; here the passes are given the ranges of the table. Both store scales as FP16, and so start from an FP16 package.

Every linear and convolution with constant weights becomes INT8: what gains is the Neural Engine's path from INT8 to INT8 (A17 Pro, M4 and
later, by Apple's account), not the arithmetic of a CPU, for which `export.onnx.products` chooses the products that are worth a conversion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.coreml.interface import model_of_mil
from dtvit_deploy.export.coreml.origin import explained, module_of
from dtvit_deploy.export.coreml.palette import palette
from dtvit_deploy.export.coreml.saved import coremltools, mil_of, read_mlpackage, write_mlpackage
from dtvit_deploy.formats.mlpackage.options import Weights
from dtvit_deploy.formats.mlpackage.views import node_of
from dtvit_deploy.process.quiet import quiet

PRODUCTS = ("linear", "conv")
VIEWS = frozenset({"cast", "expand_dims", "identity", "reshape", "slice_by_index", "split", "squeeze", "transpose"})
"""Operators whose results have the range of what they view, where the table has none of their own."""
BITS = {Weights.PALETTE6: 6, Weights.PALETTE4: 4}
LEAST = 127 * 2.0**-14
"""Least bound whose scale is a normal FP16 number."""
LARGEST = 32752.0
"""Greatest bound whose doubling, which the scale is computed from, is an FP16 number."""


@dataclass(frozen=True)
class Quantised:
    """What became INT8.

    Attributes:
        modules: number of INT8 products of each torch module.
        pairs: quantise and dequantise operators in the package, in pairs.
        skipped: products that stay FP16, with the reason.
    """

    modules: Mapping[str, int]
    pairs: int
    skipped: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{name} stays FP16: {reason}" for name, reason in self.skipped.items() if reason != ASKED)


ASKED = "asked for"


class _Product(NamedTuple):
    """A linear or a convolution; ``weights`` is the name of the constant, and ``refusal`` why it stays as it is."""

    op: Any
    module: str
    weights: str
    refusal: str


def quantise_mlpackage(
    source: Path, path: Path, ranges: Mapping[str, tuple[float, float]], nodes: NodeMap, ios: int, in_float: Sequence[str] = ()
) -> Quantised:
    """FP16 package → W8A8 package.

    Args:
        source: FP16, with the program's names.
        path: of the new package.
        ranges: lowest and highest value by tensor, of inputs too.
        nodes: of the program.
        ios: the package's deployment target.
        in_float: torch modules (their children included) whose products stay FP16.

    Raises:
        InputError: nothing would become INT8, or coremltools cannot.
    """
    ct = coremltools()
    model = read_mlpackage(source)
    with quiet(), explained("quantise", "export it as fp16", nodes):
        program = mil_of(model)
        function = program.functions["main"]
        bounds = dict(_bounds(function, ranges))
        products = list(_products(function, bounds, nodes, in_float))
        chosen = [product for product in products if not product.refusal]
        if not chosen:
            raise InputError(
                "nothing would be INT8: no linear or convolution has constant weights and a calibrated range, and is not kept in float",
                remedy="leave int8 out, or calibrate again",
            )
        modules: dict[str, int] = {}
        for product in chosen:
            modules[product.module] = modules.get(product.module, 0) + 1
        _quantise_activations(ct, program, [product.op for product in chosen], bounds)
        _quantise_weights(ct, program, [product.weights for product in chosen])
        write_mlpackage(model_of_mil(program, ios, description=model.get_spec().description), path)
    skipped = {product.op.outputs[0].name: product.refusal for product in products if product.refusal}
    pairs = sum(op.op_type == "quantize" for op in function.operations)
    return Quantised(modules, pairs, skipped)


def compress_mlpackage(source: Path, path: Path, weights: Weights, ios: int) -> int:
    """FP16 package → one whose weights take less room; how many tensors do.

    Raises:
        InputError: coremltools cannot.
    """
    ct = coremltools()
    model = read_mlpackage(source)
    with quiet(), explained("compress", "leave --weights out"):
        program = mil_of(model)
        products = [op for op in program.functions["main"].operations if op.op_type in PRODUCTS and _has_constant_weights(op)]
        names = [op.inputs["weight"].op.name for op in products]
        if weights is Weights.INT8:
            _quantise_weights(ct, program, names)
        else:
            bits = BITS[weights]
            how = ct.optimize.coreml.OpPalettizerConfig(
                mode="custom", lut_function=lambda values: palette(values, bits), weight_threshold=0
            )
            _apply(program, "compression::palettize_weights", config=_of(ct, names, how))
        write_mlpackage(model_of_mil(program, ios, description=model.get_spec().description), path)
    return sum(op.op_type.startswith("constexpr_") for op in program.functions["main"].operations)


def _bounds(function: Any, ranges: Mapping[str, tuple[float, float]]) -> Iterator[tuple[str, float]]:
    """Greatest magnitude of each variable that has a range, its own or that of what it views."""
    own = {name: max(abs(low), abs(high)) for name, (low, high) in ranges.items()}
    found: dict[str, float] = {name: own[name] for name in function.inputs if name in own}
    for op in function.operations:
        viewed = op.inputs["x"].name if op.op_type in VIEWS else op.outputs[0].name.removesuffix("__biased__").removesuffix("__scaled__")
        for var in op.outputs:
            bound = own.get(node_of(var.name), found.get(viewed))
            if bound is not None:
                found[var.name] = bound
    yield from found.items()


def _products(function: Any, bounds: Mapping[str, float], nodes: NodeMap, in_float: Sequence[str]) -> Iterator[_Product]:
    """Every linear and convolution, and why it stays as it is."""
    wishes = tuple(wish.removesuffix(".") + "." for wish in in_float)
    products = [op for op in function.operations if op.op_type in PRODUCTS]
    refusals = {op.name: _refusal(op, bounds, nodes, wishes) for op in products}
    for op in products:
        weights = op.inputs["weight"]
        alone = all(refusals.get(reader.name) == "" for reader in weights.child_ops)
        refusal = refusals[op.name] or ("" if alone else "it shares its weights with an operator that does")
        yield _Product(op, module_of(op, nodes), weights.op.name if weights.op else "", refusal)


def _refusal(op: Any, bounds: Mapping[str, float], nodes: NodeMap, wishes: tuple[str, ...]) -> str:
    if wishes and (module_of(op, nodes) + ".").startswith(wishes):
        return ASKED
    if not _has_constant_weights(op):
        return "its factors are both activations"
    if op.inputs["x"].dtype.__name__ != "fp16":
        return "it is FP32"
    bound = bounds.get(op.inputs["x"].name)
    if bound is None:
        return "its input has no range"
    if bound >= LARGEST or 0 < bound < LEAST:
        return f"its input reaches {bound:.3g}, for which FP16 has no good scale"
    return ""


def _has_constant_weights(op: Any) -> bool:
    made = op.inputs["weight"].op
    return made is not None and made.op_type == "const"


def _quantise_activations(ct: Any, program: Any, ops: Sequence[Any], bounds: Mapping[str, float]) -> None:
    usable = {name: bound or 127.0 for name, bound in bounds.items() if bound < LARGEST and not 0 < bound < LEAST}
    stats = {name: {"rmin": -bound, "rmax": bound} for name, bound in usable.items()}
    how = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    outputs = program.functions["main"].outputs
    after = [op.name for op in ops if _last(op).outputs[0].name in stats and not _answers(op, outputs)]
    _apply(
        program, "compression::insert_prefix_quantize_dequantize_pair", config=_of(ct, [op.name for op in ops], how), activation_stats=stats
    )
    _apply(program, "compression::insert_suffix_quantize_dequantize_pair", config=_of(ct, after, how), activation_stats=stats)
    _apply(program, "common::dequantize_quantize_pair_elimination")


def _answers(op: Any, outputs: Sequence[Any]) -> bool:
    """Whether a product makes an answer of the network: in 256 steps, the two best of a thousand classes would often be equal."""
    return all(reader.op_type == "cast" and reader.outputs[0] in outputs for reader in op.outputs[0].child_ops)


def _last(op: Any) -> Any:
    """The operator behind which coremltools puts the second pair: the product, or an activation that it fuses with it."""
    from coremltools.converters.mil.mil.passes.defs.optimize_activation_quantization import insert_suffix_quantize_dequantize_pair

    readers = op.outputs[0].child_ops
    fused = readers and readers[0].op_type in insert_suffix_quantize_dequantize_pair._allowed_activations
    return readers[0] if fused and readers[0].outputs[0].child_ops else op


def _quantise_weights(ct: Any, program: Any, names: Sequence[str]) -> None:
    """The constants of those names; naming their readers would not do, since a bias of zeros may be a layer norm's too."""
    how = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0)
    _apply(program, "compression::linear_quantize_weights", config=_of(ct, names, how))


def _of(ct: Any, names: Sequence[str], how: Any) -> Any:
    return ct.optimize.coreml.OptimizationConfig(op_name_configs=dict.fromkeys(names, how))


def _apply(program: Any, name: str, **options: Any) -> None:
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    found = PASS_REGISTRY[name]
    found.set_options([PassOption(option, value) for option, value in options.items()])
    found.apply(program)
