"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor

GELU: dict[str, Callable[[Tensor], Tensor]] = {
    "EXACT": F.gelu,
    "TANH_APPROXIMATION": lambda x: F.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + torch.relu(x),
    "softsign": F.softsign,
}


@op(*PLAIN)
def plain(call: Call) -> Bound:
    return call.on(PLAIN[call.type], "x")


@op("gelu")
def gelu(call: Call) -> Bound:
    return call.on(GELU[call.one_of("mode", GELU, "EXACT")], "x")


@op("elu")
def elu(call: Call) -> Bound:
    alpha = call.value("alpha")
    return call.on(lambda x: F.elu(x, alpha), "x")


@op("leaky_relu")
def leaky_relu(call: Call) -> Bound:
    alpha = call.value("alpha")
    return call.on(lambda x: F.leaky_relu(x, alpha), "x")


@op("thresholded_relu")
def thresholded_relu(call: Call) -> Bound:
    alpha = call.value("alpha")
    return call.on(lambda x: torch.where(x >= alpha, x, 0.0), "x")


@op("clamped_relu")
def clamped_relu(call: Call) -> Bound:
    alpha, beta = call.value("alpha"), call.value("beta")
    return call.on(lambda x: torch.clamp(torch.where(x >= 0, x, alpha * x), max=beta), "x")


@op("linear_activation")
def linear_activation(call: Call) -> Bound:
    alpha, beta = call.value("alpha"), call.value("beta")
    return call.on(lambda x: alpha * x + beta, "x")


@op("scaled_tanh")
def scaled_tanh(call: Call) -> Bound:
    alpha, beta = call.value("alpha"), call.value("beta")
    return call.on(lambda x: alpha * torch.tanh(beta * x), "x")


@op("sigmoid_hard")
def sigmoid_hard(call: Call) -> Bound:
    alpha, beta = call.value("alpha"), call.value("beta")
    return call.on(lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0), "x")


def _of_channels(call: Call, parameter: str) -> Tensor:
    """A vector over the second axis, shaped to be multiplied with ``x``."""
    shape = call.shape("x")
    vector = call.tensor(parameter)
    if vector is None or len(shape) < 3 or vector.shape != shape[1:2]:
        raise call.error(f"its {parameter} is no vector over the second axis of x")
    return vector.reshape(-1, *(1 for _ in shape[2:]))


@op("prelu")
def prelu(call: Call) -> Bound:
    alpha = _of_channels(call, "alpha")
    return call.on(lambda x: torch.where(x > 0, x, alpha * x), "x")


@op("softplus_parametric")
def softplus_parametric(call: Call) -> Bound:
    alpha, beta = _of_channels(call, "alpha"), _of_channels(call, "beta")
    return call.on(lambda x: alpha * PLAIN["softplus"](beta * x), "x")


@op("softmax")
def softmax(call: Call) -> Bound:
    axis = call.axis(len(call.required("x").type.shape), -1)
    return call.on(lambda x: torch.softmax(x, axis), "x")
