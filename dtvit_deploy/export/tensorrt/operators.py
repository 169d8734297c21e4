"""What each release of NVIDIA's ONNX parser takes: opsets, operators, types. Every fact has its source.

* TensorRT 10.0 and 10.1: the parser's sources, https://github.com/onnx/onnx-tensorrt at 96e7811 (docs/operators.md, onnxOpImporters.cpp,
  onnxOpCheckers.cpp).
* What later releases added: docs/Changelog.md at 0137504 (to 10.6), and the heading "Parser changes" of each release in CHANGELOG.md of
  https://github.com/NVIDIA/TensorRT at v11.1.
* 10.15 and 11.1: docs/operators.md, the latter at 7c51a63, which is v11.1's submodule.
* TensorRT-RTX: version 1.7.1's parser was asked for each operator, and given a graph for each restriction; tests ask it again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx
from onnx import TensorProto

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.export.tensorrt.graph import Graph

Release = tuple[int, ...]
LIBRARIES = ("tensorrt", "tensorrt-rtx")


class Compiler(NamedTuple):
    """Which library is to build the engine.

    Attributes:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        version: like ``10.3``, ``11`` or ``1.7.1``; what is missing counts as 0.
    """

    library: str
    version: str

    @property
    def release(self) -> Release:
        """The version as numbers.

        Raises:
            InputError: there is no such library, or the version is none.
        """
        if self.library not in LIBRARIES:
            raise InputError(f"there is no compiler {self.library!r}", remedy=f"choose from {', '.join(LIBRARIES)}")
        if not re.fullmatch(r"\d{1,4}(\.\d{1,6}){0,3}([.+-].*)?", self.version):
            raise InputError(f"{self.version!r} is no version of {self.library}", remedy="write it like 10.3 or 1.7.1")
        found = [int(part) for part in re.match(r"[\d.]+", self.version)[0].split(".") if part]  # type: ignore[index]  # it has matched
        return (*found, 0, 0, 0)[: max(3, len(found))]

    @property
    def rtx(self) -> bool:
        return self.library == "tensorrt-rtx"

    def since(self, *release: int) -> bool:
        """Whether it is TensorRT of that release or a later one; TensorRT-RTX's parser is newer than all that is asked for here."""
        return self.rtx or self.release >= release

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"


OLDEST_OPSET = 9
_OPSETS: tuple[tuple[Release, int], ...] = (
    ((11, 4), 25),  # https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html, read when 11.4 was the newest
    ((10, 15), 24),  # docs/operators.md of 10.15 and of 11.1
    ((10, 14), 23),  # the release that reads Attention, which is of opset 23
    ((10, 6), 22),  # ONNX 1.17; https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1060/
    ((0,), 20),  # docs/operators.md of 10.0 and 10.1; nothing was said of a newer one until 10.6
)
_RTX_OPSET = 27
"""The newest opset of which TensorRT-RTX 1.7.1 knows an operator (LinearAttention)."""


def newest_opset(compiler: Compiler) -> int:
    """The newest opset that is documented for it. No parser refuses a newer one: it reads each operator by the definition it knows."""
    if compiler.rtx:
        return _RTX_OPSET
    return next(opset for release, opset in _OPSETS if compiler.release >= release)


NEVER = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
        "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger",
        "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
        "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
        "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
        "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique",
    }
)  # fmt: skip
"""Operators that none of 10.0 to 11.1 and RTX 1.7.1 reads."""
SINCE: Mapping[str, Release] = {
    "DeformConv": (10, 1),
    "BlackmanWindow": (10, 4),
    "HammingWindow": (10, 4),
    "HannWindow": (10, 4),
    "STFT": (10, 5),
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
    "Swish": (11,),
}
"""Operators that came after 10.0."""
NOT_RTX = frozenset({"BitCast", "CumProd", "DeformConv", "SwiGLU"})
"""Further operators that TensorRT-RTX 1.7.1 lacks."""
RTX_SINCE: Mapping[str, Release] = {"RoiAlign": (1, 5)}
"""https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/release-notes-1/1.5.html"""


def missing_operator(node: onnx.NodeProto, compiler: Compiler) -> str:
    """Why its parser has no such operator; empty where it has one."""
    operator = node.op_type
    if not _standard(operator):
        return f"{operator} ({node.domain or 'no domain'}) is no ONNX operator; it needs a plugin of that name"
    if operator in NEVER or (compiler.rtx and operator in NOT_RTX):
        return f"its parser has no {operator}"
    since = (RTX_SINCE if compiler.rtx else SINCE).get(operator)
    if since is not None and compiler.release < since:
        return f"its parser reads {operator} from {compiler.library} {'.'.join(map(str, since))} on"
    first = min(schema.since_version for schema in _standard(operator))
    if since is None and first > newest_opset(compiler):
        return f"{operator} came with opset {first}, which is newer than all that it documents"
    return ""


