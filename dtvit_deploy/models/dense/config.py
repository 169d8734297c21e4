"""What a network for a dense task is made of, as plain values: its task, its backbone, and the width of its head.

Nothing here needs torch. The heads are those of MMDetection and MMSegmentation as arXiv 2309.12424 uses them (tables 3 to 5); what it
leaves open was found by counting its parameters and FLOPs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.backbones import Backbone
from dtvit_deploy.models.sizes import require_classes

Task = Literal["features", "retinanet", "deeplabv3", "pspnet"]
TASKS: tuple[Task, ...] = get_args(Task)
_NEEDS: Mapping[Task, tuple[int, ...]] = MappingProxyType({"retinanet": (16, 32)})
"""Strides of the backbone's maps that a task takes; the others take whatever map is the last."""
_SIZES: Mapping[Task, tuple[int, int]] = MappingProxyType({"retinanet": (800, 1280)})
_CLASSES: Mapping[Task, int] = MappingProxyType({"deeplabv3": 150, "pspnet": 150})
_WIDTHS: Mapping[Task, int] = MappingProxyType({"deeplabv3": 512, "pspnet": 512})


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """One network for a dense task, completely described.

    Attributes:
        task: what it is for; ``features`` are the backbone's maps alone, for a head of somebody else's.
        backbone: whose maps it reads; its own input size and classes say nothing here.
        input_size: height and width of the input image, in pixels.
        num_classes: of objects (80 in COCO) or of pixels (150 in ADE20K); ``features`` have none.
        width: channels of the head.
        coarse: whether RetinaNet makes its finest level of stride 16, by a transposed convolution, as the paper's figures say; else it is
            the map of stride 8.
    """

    task: Task
    backbone: Backbone
    input_size: tuple[int, int]
    num_classes: int
    width: int = 256
    coarse: bool = True

    def __post_init__(self) -> None:
        dataclasses.replace(self.backbone, input_size=self.input_size)  # which says what it needs
        require_classes(self.num_classes)
        if self.width < 1:
            raise InputError(f"a head of {self.width} channels asked for", remedy="give at least one channel")
        needs = (8, 16, 32) if self.task == "retinanet" and not self.coarse else _NEEDS.get(self.task, ())
        strides = [stride for _, stride in self.backbone.maps]
        if not set(needs) <= set(strides):
            raise InputError(
                f"{self.task} needs maps of strides {', '.join(map(str, needs))}, and this backbone has {', '.join(map(str, strides))}",
                remedy="take a DualToken-ViT or a LightViT, or another task: features, deeplabv3 and pspnet take any backbone",
            )

    @property
    def attention_maps(self) -> tuple[AttentionMap, ...]:
        """Those of its backbone, which is a module of the network (`dtvit_deploy.models.dense.backbone.Maps`)."""
        found = dataclasses.replace(self.backbone, input_size=self.input_size).attention_maps
        return tuple(dataclasses.replace(one, module=f"backbone.body.{one.module}") for one in found)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it returns, in order."""
        if self.task == "features":
            return tuple(f"map_{stride}" for _, stride in self.backbone.maps)
        return ("boxes", "scores") if self.task == "retinanet" else ("logits",)


def dense_config(task: Task, backbone: Backbone) -> DenseConfig:
    """As the paper has it, at the size nearest to the paper's that the backbone takes."""
    step = backbone.step
    height, width = (max(step, round(side / step) * step) for side in _SIZES.get(task, (512, 512)))
    return DenseConfig(
        task=task, backbone=backbone, input_size=(height, width), num_classes=_CLASSES.get(task, 80), width=_WIDTHS.get(task, 256)
    )
