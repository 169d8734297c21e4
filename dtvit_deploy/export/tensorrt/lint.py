"""What NVIDIA's compilers would refuse in an ONNX graph, and what would hurt, said before any compiler is called.

A parser of TensorRT names neither the torch module nor what to do. Here the whole graph is read. An error is what the compiler is known to
refuse, or to take for something else without a word, from its sources, its headers or by trial; what will only hurt is a warning. What
TensorRT-RTX was seen to take is known of TensorRT-RTX: for TensorRT, NVIDIA's documents of its release count (docs/adr/0019).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import onnx

from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.tensorrt.graph import Found, Graph, Severity, attributes_of, schema_of
from dtvit_deploy.export.tensorrt.numbers import dynamic, int64, mixed, overflow, types
from dtvit_deploy.export.tensorrt.operators import CHANGES, OLDEST_OPSET, RESTRICTIONS, Compiler, missing_operator, newest_opset
from dtvit_deploy.export.tensorrt.quantization import quantization
from dtvit_deploy.export.tensorrt.spellings import spellings
from dtvit_deploy.plural import some

__all__ = ["Compiler", "Finding", "ParserMessage", "Severity", "blame", "findings", "lines", "lint"]

WHOLE = "(the network itself)"
_SHOWN = 3
"""Modules that a line names before it counts the rest."""
_OPSET = "export with this project's exporter, which writes opset 20"
_OPERATOR = "replace the operator in this module by ones that TensorRT has"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule found in one torch module.

    Attributes:
        rule: short name of the rule.
        module: path of the torch module, as a person would write it.
        node: name of the first node.
        message: what is there.
        remedy: what to do about it.
        source: for which releases that is known, and from where; empty where the rule holds for all.
        count: nodes of the module that it is true of.
    """

    rule: str
    severity: Severity
    module: str
    node: str
    message: str
    remedy: str
    source: str = ""
    count: int = 1


class ParserMessage(NamedTuple):
    """What TensorRT's IParserError says.

    Attributes:
        code: like ``UNSUPPORTED_NODE``.
        description: in the parser's words.
        node: index of the node, −1 where it names none.
        node_name: its name; empty where it has none.
        operator: its operator.
    """

    code: str
    description: str
    node: int = -1
    node_name: str = ""
    operator: str = ""


def lint(model: onnx.ModelProto, compiler: Compiler) -> tuple[Finding, ...]:
    """Everything that is known against a graph, errors first; what is found several times in a module is one finding.

    Args:
        model: any ONNX graph; module paths are in the nodes' metadata where this project made it.
        compiler: what is to read it.

    Raises:
        InputError: there is no such compiler.
    """
    compiler.release  # noqa: B018  # an impossible compiler is refused before anything else
    return findings(_found(Graph(model), compiler))


def findings(every: Iterable[Found]) -> tuple[Finding, ...]:
    """What rules found, errors first, once for each module, rule and remedy."""
    merged: dict[tuple[str, Severity, str, str], Finding] = {}
    for found in every:
        module = WHOLE if found.node is None else module_of(found.node)
        key = found.rule, found.severity, module, found.remedy
        if key in merged:
            merged[key] = msgspec.structs.replace(merged[key], count=merged[key].count + 1)
        else:
            merged[key] = _finding(found)
    return tuple(sorted(merged.values(), key=lambda finding: finding.severity is not Severity.ERROR))


def lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """One line for all modules that have the same rule and remedy, so that a hundred products are not a hundred lines."""
    groups: dict[tuple[str, Severity, str], list[Finding]] = {}
    for finding in findings:
        remedy = finding.remedy.replace(finding.module, "MODULE")
        groups.setdefault((finding.rule, finding.severity, remedy), []).append(finding)
    return tuple(_line(group) for group in groups.values())


def blame(model: onnx.ModelProto, errors: Sequence[ParserMessage], compiler: Compiler) -> tuple[Finding, ...]:
    """A parser's own errors with the torch module of each, and the remedy of the rule that knows the cause.

    A node is found by its index, else by its name, else by a tensor or node that the description names.
    """
    graph = Graph(model)
    known = [found for found in _found(graph, compiler) if found.node is not None]
    known.sort(key=lambda found: found.severity is not Severity.ERROR)
    blamed: dict[tuple[str, str, str], Finding] = {}
    for error in errors:
        node = _node(graph, error)
        cause = next((found for found in known if found.node is node), None) if node is not None else None
        message = _words(error)
        remedy = "the parser's words are all that is known; try --precision fp32, and replace what it names in this module"
        rule = cause.rule if cause else "parser"
        finding = _finding(Found(rule, Severity.ERROR, node, message, cause.remedy if cause else remedy))
        blamed.setdefault((finding.module, finding.node, finding.message), finding)
    return tuple(blamed.values())


