"""A ``.mlpackage`` to a program; a package that comes from elsewhere can say anything, so that everything it says is checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.artifacts.signature import MOST_VALUES
from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.mil.blob import REMEDY, BlobFile, held_tensor, tensor_from_bytes
from dtvit_deploy.runtimes.mil.program import HELD, MOST_BYTES, Constant, Operation, Program, Type, Variable, bytes_of
from dtvit_deploy.runtimes.mil.proto import model_proto

VERSIONS = {6: "CoreML5", 7: "CoreML6", 8: "CoreML7", 9: "CoreML8", 10: "CoreML9"}
"""Specification version → newest opset in it; iOS 15 has version 6, iOS 17 has 8."""
MODEL_PREFIX = "@model_path/"
"""Where a program says that its weights lie: beside the specification."""
MOST_AXES = 16
"""Core ML's tensors have five; tables of compressed weights two more."""
LARGEST_SPECIFICATION = 1 << 30
"""Bytes; weights are in a file of their own, and what is left is a few megabytes."""
DTYPES = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}
"""``DataType`` of MIL.proto."""


class _Item(msgspec.Struct):
    path: str


class _Manifest(msgspec.Struct):
    root: str = msgspec.field(name="rootModelIdentifier")
    items: dict[str, _Item] = msgspec.field(name="itemInfoEntries")


def load_program(package: Path) -> Program:
    """Read the one function of a package.

    Raises:
        InputError: the package is not whole, is no ML program, or says what cannot be.
        MissingError: coremltools is not installed.
    """
    path = specification_path(package)
    model = _parse(path)
    kind = model.WhichOneof("Type")
    if model.specificationVersion not in VERSIONS:
        known = f"{min(VERSIONS)} to {max(VERSIONS)}"
        raise InputError(
            f"{package.name} has specification version {model.specificationVersion}; this version reads ML programs of {known}",
            remedy="export it for iOS 15 or later, with a coremltools that dtvit-deploy knows",
        )
    if kind != "mlProgram":
        raise InputError(
            f"{package.name} holds {kind or 'nothing'}, not an ML program", remedy="convert it for iOS 15 or later, as an mlprogram"
        )
    functions = model.mlProgram.functions
    if len(functions) != 1:
        names = ", ".join(sorted(functions)[:5]) or "none"
        raise InputError(
            f"{package.name} has {len(functions)} functions ({names}); one is read", remedy="save each function as a package of its own"
        )
    (function,) = functions.values()
    if function.opset not in function.block_specializations:
        raise InputError(f"{package.name} has no program for its opset {function.opset!r}", remedy=REMEDY)
    return _Reader(path.parent).program(function, model.description)


def specification_path(package: Path) -> Path:
    """The file that holds the specification, as the package's own manifest says.

    Raises:
        InputError: the package has no manifest that says so.
    """
    try:
        content = _inside(package, "Manifest.json").read_bytes()
        require_shallow_json(content)
        manifest = msgspec.json.decode(content, type=_Manifest)
    except (OSError, ValueError) as error:
        raise InputError(f"{package.name} is not an .mlpackage: its Manifest.json cannot be read: {error}", remedy=REMEDY) from error
    if manifest.root not in manifest.items:
        raise InputError(f"{package.name} is not whole: its Manifest.json names no model", remedy=REMEDY)
    return _inside(package / "Data", manifest.items[manifest.root].path)


def _inside(folder: Path, name: str) -> Path:
    """A file in a folder; a package may not reach out of itself."""
    path = folder / name
    try:
        reaches_out = "\0" in name or not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # before Python 3.13, links that go round are a RuntimeError
        raise InputError(f"the package refers to {name!r}, which leads nowhere", remedy=REMEDY) from error
    if reaches_out:
        raise InputError(f"the package refers to {name!r}, which is outside of it", remedy=REMEDY)
    if path.exists() and not path.is_file():
        raise InputError(f"the package's {path.name} is no plain file", remedy=REMEDY)  # a pipe might never end
    return path


def _parse(path: Path) -> Any:
    proto = model_proto()
    from google.protobuf.message import DecodeError

    model = proto.Model()
    try:
        if path.stat().st_size > LARGEST_SPECIFICATION:
            raise InputError(f"{path.name} has {path.stat().st_size:,} bytes; no specification is that large", remedy=REMEDY)
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"the package's specification {path.name} cannot be read: {error.strerror or error}", remedy=REMEDY) from error
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is not a Core ML specification: {str(error).splitlines()[0]}", remedy=REMEDY) from error
    return model


