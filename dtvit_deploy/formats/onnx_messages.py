"""ONNX's files without the package ``onnx``, which devices do not have: the nodes of a graph, read; a small graph, written.

Of protocol buffers no more than that takes: a message is a row of fields, each with its number and its kind, and what is not known is
passed over. The numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = {"float32": 1, "uint8": 2, "int8": 3, "float16": 10}
"""ONNX's number of a type of elements, by NumPy's name."""
_IR_VERSION, _OPSETS, _GRAPH = 1, 8, 7
_NODES, _GRAPH_NAME, _CONSTANTS, _INPUTS, _OUTPUTS = 1, 2, 5, 11, 12
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_KIND, _TENSOR_NAME, _TENSOR_BYTES = 1, 2, 8, 9
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


class NodeRead(NamedTuple):
    """A node of a graph: its name, which may be empty, its operator, and the names of its tensors."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Values(NamedTuple):
    """An input or an output of a graph: its name, the type of its elements by NumPy's name, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def nodes_read(content: bytes) -> list[NodeRead]:
    """The nodes of a model's graph, in their order; those of graphs within nodes are not among them.

    Raises:
        ValueError: these bytes are no such message.
    """
    graphs = (value for number, value in _fields(memoryview(content)) if number == _GRAPH)
    return [_node(value) for graph in graphs for number, value in _fields(_message(graph)) if number == _NODES]


def _node(content: int | memoryview) -> NodeRead:
    texts: dict[int, list[str]] = {_NODE_INPUTS: [], _NODE_OUTPUTS: [], _NODE_NAME: [], _NODE_OPERATOR: []}
    for number, value in _fields(_message(content)):
        if number in texts:
            texts[number].append(bytes(_message(value)).decode())
    inputs, outputs, name, operator = texts.values()
    return NodeRead("".join(name[-1:]), "".join(operator[-1:]), tuple(inputs), tuple(outputs))


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number is where a message should be")
    return value


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; of one of four or eight bytes those."""
    at = 0
    while at < len(content):
        key, at = _number(content, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _number(content, at)
            yield number, value
            continue
        if kind == _LENGTH:
            size, at = _number(content, at)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"a field is of the kind {kind}, which there is not")
        if size > len(content) - at:
            raise ValueError("a field is longer than what is left of its message")
        yield number, content[at : at + size]
        at += size


def _number(content: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    found = 0
    for place, byte in enumerate(content[at : at + 10]):
        found |= (byte & 127) << 7 * place
        if byte < 128:
            return found, at + place + 1
    raise ValueError("a number has no end")


def model_written(
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: Sequence[Values],
    outputs: Sequence[Values],
    constants: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    ir_version: int,
) -> bytes:
    """A model of one graph.

    Args:
        nodes: operator, inputs and outputs of each.
        inputs, outputs: of the graph.
        constants: by name; of the types in `KINDS`.
        opset: version of ONNX's operators.
        ir_version: of the format.
    """
    graph = [_node_written(*node) for node in nodes]
    graph += [_text(_GRAPH_NAME, "graph")]
    graph += [_constant(name, value) for name, value in constants.items()]
    graph += [_values(_INPUTS, one) for one in inputs] + [_values(_OUTPUTS, one) for one in outputs]
    operators = _bytes(_OPSETS, _text(1, "") + _int(2, opset))
    return _int(_IR_VERSION, ir_version) + operators + _bytes(_GRAPH, b"".join(graph))


def _node_written(operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    tensors = [_text(_NODE_INPUTS, name) for name in inputs] + [_text(_NODE_OUTPUTS, name) for name in outputs]
    return _bytes(_NODES, b"".join(tensors) + _text(_NODE_OPERATOR, operator))


def _constant(name: str, value: NDArray[Any]) -> bytes:
    head = b"".join(_int(_TENSOR_DIMS, size) for size in value.shape) + _int(_TENSOR_KIND, KINDS[value.dtype.name])
    stored = value.astype(value.dtype.newbyteorder("<"))
    return _bytes(_CONSTANTS, head + _text(_TENSOR_NAME, name) + _bytes(_TENSOR_BYTES, stored.tobytes()))


def _values(field: int, one: Values) -> bytes:
    shape = b"".join(_bytes(1, _int(1, size)) for size in one.shape)
    return _bytes(field, _text(1, one.name) + _bytes(2, _bytes(1, _int(1, KINDS[one.dtype]) + _bytes(2, shape))))


def _int(field: int, value: int) -> bytes:
    return _seven_bits(field << 3 | _VARINT) + _seven_bits(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _seven_bits(field << 3 | _LENGTH) + _seven_bits(len(value)) + value


def _seven_bits(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
