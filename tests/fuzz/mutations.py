"""Valid files, changed as somebody would who knows their format: most changes still parse, and are wrong in what they say.

Everything comes from a seed. What a change does to an outside library is found by running it, and no such file is kept.
"""

from __future__ import annotations

import io
import random
import zipfile
from typing import Any
from xml.etree import ElementTree

import onnx

NUMBERS = (-1, 0, 1, 2, 3, 7, 64, 255, 65536, 2**31 - 1, 2**31, 2**40, 2**62, -(2**31), -(2**62))
OPERATORS = ("Relu", "Conv", "MatMul", "Reshape", "Slice", "Pad", "Concat", "Expand", "Tile", "Gather", "Softmax", "Resize", "Split", "Sum")


def mutated_onnx(content: bytes, chance: random.Random) -> bytes:
    """One to three changes of a graph's fields, or now and then of its bytes."""
    if chance.random() < 0.1:
        return damaged(content, chance)
    model = onnx.ModelProto.FromString(content)
    for _ in range(chance.randint(1, 3)):
        chance.choice((_attribute, _constant, _stated_size, _operator, _wire, _node))(model.graph, chance)
    return model.SerializeToString()


def _attribute(graph: Any, chance: random.Random) -> None:
    attributes = [each for node in graph.node for each in node.attribute]
    if not attributes:
        return
    attribute = chance.choice(attributes)
    if attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = chance.choice(NUMBERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    else:
        attribute.name += "x"


def _constant(graph: Any, chance: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = chance.choice(graph.initializer)
    if tensor.data_type == onnx.TensorProto.INT64 and tensor.raw_data:  # a shape, sizes, places
        values = bytearray(tensor.raw_data)
        at = 8 * chance.randrange(len(values) // 8)
        values[at : at + 8] = chance.choice(NUMBERS).to_bytes(8, "little", signed=True)
        tensor.raw_data = bytes(values)
    elif chance.random() < 0.5 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(NUMBERS)
    else:
        tensor.data_type = chance.randrange(0, 24)


def _stated_size(graph: Any, chance: random.Random) -> None:
    sizes = [size for info in (*graph.input, *graph.output, *graph.value_info) for size in info.type.tensor_type.shape.dim]
    if sizes:
        chance.choice(sizes).dim_value = chance.choice(NUMBERS)


def _operator(graph: Any, chance: random.Random) -> None:
    if graph.node:
        chance.choice(graph.node).op_type = chance.choice(OPERATORS)


def _wire(graph: Any, chance: random.Random) -> None:
    names = [name for node in graph.node for name in (*node.input, *node.output)] + [each.name for each in graph.initializer]
    node = chance.choice(graph.node) if graph.node else None
    if node is not None and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(names)


def _node(graph: Any, chance: random.Random) -> None:
    if not graph.node:
        return
    at = chance.randrange(len(graph.node))
    if chance.random() < 0.5:
        del graph.node[at]
    else:
        graph.node.add().CopyFrom(graph.node[at])


def mutated_ir(graph: bytes, constants: bytes, chance: random.Random) -> tuple[bytes, bytes]:
    """One to three changes of an OpenVINO graph's attributes, elements and constants."""
    if chance.random() < 0.1:
        return damaged(graph, chance), constants
    root = ElementTree.fromstring(graph)
    for _ in range(chance.randint(1, 3)):
        constants = chance.choice((_xml_attribute, _xml_attribute, _xml_text, _xml_element, _blob))(root, constants, chance)
    return ElementTree.tostring(root), constants


def _xml_attribute(root: Any, constants: bytes, chance: random.Random) -> bytes:
    element = chance.choice([each for each in root.iter() if each.attrib])
    key = chance.choice(sorted(element.attrib))
    others = [each.attrib[key] for each in root.iter() if key in each.attrib]
    parts = element.attrib[key].split(",")
    parts[chance.randrange(len(parts))] = str(chance.choice((*NUMBERS, *others)))
    element.attrib[key] = ",".join(parts)
    return constants


def _xml_text(root: Any, constants: bytes, chance: random.Random) -> bytes:
    sizes = list(root.iter("dim"))
    if sizes:
        chance.choice(sizes).text = str(chance.choice(NUMBERS))
    return constants


def _xml_element(root: Any, constants: bytes, chance: random.Random) -> bytes:
    parent = chance.choice([each for each in root.iter() if len(each)])
    child = chance.choice(list(parent))
    if chance.random() < 0.5:
        parent.remove(child)
    else:
        parent.append(child)
    return constants


def _blob(root: Any, constants: bytes, chance: random.Random) -> bytes:
    del root
    return damaged(constants, chance)


def mutated_pt(content: bytes, chance: random.Random) -> bytes:
    """The archive's bytes; or an entry of it, packed again so that its checksum fits."""
    if chance.random() < 0.4:
        return damaged(content, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = chance.choice([*names, *(name for name in names if name.endswith("data.pkl"))])
        for name in names:
            data = old.read(name)
            if name == chosen:
                if chance.random() < 0.1:
                    continue
                data = damaged(data, chance)
            new.writestr(name, data)
    return out.getvalue()


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut out or doubled."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.random()
        if kind < 0.6 and data:
            data[at] = chance.randrange(256)
        elif kind < 0.8:
            del data[at : at + chance.randint(1, 16)]
        else:
            data[at:at] = data[at : at + chance.randint(1, 16)]
    return bytes(data[: chance.randrange(len(data))] if data and chance.random() < 0.1 else data)
