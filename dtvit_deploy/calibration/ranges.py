"""The range table: what every tensor of an exported program reached on real images, once for every backend.

Ranges belong to the program's nodes, whose names are the tensors' names in every artefact. The table says what it was made from, so that
it is refused for other weights or another preprocessing, and carries a digest of itself, so that an edited one is refused too. It holds
no time and no path of a machine: the same calibration gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from dtvit_deploy.artifacts.artifact import encode_json, read_json
from dtvit_deploy.artifacts.bounds import Natural, Share, unit
from dtvit_deploy.artifacts.nodes import NodeMap, is_view
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest

SCHEMA = 1
ENOUGH = 0.05
"""Greatest relative change of a range that counts as settled: it moves the rounding error by 0.4 dB."""
SHARE = 0.95
"""Share of the tensors whose ranges must be settled."""
_AGAIN = "calibrate again with `dtvit-deploy calibrate`"

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Change = Annotated[float, msgspec.Meta(ge=0), unit("1")]


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed values from ``low`` to ``high``; ``clipped`` is the share of the observed values outside.

    A consumer with a zero point takes zero in: scale = (max(high, 0) − min(low, 0)) / 255. A symmetric one takes the larger magnitude:
    scale = max(|low|, |high|) / 127. Both bounds are 0 for a tensor that is always 0, which any scale serves.
    """

    low: float
    high: float
    clipped: Share

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"Expected finite bounds, the lower first, got {self.low} and {self.high}")


class TensorRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tensor reached, by each method; ``values`` is how many it has for one image."""

    module: str
    op: str
    values: Natural
    minmax: Interval
    percentile: Interval
    entropy: Interval
    mse: Interval

    def of(self, method: Method) -> Interval:
        interval: Interval = getattr(self, method.value)
        return interval


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One image: its path below the folder that was given, and the SHA-256 of its bytes."""

    name: str
    sha256: Digest


class Settling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the ranges of one method still were from the final ones, relative to those: over all tensors.

    Attributes:
        median, p95: of the tensors' changes.
    """

    median: Change
    p95: Change


class Convergence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ranges after the first images.

    Attributes:
        images: how many.
        minmax, percentile, entropy, mse: the ranges of the method of that name.
    """

    images: Natural
    minmax: Settling
    percentile: Settling
    entropy: Settling
    mse: Settling

    def of(self, method: Method) -> Settling:
        settling: Settling = getattr(self, method.value)
        return settling


class RangeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of all tensors, and everything they depend on.

    Attributes:
        model: as in the manifest.
        program: SHA-256 of the exported program whose nodes have the ranges.
        weights: SHA-256 of the checkpoint, or of the weights where there is none.
        signature: names of inputs and outputs.
        inputs: names of the program's nodes that are its inputs, in the order of the signature.
        preprocessing: how the images became feeds; None for feeds that came ready.
        preprocessing_digest: of that; empty for None.
        samples: in the order in which they were observed.
        source: what they are.
        seed: of their choice and order, and of random ones.
        synthetic: whether they are random numbers and not images. Such ranges serve to try things out, and nothing made from them is right.
        leaked: how many of them are evaluation images too; None where that was not checked.
        percentile: what the method of that name keeps, in per cent.
        tensors: by the name of the program's node. A view of one of them has no entry of its own.
        unbounded: names of tensors that reached infinity, of which there is no range.
        convergence: at growing numbers of images.
        no_use: why no artefact gains by these ranges; empty where some can.
        notes: what whoever uses the table must know.
        tools: name → version of what made it.
        sha256: of the table's canonical JSON with this field empty.
    """

    model: str
    program: Digest
    weights: Digest
    signature: Signature
    inputs: tuple[str, ...]
    preprocessing: Preprocessing | None
    preprocessing_digest: str
    samples: tuple[Sample, ...]
    source: str
    seed: int
    synthetic: bool
    leaked: int | None
    percentile: float
    threads: Natural
    tensors: dict[str, TensorRange]
    unbounded: tuple[str, ...]
    convergence: tuple[Convergence, ...]
    notes: tuple[str, ...]
    tools: dict[str, str]
    no_use: str = ""
    schema: int = SCHEMA
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.tensors or not self.samples:
            raise ValueError("Expected ranges of at least one tensor from at least one sample")
        if len(self.inputs) != len(self.signature.inputs):
            raise ValueError(f"Expected as many nodes as inputs, got {len(self.inputs)} for {len(self.signature.inputs)}")
        if self.preprocessing_digest != (self.preprocessing.digest if self.preprocessing else ""):
            raise ValueError("Expected the digest of the preprocessing")

    def lookup(self, nodes: NodeMap, method: Method, signature: Signature | None = None) -> dict[str, tuple[float, float]]:
        """Lowest and highest value by tensor name, for every tensor of the program that has a range; a view has that of what it views.

        Inputs and outputs are found by the program's names and by the artefacts'.

        Args:
            nodes: of the same program.
            method: how the ranges were drawn.
            signature: names of inputs and outputs where an artefact has others than the table.
        """
        own = {name: (tensor.of(method).low, tensor.of(method).high) for name, tensor in self.tensors.items()}
        found = {name: own[name] for name in self.inputs if name in own}
        for node in nodes.nodes:
            if node.name in own:
                found[node.name] = own[node.name]
            elif is_view(node) and node.inputs and node.inputs[0] in found:
                found[node.name] = found[node.inputs[0]]
        ends = signature or self.signature
        for names, specs in ((self.inputs, ends.inputs), (nodes.outputs, ends.outputs)):
            named = {spec.name: found[name] for name, spec in zip(names, specs, strict=True) if name in found}
            found |= named
        return found

    def require(self, manifest: Manifest, preprocessing: Preprocessing | None) -> None:
        """Refuse to use the table for another program than it was made with, or for images that become feeds in another way.

        Args:
            manifest: of the program, or of an artefact made from it.
            preprocessing: of the images that the artefact will be fed with; None where none is known. Ranges of ready feeds fit any.

        Raises:
            InputError: weights, program or preprocessing are others; both digests are named.
        """
        weights = weights_of(manifest)
        if weights != self.weights:
            raise InputError(
                f"the ranges were calibrated with other weights: {self.weights[:16]}… of {self.model}, not"
                f" {weights[:16]}… of {manifest.model}",
                remedy="calibrate this checkpoint with `dtvit-deploy calibrate`, or give the ranges that belong to it",
            )
        link = manifest.parent("program")
        program = link.sha256 if link else manifest.sha256
        if program != self.program:
            raise InputError(
                f"the ranges were calibrated on another program of the same weights: {self.program[:16]}…, not {program[:16]}…",
                remedy=f"another input size or torch release makes another program; {_AGAIN}",
            )
        digest = preprocessing.digest if preprocessing else ""
        if self.preprocessing is not None and digest != self.preprocessing_digest:
            raise InputError(
                f"the ranges were calibrated with another preprocessing: {self.preprocessing_digest[:16]}…, not {digest[:16] or 'none'}…"
                f" ({_differences(self.preprocessing, preprocessing)})",
                remedy="give both commands the same preprocessing options, or calibrate again",
            )

    def conclusion(self) -> str:
        """Whether as many images are enough, in one sentence; or that none are of any use."""
        return self.no_use or _conclusion(self.convergence)

    def sealed(self) -> RangeTable:
        """The same with the digest of its content."""
        typed = msgspec.convert(msgspec.to_builtins(self), RangeTable)  # a mean given as 0 is the mean 0.0, as it will be when read
        return msgspec.structs.replace(typed, sha256=_digest(typed))


_VERSIONED = msgspec.defstruct("RangeTable", [("schema", int, 0)])


def load_ranges(path: Path) -> RangeTable:
    """Read a table that `dtvit-deploy calibrate` wrote.

    Raises:
        InputError: it is missing, too large, no table, of another schema, or was changed since it was written.
    """
    if not path.exists():
        raise InputError(f"there is no range table at {path}", remedy=f"make one: dtvit-deploy calibrate … -o {path}")
    schema = read_json(path, _VERSIONED).schema  # by itself, since what else another schema has is not known
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}; this version reads schema {SCHEMA}", remedy=_AGAIN)
    table: RangeTable = read_json(path, RangeTable)
    if (found := _digest(table)) != table.sha256:
        raise InputError(
            f"{path} was changed after calibration: its content has the digest {found[:16]}…, and it says {table.sha256[:16]}…",
            remedy=_AGAIN,
        )
    return table


def weights_of(manifest: Manifest) -> str:
    """SHA-256 of the checkpoint that an artefact was made from, or of its weights where there was none."""
    link = manifest.parent("checkpoint") or manifest.parent("seeded")
    return link.sha256 if link else ""


def _digest(table: RangeTable) -> str:
    return hashlib.sha256(encode_json(msgspec.structs.replace(table, sha256=""))).hexdigest()


def _differences(one: Preprocessing, other: Preprocessing | None) -> str:
    if other is None:
        return "no images are expected here"
    fields = ((name, getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return ", ".join(f"{name} {mine} there, {its} here" for name, mine, its in fields if mine != its)


def _conclusion(curve: tuple[Convergence, ...]) -> str:
    searched = (Method.PERCENTILE, Method.ENTROPY, Method.MSE)
    count = curve[-1].images if curve else 0
    halves = [point for point in curve if point.images <= count / 2]
    if not halves:
        return f"Whether {count} images are enough cannot be told from so few."
    half = halves[-1]
    settled = [method for method in searched if half.of(method).p95 <= ENOUGH]
    told = ", ".join(f"{method} {half.of(method).p95:.1%}" for method in searched)
    found = f"with {half.images} of them, {SHARE:.0%} of the tensors had a range within this much of the final one: {told}"
    if not settled:
        return f"{count} images are not enough by any method: {found}, where {ENOUGH:.0%} would do."
    if len(settled) < len(searched):
        return f"{count} images are enough for {' and '.join(map(str, settled))}, by the limit of {ENOUGH:.0%}: {found}."
    return f"{count} images are enough: {found}, and {ENOUGH:.0%} would do."
