"""A typed FP16 ONNX graph as an ARM64 core with FP16 arithmetic answers it, evaluated on any CPU.

On such a core (every Mac with Apple silicon, Graviton, a Raspberry Pi 5, a Jetson Orin's CPU) ONNX Runtime computes FP16 operators in FP16
and adds the terms of its products in FP16. On x86-64 it computes in FP32, runs of operators at a time, and nothing there tells what
overflows or drowns on the device. Here every FP16 tensor is rounded (`dtvit_deploy.runtimes.rounded`), and FP16 products are summed one
term after the other in FP16 (`half_sums`).

The graph is cut at those products. What lies between them runs in ONNX Runtime, all nodes of the same depth at once.

DualToken-ViT T with seeded weights is off by 1.7e-3 (root mean square) so, and by 1.7e-3 on an emulated core; by 1.7e-4 on x86-64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.graph import inferred, read_graph
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime, OnnxSession, floating_tensors, with_outputs
from dtvit_deploy.runtimes.trial import require_survived

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs

    Values = dict[str, NDArray[Any]]
    """Arrays by the name of the tensor."""

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that sum in FP16 there. ConvTranspose, Einsum and the reductions do not: they have no such kernel (1.23.2 and 1.32.0, looked at
one by one on an emulated core)."""

PRECISION = {Precision.FP32: "fp32", Precision.FP16: "fp16 graph: every FP16 tensor rounded to FP16, products summed in fp16"}


class EmulatedArm64:
    """Loads ``onnx`` artefacts."""

    name = "emulated-arm64"
    rung = Rung.EMULATED

    def available(self, artifact: Artifact | None = None) -> Availability:
        return OnnxRuntime().available()

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return floating_tensors(_read(artifact))

    def load(self, artifact: Artifact, options: SessionOptions) -> Arm64Session:
        return Arm64Session(_read(artifact), artifact.manifest.signature, artifact.manifest.precision, options, artifact.name)


