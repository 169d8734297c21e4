"""What can be asked of a network: the table ``[model]`` of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Natural
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.tables import Name, Table, like, refuse_repeats
from dtvit_deploy.errors import InputError

MOST_CLASSES = 1 << 20
"""ImageNet-22k has 21,841; the classifier of more would not fit a device, nor that of a thousand times more any memory."""


class Model(Table, frozen=True):
    """The network.

    Attributes:
        name: a registry name, ``timm:NAME`` or ``package.module:factory``; None when the checkpoint says. A factory is code, and is run.
        checkpoint: weights; None builds the network with weights from ``seed``.
        input_size: height and width of the image in pixels; None takes the model's own.
        num_classes: None takes the checkpoint's or the model's own.
        inputs: for a user's own network that gives no example inputs; one image input otherwise.
        outputs: names, for a user's own network, in the order it returns them.
        seed: of example inputs, and of weights where there is no checkpoint.
    """

    name: Annotated[Name, like("dualtoken-vit-s-mix")] | None = None
    checkpoint: Annotated[Path, like("net.safetensors")] | None = None
    input_size: Annotated[tuple[Natural, Natural], like([224, 224])] | None = None
    num_classes: Annotated[int, msgspec.Meta(ge=1, le=MOST_CLASSES, examples=[1000])] | None = None
    inputs: Annotated[tuple[TensorSpec, ...], like([{"name": "image", "shape": [1, 3, 224, 224]}])] = ()
    outputs: Annotated[tuple[Name, ...], like(["logits"])] = ()
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        if self.input_size is not None and min(self.input_size) < 1:
            raise InputError(f"input size {self.input_size[0]}×{self.input_size[1]} asked for; both sides must be at least 1 pixel")
        if self.num_classes is not None and not 1 <= self.num_classes <= MOST_CLASSES:
            raise InputError(f"{self.num_classes:,} classes asked for; there must be from 1 to {MOST_CLASSES:,}")
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed {self.seed} asked for; it must be from 0 to 2⁶³ − 1")
        refuse_repeats("input", [spec.name for spec in self.inputs])
        refuse_repeats("output", self.outputs)