def _found(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    yield from _operators(graph, compiler)
    yield from quantization(graph, compiler)
    yield from types(graph, compiler)
    yield from mixed(graph)
    yield from overflow(graph)
    yield from int64(graph)
    yield from dynamic(graph)
    yield from _opset(graph, compiler)


def _operators(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    for node in graph.nodes:
        if node.op_type in graph.functions:
            continue
        if missing := missing_operator(node, compiler):
            yield Found("operator", Severity.ERROR, node, f"{compiler}: {missing}", _OPERATOR)
            continue
        if node.domain not in ("", "ai.onnx"):
            message = f"{node.op_type} is of {node.domain}; the parser reads ONNX's own operator of that name in its place"
            yield Found("operator", Severity.WARNING, node, message, _OPERATOR)
        attributes = attributes_of(node)
        for restriction in RESTRICTIONS:
            if node.op_type in restriction.operators and restriction.applies(graph, node, attributes):
                message = f"{node.op_type}: {restriction.message}"
                yield Found("operator", Severity.ERROR, node, message, restriction.remedy, restriction.source)
        yield from spellings(graph, node, compiler)
        for change in CHANGES:
            if node.op_type == change.operator and graph.opset >= change.opset and not compiler.since(*change.release):
                release = ".".join(map(str, change.release))
                message = f"{node.op_type} as opset {change.opset} defines it is read from TensorRT {release} on ({change.source})"
                yield Found("opset", Severity.ERROR, node, message, _OPSET)
        if node.op_type in ("If", "Loop", "Scan"):
            message = f"{node.op_type} decides at run time what is computed: no CUDA graph can be made of the engine"
            yield Found("control-flow", Severity.WARNING, node, message, "make the decision while exporting, or unroll the loop")


def _opset(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    """No parser refuses a graph by its opset, so it is a warning, at the operators whose definition is too new for it."""
    newest = newest_opset(compiler)
    says = f"the graph is of opset {graph.opset}, {compiler} documents {OLDEST_OPSET} to {newest}"
    if graph.opset < OLDEST_OPSET:
        yield Found("opset", Severity.WARNING, None, says, _OPSET)
    if graph.opset <= newest:
        return
    fresh = [node for node in graph.nodes if _definition(node, graph.opset) > newest]
    for node in fresh:
        message = f"{says}, and {node.op_type}'s definition is of {_definition(node, graph.opset)}: it is read by an older one"
        yield Found("opset", Severity.WARNING, node, message, _OPSET)
    if not fresh:
        yield Found("opset", Severity.WARNING, None, f"{says}; no operator in it changed since, so it is read as meant", _OPSET)


def _definition(node: onnx.NodeProto, opset: int) -> int:
    """The opset in which an operator got the definition that a graph's opset gives it; 0 of unknown ones."""
    schema = schema_of(node, opset) if node.domain in ("", "ai.onnx") else None
    return 0 if schema is None else int(schema.since_version)


def _finding(found: Found) -> Finding:
    module = WHOLE if found.node is None else module_of(found.node)
    node = "" if found.node is None else found.node.name or next(iter(found.node.output), "")
    remedy = found.remedy.replace("{module}", module if not module.startswith("(") else "MODULE")
    return Finding(
        rule=found.rule, severity=found.severity, module=module, node=node, message=found.message, remedy=remedy, source=found.source
    )


def _line(group: Sequence[Finding]) -> str:
    first = group[0]
    modules = list(dict.fromkeys(finding.module for finding in group))
    count = sum(finding.count for finding in group)
    times = f" ({count} times)" if count > 1 else ""
    remedy = first.remedy if len(modules) == 1 else first.remedy.replace(first.module, "MODULE")
    source = f" ({first.source})" if first.source else ""
    return f"{first.severity}: {some(modules, _SHOWN, 'module')}: {first.message}{times}; {remedy}{source}"


def _node(graph: Graph, error: ParserMessage) -> onnx.NodeProto | None:
    nodes: Sequence[onnx.NodeProto] = graph.model.graph.node
    if 0 <= error.node < len(nodes) and error.operator in ("", nodes[error.node].op_type):
        return nodes[error.node]
    if error.node_name and (named := next((node for node in graph.nodes if node.name == error.node_name), None)) is not None:
        return named
    said = set(re.findall(r"[^\s'\"`,;:()\[\]]+", error.description))
    for node in graph.nodes:
        if node.name in said or said.intersection(node.output):
            return node
    return next((node for node in graph.nodes if said.intersection(node.input)), None)


def _words(error: ParserMessage) -> str:
    """The description without what follows from there being no GPU, and without places in NVIDIA's sources."""
    kept = [line for line in error.description.splitlines() if "catchCudaError" not in line and line.strip()]
    text = re.sub(r"\s*In \w+ at \S+:\d+", "", " ".join(kept) or error.description)
    return f"the parser refuses {error.operator or 'the graph'}: {text} ({error.code})"
