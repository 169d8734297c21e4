"""The dense networks by name, the figures of arXiv 2309.12424 (tables 3 to 5) beside our exact ones.

The paper counts no products of attention, as mmcv's counter does not; and its segmentation networks are counted at 2048×1024, the default
of the script that counts them, while the networks beside them in its tables are at 512×512.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dtvit_deploy.models.backbones import Backbone
from dtvit_deploy.models.dense.config import TASKS, DenseConfig, Task, dense_config
from dtvit_deploy.models.variant import Variant

_COUNTED = "the paper counts no products of attention"


def task_of(name: str, backbones: Mapping[str, Backbone]) -> DenseConfig | None:
    """The network that a name of the form ``task:backbone`` stands for; None where it is no such name."""
    task, _, backbone = name.partition(":")
    known: tuple[Task, ...] = tuple(one for one in TASKS if one == task)
    return dense_config(known[0], backbones[backbone]) if known and backbone in backbones else None


def variants(small: Backbone) -> Iterator[Variant]:
    """Those of the paper's tables, on DualToken-ViT-S."""
    rows: tuple[tuple[Task, str, int, int, str, str, str], ...] = (
        (
            "retinanet",
            "RetinaNet, 80 classes, 800×1280: boxes and scores of the best anchors, without suppression",
            20_055_618,
            175_133_339_648,
            "20.0",
            "170",
            f"{_COUNTED}: without them these are 169.62; nothing tried gives 20.0 exactly",
        ),
        (
            "deeplabv3",
            "DeepLabv3, 150 classes, 512×512: logits at 1/32 of that",
            26_295_418,
            8_608_149_504,
            "26.3",
            "68.4",
            f"{_COUNTED}, and counts at 2048×1024",
        ),
        (
            "pspnet",
            "PSPNet, 150 classes, 512×512: logits at 1/32 of that",
            21_837_946,
            7_909_928_960,
            "21.7",
            "58.3",
            f"{_COUNTED}, and counts at 2048×1024, with 19 classes",
        ),
    )
    for task, description, params, macs, paper_params, paper_gflops, why in rows:
        yield Variant(
            name=f"{task}:dualtoken-vit-s",
            config=dense_config(task, small),
            description=description,
            params=params,
            macs=macs,
            paper_params=paper_params,
            paper_gflops=paper_gflops,
            reached=False,
            why=why,
        )
