"""What is known of a network that exists by name."""

from __future__ import annotations

from dataclasses import dataclass

from dtvit_deploy.models.backbones import Backbone
from dtvit_deploy.models.dense.config import DenseConfig

Config = Backbone | DenseConfig


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of a paper, at its input size.

    Attributes:
        paper_params: the paper's parameter count as printed, in millions; ``None`` where it has none.
        paper_gflops: the paper's FLOPs as printed, in units of 10⁹; it counts multiply–accumulates.
        params: exact parameters, with the classes of ``config``, frozen ones among them.
        macs: exact multiply–accumulates of convolutions, linear layers and attention at the input size of ``config``.
        reached: whether ``params`` and ``macs``, rounded, are the paper's figures.
        why: where they are not, why; empty elsewhere.
        top1: ImageNet-1k accuracy that the paper reports, in per cent.
    """

    name: str
    config: Config
    description: str
    params: int
    macs: int
    paper_params: str | None = None
    paper_gflops: str | None = None
    reached: bool = True
    why: str = ""
    top1: float | None = None
