"""The part of a recipe that says how figures are taken, and what they are held to."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Cosine, Magnitude, Natural, Share
from dtvit_deploy.artifacts.tables import Name, Table, like, refuse_repeats
from dtvit_deploy.artifacts.target import Precision

AGREEMENT = {Precision.FP32: 1.0, Precision.FP16: 0.998, Precision.BF16: 0.995, Precision.INT8: 0.99}
"""Least share of images with the reference's top-1; that of INT8 is what MLPerf Inference asks of an edge device."""


class Profile(Table, frozen=True):
    """How latency is measured.

    Attributes:
        seconds: least time for each artefact.
        samples: least number of samples for each; fewer than 64 are INVALID.
        sustained: length of a load of all artefacts together, in seconds, after which burst and sustained latency are told apart.
        energy: seconds of each block in which one artefact runs alone while rails are read, where there are any; 0 takes no energy.
        lock_clocks: whether the clocks of whatever is measured on are held still, for root alone; as shipped and locked are two conditions.
        cuda_graph: on a GPU, launch all kernels of an inference at once.
        layer_times: profile each artefact once more, by layers and torch modules, where its runtime tells them.
        roofline: tell beside each p50 what share it is of what the machine can do, by peaks that are measured once.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0.1, le=1e9)] = 3.0
    samples: Natural = 64
    sustained: Annotated[float, msgspec.Meta(ge=60, le=1e6, examples=[60.0])] | None = None
    energy: Annotated[float, msgspec.Meta(ge=0, le=600)] = 2.5
    lock_clocks: bool = False
    cuda_graph: bool = True
    layer_times: bool = False
    roofline: bool = False


class Parity(Table, frozen=True):
    """How outputs are compared with the reference's.

    Attributes:
        adversarial: whether pictures that no camera takes (zeros, one colour, saturated, noise, next to nothing) are compared too.
        tolerance: greatest |Δ| of an output, by its name and in its own units, in place of a measured one; of whole numbers, the share of a
            sample's values that may differ. Every precision is held to it.
        class_scores: outputs that are class scores, whose greatest entry is compared too; an empty list says that none is. None takes those
            that are called so, those with as many entries as there are known classes, or else the network's only floating output.
    """

    adversarial: bool = True
    tolerance: Annotated[dict[Name, Magnitude], like({"boxes": 0.5})] = msgspec.field(default_factory=dict)
    class_scores: Annotated[tuple[Name, ...], like(["logits"])] | None = None

    def __post_init__(self) -> None:
        refuse_repeats("output", self.class_scores or ())
        for name, limit in self.tolerance.items():
            if not math.isfinite(limit):
                raise ValueError(f"Expected a number for `tolerance.{name}`, got {limit}")


class Limits(Table, frozen=True):
    """The gates of one precision; None sets no gate, but for agreement.

    Attributes:
        agreement: least share of images on which top-1 is the reference's; None asks for 1.0 in FP32, 0.998 in FP16, 0.995 in BF16
            and 0.99 in INT8.
        max_abs: greatest |Δ| of an output.
        cosine: least cosine of the outputs with the reference's.
        top1_drop: greatest loss of top-1 accuracy against the reference, as a share.
        p50_ms: greatest median latency, in milliseconds.
    """

    agreement: Annotated[Share, like(0.99)] | None = None
    max_abs: Annotated[Magnitude, like(0.001)] | None = None
    cosine: Annotated[Cosine, like(0.9999)] | None = None
    top1_drop: Annotated[Share, like(0.004)] | None = None
    p50_ms: Annotated[float, msgspec.Meta(gt=0, examples=[20.0])] | None = None

    def __post_init__(self) -> None:
        for name, limit in msgspec.structs.asdict(self).items():
            if limit is not None and not math.isfinite(limit):  # TOML has nan and inf
                raise ValueError(f"Expected a number for `{name}`, got {limit}")


class Gates(Table, frozen=True):
    """The limits of each precision. Use :meth:`of`, which adds the agreement that is always asked for."""

    fp32: Limits = Limits()
    fp16: Limits = Limits()
    bf16: Limits = Limits()
    int8: Limits = Limits()

    def of(self, precision: Precision) -> Limits:
        """Limits of a precision; agreement is :data:`AGREEMENT` where the recipe names no other."""
        limits: Limits = getattr(self, precision.value)
        if limits.agreement is None:
            return msgspec.structs.replace(limits, agreement=AGREEMENT[precision])
        return limits
