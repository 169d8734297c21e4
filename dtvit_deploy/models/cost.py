"""What a network costs, counted without computing anything: the network is called on the meta device, which has shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.dualtoken.layers import GridInterpolation
from dtvit_deploy.models.dualtoken.network import DualTokenViT


@dataclass(frozen=True)
class Cost:
    """Parameters, and the multiply–accumulates of convolution, linear and attention matmuls; nothing else is counted."""

    params: int
    macs: int


def cost(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Cost of one inference of a network with a single input of that shape.

    The paper counts interpolation as nothing, so :class:`GridInterpolation`, which is matmuls only in form, is left out.
    The network keeps its weights and its device: the meta tensors take their places for this one call.
    """
    meta = {name: tensor.to("meta") for name, tensor in chain(network.named_parameters(), network.named_buffers())}
    # Not under no_grad: the counter attributes operators to modules through hooks on autograd's graph.
    with FlopCounterMode(display=False) as counter:
        functional_call(network, meta, (torch.empty(shape, device="meta"),))
    counts = counter.get_flop_counts()
    root = type(network).__name__
    interpolations = (name for name, module in network.named_modules() if isinstance(module, GridInterpolation))
    uncounted = sum(sum(counts.get(f"{root}.{name}", {}).values()) for name in interpolations)
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, (counter.get_total_flops() - uncounted) // 2)


def config_cost(config: DualTokenConfig) -> Cost:
    """Cost of one image through the network of that configuration."""
    with torch.device("meta"):
        network = DualTokenViT(config).eval()
    return cost(network, (1, 3, *config.input_size))