class _Reader:
    """Protocol buffers to a program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: dict[str, BlobFile] = {}
        self._bytes = 0

    def program(self, function: Any, description: Any) -> Program:
        block = function.block_specializations[function.opset]
        constants: dict[str, Constant] = {}
        operations = []
        for operation in block.operations:
            if operation.type == "const":
                name = operation.outputs[0].name if operation.outputs else "(nothing)"
                if not operation.outputs or "val" not in operation.attributes:
                    raise InputError(f"the constant {name} has no value", remedy=REMEDY)
                constants[name] = self._value(operation.attributes["val"], name)
            else:
                operations.append(self._operation(operation))
        return Program(
            opset=function.opset,
            inputs=tuple(Variable(one.name, _type(one.type, one.name)) for one in function.inputs),
            outputs=tuple(block.outputs),
            operations=tuple(operations),
            constants=constants,
            description=description,
        )

    def _operation(self, operation: Any) -> Operation:
        outputs = tuple(Variable(one.name, _type(one.type, one.name)) for one in operation.outputs)
        where = f"{operation.type} {outputs[0].name if outputs else ''}"
        # iOS 16 writes the parameters of its constexpr operators as attributes.
        inputs: dict[str, tuple[str | Constant, ...]] = {
            name: (self._value(value, where),) for name, value in operation.attributes.items() if name != "name"
        }
        for name, argument in operation.inputs.items():
            inputs[name] = tuple(
                one.name if one.WhichOneof("binding") == "name" else self._value(one.value, where) for one in argument.arguments
            )
        return Operation(operation.type, inputs, outputs)

    def _value(self, value: Any, where: str) -> Constant:
        kind = _type(value.type, where)
        if kind.dtype == "list":
            return Constant(kind, [self._value(one, where).value for one in value.immediateValue.list.values])
        if kind.dtype == "dictionary" or None in kind.shape:
            raise InputError(f"the constant of {where} is a {kind}, which has no value", remedy=REMEDY)
        shape = tuple(size for size in kind.shape if size is not None)
        self._bytes += bytes_of(kind)
        if self._bytes > MOST_BYTES:  # one blob can be several constants, and bits become bytes
            raise InputError(f"with that of {where}, the constants take more than {MOST_BYTES:,} bytes", remedy=REMEDY)
        if value.WhichOneof("value") == "blobFileValue":
            if kind.dtype == "string":
                raise InputError(f"the constant of {where} is a string in a file of weights", remedy=REMEDY)
            return Constant(kind, self._blob(value.blobFileValue.fileName).tensor(value.blobFileValue.offset, kind.dtype, shape))
        return Constant(kind, _immediate(value.immediateValue.tensor, kind.dtype, shape, where))

    def _blob(self, name: str) -> BlobFile:
        if name not in self._blobs:
            self._blobs[name] = BlobFile(_inside(self._folder, name.removeprefix(MODEL_PREFIX)))
        return self._blobs[name]


def _immediate(tensor: Any, dtype: str, shape: tuple[int, ...], where: str) -> Any:
    field = tensor.WhichOneof("value")
    count = math.prod(shape)
    values: Any = getattr(tensor, field).values if field else ()
    if dtype == "string":
        if field != "strings" or len(values) != count:
            raise InputError(f"the constant of {where} is not {count} strings", remedy=REMEDY)
        return values[0] if not shape else list(values)
    if field == "bytes" and isinstance(values, bytes):
        return tensor_from_bytes(values, dtype, shape)
    if field == "strings" or len(values) != count:
        raise InputError(f"the constant of {where} has {len(values)} values, {count} are declared", remedy=REMEDY)
    try:
        array = np.array(values, HELD[dtype].numpy)
    except (OverflowError, ValueError) as error:
        raise InputError(f"the constant of {where} has values that {dtype} does not hold: {error}", remedy=REMEDY) from error
    return held_tensor(array, dtype).reshape(shape)


def _type(value: Any, where: str) -> Type:
    kind = value.WhichOneof("type")
    if kind == "listType":
        return Type("list")
    if kind == "dictionaryType":
        return Type("dictionary")
    if kind != "tensorType":
        raise InputError(f"{where} is a {kind or 'variable without a type'}, not a tensor", remedy="export the network without state")
    tensor = value.tensorType
    dtype = DTYPES.get(tensor.dataType)
    if dtype is None:
        raise InputError(f"{where} has a type of values that is not known here: number {tensor.dataType}", remedy=REMEDY)
    shape: tuple[int | None, ...] = tuple(
        one.constant.size if one.WhichOneof("dimension") == "constant" else None for one in tensor.dimensions
    )
    # An axis of 0 makes the others no smaller: torch counts its strides over them.
    if tensor.rank != len(shape) or len(shape) > MOST_AXES or math.prod(size or 1 for size in shape) > MOST_VALUES:
        raise InputError(f"{where} is declared {Type(dtype, shape)} of rank {tensor.rank}, which cannot be", remedy=REMEDY)
    return Type(dtype, shape)
