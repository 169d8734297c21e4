"""What an operator would make, before it is made: its function on tensors that have a shape and no memory.

A shape can say anything, and torch would try to hold it: two vectors that broadcast, a padding of a billion, one tensor a hundred times
over. Every operator is therefore called once on tensors of the device ``meta``, before it is called on numbers, and each tensor on its
way there is bounded, with those that torch makes inside and lets go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from dtvit_deploy.artifacts.signature import MOST_VALUES
from dtvit_deploy.runtimes.mil.call import Bound, Operand
from dtvit_deploy.runtimes.mil.program import HELD, Type, static

Tensor = torch.Tensor


class _Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every call goes to ``meta``, what an operator keeps for itself (an index, a scale) included."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs or {}))
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs["device"] = torch.device("meta")
        made = func(*args, **kwargs)
        for one in tree_iter(made):
            if isinstance(one, Tensor):
                require_bounded(one)
        return made


def require_bounded(tensor: Tensor) -> None:
    if tensor.numel() > MOST_VALUES:
        raise ValueError(f"it would make {'×'.join(map(str, tensor.shape))} values; at most {MOST_VALUES:,} are held")


def dry_answer(bound: Bound, made: Mapping[str, Type]) -> Any:
    """What a function would give, on the device ``meta``.

    Args:
        bound: the function and its operands.
        made: what the variables are that a run fills, of static shape.
    """
    with torch.inference_mode(False), torch.no_grad():  # in inference, torch would hide what it makes inside
        operands = [_operand(operand, made) for operand in bound.operands]
        with _Shapes():  # type: ignore[no-untyped-call]
            return bound.function(*operands)


def _operand(operand: Operand | None, made: Mapping[str, Type]) -> Any:
    if operand is None:
        return None
    if isinstance(operand.constant, Tensor):
        return torch.empty(operand.constant.shape, dtype=operand.constant.dtype, device="meta")
    if operand.constant is not None:
        return operand.constant
    kind = made[operand.name]
    if kind.dtype not in HELD:
        raise ValueError(f"it reads {operand.name}, which is a {kind.dtype}")
    return torch.empty(static(kind), dtype=HELD[kind.dtype].torch, device="meta")