def _standard(operator: str) -> list[onnx.defs.OpSchema]:
    return _schemas().get(operator, [])


@functools.cache
def _schemas() -> dict[str, list[onnx.defs.OpSchema]]:
    known: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            known.setdefault(schema.name, []).append(schema)
    return known


FLOAT_ONLY = frozenset({"Einsum", "Erf", "Gemm", "MatMul", "PRelu"})
"""Operators that ONNX defines for integers too and no release takes them with. Others (Clip, TopK, …) are documented so and read."""
TYPES = frozenset(
    {
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64,
        TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL, TensorProto.INT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1,
    }
)  # fmt: skip
"""Types of tensors that some release reads. DOUBLE becomes FLOAT, and UINT8 is for the network's own inputs and outputs."""


OPERATORS_MD = "TensorRT 10.0 to 11.1: onnx-tensorrt's docs/operators.md and checkers"
"""Where a restriction is written; TensorRT-RTX 1.7.1 was seen to refuse each of them too, which tests ask again."""


class Restriction(NamedTuple):
    """A use of an operator that is refused.

    Attributes:
        operators: to which it applies.
        applies: whether a node of a graph, with its attributes, is such a use.
        message: what is there.
        remedy: what to do.
        source: for which releases that is known, and from where.
    """

    operators: frozenset[str]
    applies: Callable[[Graph, onnx.NodeProto, Mapping[str, Any]], bool]
    message: str
    remedy: str
    source: str = OPERATORS_MD


def _more_outputs(_: Graph, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> bool:
    return any(node.output[1:])


def _says(attribute: str, *values: str) -> Callable[[Graph, onnx.NodeProto, Mapping[str, Any]], bool]:
    """Whether an attribute is a text of those; ONNX has bytes, and graphs from elsewhere whatever they have."""
    known = {text for value in values for text in (value, value.encode())}
    return lambda _, node, attributes: attributes.get(attribute) in known


def _trains(graph: Graph, node: onnx.NodeProto, _: Mapping[str, Any]) -> bool:
    values = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return values is not None and bool(values.any())


RESTRICTIONS = (
    Restriction(
        frozenset({"MaxPool", "LayerNormalization"}),
        _more_outputs,
        "only its first output is supported",
        "compute what the others are from the first, or leave them out",
    ),
    Restriction(
        frozenset({"MaxPool", "AveragePool", "LpPool"}),
        lambda _graph, _node, attributes: any(step != 1 for step in attributes.get("dilations", ())),
        "pooling with dilation is not supported",
        "pool without dilation, or gather with strided slices",
    ),
    Restriction(
        frozenset({"BatchNormalization"}),
        lambda _graph, _node, attributes: attributes.get("training_mode", 0) == 1,
        "batch normalisation in training mode is not supported",
        "call eval() on the network before it is exported",
    ),
    Restriction(
        frozenset({"Dropout"}), _trains, "dropping while inferring is not supported", "call eval() on the network before it is exported"
    ),
    Restriction(
        frozenset({"Resize"}),
        lambda _graph, _node, attributes: attributes.get("antialias", 0) == 1,
        "resizing with antialiasing is not supported",
        "interpolate with antialias=False, or as a product with a constant matrix, which is exact",
    ),
    Restriction(
        frozenset({"Resize"}),
        _says("keep_aspect_ratio_policy", "not_larger", "not_smaller"),
        "resizing that keeps the aspect ratio is not supported",
        "give both sizes",
    ),
    Restriction(
        frozenset({"Resize"}),
        _says("coordinate_transformation_mode", "half_pixel_symmetric", "tf_crop_and_resize"),
        "that way to place pixels is not supported",
        "use half_pixel or align_corners, or interpolate as a product with a constant matrix, which is exact",
    ),
    Restriction(
        frozenset({"ScatterND"}),
        _says("reduction", "add", "mul", "max", "min"),
        "ScatterND with a reduction is not supported",
        "use ScatterElements, or add what is scattered",
    ),
)


class Change(NamedTuple):
    """An operator's definition that a parser reads only from some release on."""

    operator: str
    opset: int
    release: Release
    source: str


CHANGES = (Change("GroupNormalization", 21, (10, 9), "https://github.com/NVIDIA/TensorRT/issues/4336"),)
"""A definition with a later opset than what the parser knows, and which it then refuses."""