class Arm64Session:
    """One graph, cut at its FP16 products."""

    def __init__(
        self, model: onnx.ModelProto, signature: Signature, precision: Precision, options: SessionOptions, name: str = "graph"
    ) -> None:
        """Open.

        Raises:
            InputError: a tap is no tensor of the graph, or the graph cannot be evaluated.
        """
        with_outputs(model, options.taps)
        _require_ends(model, signature, name)
        try:
            cut = _Cut(inferred(model), (*(spec.name for spec in signature.outputs), *options.taps), options, name)
        except InputError:
            raise
        except Exception as error:  # onnx has no class of its own for all that can be wrong with a graph
            raise InputError(f"{name} is no graph that can be evaluated: {_first(error)}", remedy="export it again") from error
        self._name = name
        self._steps: Sequence[Callable[[Values], None]] = cut.steps
        self._constants = cut.answers
        self._names = [spec.name for spec in signature.outputs]
        self._options = options
        self.signature = signature
        self.conditions = {
            "runtime": f"{EmulatedArm64.name} {OnnxRuntime().available().version}",
            "threads": str(options.threads),
            "precision": PRECISION.get(precision, f"{precision} graph; operators without FP16 tensors compute as on any CPU"),
            "summed": f"{cut.products} products in fp16",
            "emulated": "as ONNX Runtime sums on an ARM64 core with FP16 arithmetic, measured on an emulated one (qemu, cortex-a76)",
        }

    def run(self, feeds: Feeds) -> Outputs:
        import torch

        if not self._steps:
            raise RuntimeError("the session was left; it cannot run")
        if self._options.threads and torch.get_num_threads() != self._options.threads:
            torch.set_num_threads(self._options.threads)  # a setting of the process, and other sessions set theirs
        values: Values = self._constants | dict(feeds)
        try:
            with torch.inference_mode():
                for step in self._steps:
                    step(values)
            return {name: values[name] for name in (*self._names, *self._options.taps)}
        except (RuntimeError, ValueError, KeyError) as error:  # factors that do not fit together, say
            raise InputError(f"{self._name} cannot be evaluated: {_first(error)}", remedy="export it again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._steps = ()


def arm64_answers(model: onnx.ModelProto, signature: Signature, feeds: Iterable[Feeds]) -> list[Outputs]:
    """Outputs of a graph in memory for each feed."""
    with Arm64Session(model, signature, Precision.FP16, SessionOptions(threads=0)) as session:
        return [session.run(feed) for feed in feeds]


class _Cut:
    """The steps of a graph: pieces for ONNX Runtime and products by turns.

    Attributes:
        products: how many there are.
        answers: what is wanted and no node computes, since it is a constant.
    """

    def __init__(self, model: onnx.ModelProto, wanted: Sequence[str], options: SessionOptions, name: str) -> None:
        from onnx import TensorProto, numpy_helper

        self._model, self._options, self._name = model, options, name
        graph = model.graph
        self._infos: dict[str, onnx.ValueInfoProto] = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        halves = {name for name, info in self._infos.items() if info.type.tensor_type.elem_type == TensorProto.FLOAT16}
        depths: dict[str, int] = {}
        pieces: dict[int, list[onnx.NodeProto]] = {}
        products: dict[int, list[onnx.NodeProto]] = {}
        for node in graph.node:
            if not node.output:  # it computes nothing
                continue
            depth = max((depths.get(name, 0) for name in node.input), default=0)
            summed = node.op_type in PRODUCTS and node.output[0] in halves
            (products if summed else pieces).setdefault(depth, []).append(node)
            depths |= dict.fromkeys(node.output, depth + summed)
        read = {name: depths.get(name, 0) for name in wanted}
        self._last = dict(read)  # the deepest step that reads a tensor
        for depth, nodes in (*pieces.items(), *products.items()):
            for node in nodes:
                for name in node.input:
                    self._last[name] = max(self._last.get(name, 0), depth)
        self._wanted = frozenset(wanted)
        self.answers: Values = {name: numpy_helper.to_array(self._constants[name]) for name in wanted if name in self._constants}
        self._read_by_products = {name for nodes in products.values() for node in nodes for name in node.input}
        self.products = sum(map(len, products.values()))
        self.steps: list[Callable[[Values], None]] = []
        for depth in range(max((*pieces, *products), default=0) + 1):
            if depth in pieces:
                self.steps.append(self._piece(pieces[depth], depth))
            self.steps += [self._product(node) for node in products.get(depth, ())]

    def _piece(self, nodes: Sequence[onnx.NodeProto], depth: int) -> Callable[[Values], None]:
        """A graph of these nodes in ONNX Runtime, which gives what later steps read."""
        import onnx

        from dtvit_deploy.runtimes.rounded import rounded_onnx

        made = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(name for node in nodes for name in node.input if name)
        needed = [name for name in made if name in self._wanted or name in self._read_by_products or self._last.get(name, -1) > depth]
        given = [name for name in read if name not in made and name not in self._constants]
        piece = onnx.ModelProto()
        piece.CopyFrom(self._model)
        for field, values in (
            (piece.graph.node, nodes),
            (piece.graph.initializer, [self._constants[name] for name in read if name in self._constants]),
            (piece.graph.input, map(self._info, given)),
            (piece.graph.output, map(self._info, sorted(needed))),
            (piece.graph.value_info, [self._infos[name] for name in made if name in self._infos and name not in needed]),
        ):
            del field[:]
            field.extend(values)
        signature = Signature(tuple(map(self._spec, given)), tuple(map(self._spec, sorted(needed))))
        session = OnnxSession(
            rounded_onnx(piece).SerializeToString(), signature, Precision.FP16, SessionOptions(threads=self._options.threads), self._name
        )

        def step(values: Values) -> None:
            values.update(session.run({name: values[name] for name in given}))

        return step

    def _product(self, node: onnx.NodeProto) -> Callable[[Values], None]:
        import torch
        from onnx import numpy_helper

        fixed = {
            name: torch.from_numpy(numpy_helper.to_array(self._constants[name]).astype(np.float32))
            for name in node.input
            if name in self._constants
        }
        shape = self._spec(node.output[0]).shape

        def step(values: Values) -> None:
            inputs = [
                None if not name else fixed[name] if name in fixed else torch.from_numpy(values[name].astype(np.float32))
                for name in node.input
            ]
            made = _summed(node, inputs).reshape(shape)
            values[node.output[0]] = made.numpy().astype(np.float16)

        return step

    def _info(self, name: str) -> onnx.ValueInfoProto:
        if name not in self._infos:
            raise InputError(f"the type of {name} in {self._name} cannot be inferred", remedy="export it again")
        return self._infos[name]

    def _spec(self, name: str) -> TensorSpec:
        from onnx import helper

        kind = self._info(name).type.tensor_type
        if not all(size.HasField("dim_value") for size in kind.shape.dim):
            raise InputError(f"the shape of {name} in {self._name} is not known", remedy="export it again")
        return TensorSpec(name, tuple(size.dim_value for size in kind.shape.dim), helper.tensor_dtype_to_np_dtype(kind.elem_type).name)


def _summed(node: onnx.NodeProto, inputs: Sequence[Any]) -> Any:
    """A product in FP32 tensors that hold FP16 values, before the result is rounded for the last time."""
    import onnx

    from dtvit_deploy.runtimes.arm64.half_sums import convolution, product

    attributes: Mapping[str, Any] = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    one, other, added = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    if node.op_type == "Conv":
        axes = one.ndim - 2
        stride, dilation = (list(attributes.get(key, [1] * axes)) for key in ("strides", "dilations"))
        pads = _pads(attributes, one.shape[2:], other.shape[2:], stride, dilation)
        return convolution(one, other, added, stride, pads, dilation, attributes.get("group", 1))
    if node.op_type == "MatMul":
        return product(one, other)
    left = one.transpose(0, 1) if attributes.get("transA") else one
    right = other.transpose(0, 1) if attributes.get("transB") else other
    total = product(left, right) * attributes.get("alpha", 1.0)
    return total if added is None else total + added * attributes.get("beta", 1.0)


def _pads(
    attributes: Mapping[str, Any], size: Sequence[int], window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """The zeros around an image, written down or as ``auto_pad`` has them."""
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b"VALID"):
        return list(attributes.get("pads", [0] * 2 * len(size))) if mode == b"NOTSET" else [0] * 2 * len(size)
    first, last = [], []
    for extent, reach, step, apart in zip(size, window, stride, dilation, strict=True):
        total = max((-(-extent // step) - 1) * step + apart * (reach - 1) + 1 - extent, 0)
        less, more = total // 2, total - total // 2
        first.append(less if mode == b"SAME_UPPER" else more)
        last.append(more if mode == b"SAME_UPPER" else less)
    return [*first, *last]


def _require_ends(model: onnx.ModelProto, signature: Signature, name: str) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {info.name for info in model.graph.input} - constants
    outputs = {info.name for info in model.graph.output}
    if inputs != {spec.name for spec in signature.inputs} or not outputs >= {spec.name for spec in signature.outputs}:
        inside = f"its inputs are {', '.join(sorted(inputs))}, its outputs {', '.join(sorted(outputs))}"
        raise InputError(f"{name} is not the graph that its manifest describes: {inside}", remedy="export it again")


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read(artifact: Artifact) -> onnx.ModelProto:
    model = read_graph(artifact.path)
    require_survived(artifact, OnnxRuntime, "ONNX Runtime")  # not by this one, which sums for minutes what takes that one a second
    return model
