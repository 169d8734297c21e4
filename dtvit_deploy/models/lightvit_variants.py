"""The LightViTs by name, the figures of arXiv 2207.05557 beside our exact ones.

Its FLOPs come from a formula that counts windowed attention without the size of a window, and leaves out the keys and values that global
tokens are broadcast by: 0.733, 1.743 and 3.923 G, which print as the paper's. What is left out are 0.04, 0.08 and 0.18 G.
"""

from __future__ import annotations

from collections.abc import Iterator

from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.variant import Variant

_WHY = "the paper's FLOPs leave out the window's size in local attention and the keys and values of the broadcast"


def variants() -> Iterator[Variant]:
    """T, S and B."""
    yield Variant(
        name="lightvit-t",
        config=LightViTConfig(dims=(64, 128, 256), depths=(2, 6, 6), heads=(2, 4, 8), tokens=8),
        description="T, 8 global tokens",
        params=9_377_698,
        macs=772_183_808,
        paper_params="9.4",
        paper_gflops="0.7",
        reached=False,
        why=_WHY,
        top1=78.7,
    )
    yield Variant(
        name="lightvit-s",
        config=LightViTConfig(dims=(96, 192, 384), depths=(2, 6, 6), heads=(3, 6, 12), tokens=16),
        description="S, 16 global tokens",
        params=19_200_248,
        macs=1_825_346_432,
        paper_params="19.2",
        paper_gflops="1.7",
        reached=False,
        why=_WHY,
        top1=80.9,
    )
    yield Variant(
        name="lightvit-b",
        config=LightViTConfig(dims=(128, 256, 512), depths=(3, 8, 6), heads=(4, 8, 16), tokens=24, drop_path=0.3),
        description="B, 24 global tokens",
        params=35_195_653,
        macs=4_106_798_080,
        paper_params="35.2",
        paper_gflops="3.9",
        reached=False,
        why=_WHY,
        top1=82.1,
    )
