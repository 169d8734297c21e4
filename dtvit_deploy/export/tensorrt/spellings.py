"""Attributes whose spelling changed at an opset, and which parsers then take for something else without a word.

TensorRT's parser reads an attribute's text, whatever the graph's opset: a word that it does not know it may take for another one. What is
listed was reported with a measurement, and read in the parser's sources; each entry says for which releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx

from dtvit_deploy.export.tensorrt.graph import Found, Graph, Severity, attributes_of
from dtvit_deploy.export.tensorrt.operators import Compiler, Release


class Spelling(NamedTuple):
    """Words of an attribute that parsers do not know.

    Attributes:
        operator: that has it.
        opset: the first that spells it so.
        attribute: its name.
        words: and what each of them is taken for.
        last: the newest TensorRT that is known to do that; later ones are not known to have learnt the words.
        rtx: the first TensorRT-RTX that was seen to read them.
        source: who reported and where it is written.
        remedy: what to do.
    """

    operator: str
    opset: int
    attribute: str
    words: dict[str, str]
    last: Release
    rtx: Release
    source: str
    remedy: str


SPELLINGS = (
    Spelling(
        "GridSample",
        20,
        "mode",
        {"linear": "nearest", "cubic": "nearest"},
        (11, 1),
        (1, 7, 1),
        "TensorRT 10.0 and 10.1: onnxOpImporters.cpp at 96e7811; reported with wrong answers for 10.13.3, https://github.com/NVIDIA/TensorRT/issues/4646,"
        " for 11.1 and TensorRT-RTX 1.5, https://github.com/onnx/onnx-tensorrt/pull/1060; TensorRT-RTX 1.7.1 was seen to read both",
        "for linear, leave the mode out, which is the default of all opsets and of the parser (this project's exporter does); for cubic,"
        " sample with gathers and arithmetic, or linearly",
    ),
)


def spellings(graph: Graph, node: onnx.NodeProto, compiler: Compiler) -> Iterator[Found]:
    """What of a node's words the compiler takes for other ones."""
    for entry in SPELLINGS:
        if node.op_type != entry.operator or graph.opset < entry.opset or (compiler.rtx and compiler.release >= entry.rtx):
            continue
        said = attributes_of(node).get(entry.attribute, b"")
        word = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if word not in entry.words:
            continue
        told = f"{entry.operator}'s {entry.attribute} {word!r}, as opset {entry.opset} spells it"
        message = f"{told}, is taken for {entry.words[word]!r} without a word"
        if compiler.rtx or compiler.release[:2] <= entry.last:
            yield Found("spelling", Severity.ERROR, node, message, entry.remedy, entry.source)
        else:
            newest = ".".join(map(str, entry.last))
            message += f" up to TensorRT {newest}, and {compiler} is not known to read it"
            yield Found("spelling", Severity.WARNING, node, message, entry.remedy, entry.source)
