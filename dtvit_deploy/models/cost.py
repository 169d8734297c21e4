"""What a network costs, counted without computing anything: the network is called on the meta device, which has shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from dtvit_deploy.models.dense.layers import Resample
from dtvit_deploy.models.dualtoken.layers import GridInterpolation
from dtvit_deploy.models.networks import network_from_config
from dtvit_deploy.models.t2t.attention import ChannelScale
from dtvit_deploy.models.t2t.split import SoftSplit
from dtvit_deploy.models.variant import Config

UNCOUNTED = (GridInterpolation, Resample, SoftSplit)
"""Arithmetic in form only: interpolation and pooling written as products, a copy as a convolution. The papers count them as nothing."""


@dataclass(frozen=True)
class Cost:
    """Parameters, and the multiply–accumulates of convolution, linear and attention matmuls; nothing else is counted."""

    params: int
    macs: int


def cost(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Cost of one inference of a network with a single input of that shape.

    What is of :data:`UNCOUNTED` is left out, and a scale of channels, which is published as a convolution, is counted as one.
    The network keeps its weights and its device: the meta tensors take their places for this one call.
    """
    meta = {name: tensor.to("meta") for name, tensor in chain(network.named_parameters(), network.named_buffers())}
    scaled = 0

    def scale(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal scaled
        scaled += output.numel()

    hooks = [module.register_forward_hook(scale) for module in network.modules() if isinstance(module, ChannelScale)]
    try:
        # Not under no_grad: the counter attributes operators to modules through hooks on autograd's graph.
        with FlopCounterMode(display=False) as counter:
            functional_call(network, meta, (torch.empty(shape, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
    counts = counter.get_flop_counts()
    root = type(network).__name__
    uncounted_modules = (name for name, module in network.named_modules() if isinstance(module, UNCOUNTED))
    uncounted = sum(sum(counts.get(f"{root}.{name}", {}).values()) for name in uncounted_modules)
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, (counter.get_total_flops() - uncounted) // 2 + scaled)


def config_cost(config: Config) -> Cost:
    """Cost of one image through the network of that configuration."""
    with torch.device("meta"):
        network = network_from_config(config).eval()
    return cost(network, (1, 3, *config.input_size))
