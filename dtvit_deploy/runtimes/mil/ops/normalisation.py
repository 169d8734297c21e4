"""Normalisations: each computes its moments and its quotient in FP32 and rounds the answer alone."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor


@op("batch_norm")
def batch_norm(call: Call) -> Bound:
    epsilon = call.value("epsilon", 1e-5)

    def normalise(x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)

    return call.on(normalise, "x", "mean", "variance", optional=("gamma", "beta"))


@op("instance_norm")
def instance_norm(call: Call) -> Bound:
    epsilon = call.value("epsilon", 1e-5)
    axes = tuple(range(2, len(call.shape("x"))))
    shape = (-1, *(1 for _ in axes))

    def normalise(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - mean) / torch.sqrt(variance + epsilon)
        y = y if gamma is None else y * gamma.reshape(shape)
        return y if beta is None else y + beta.reshape(shape)

    return call.on(normalise, "x", optional=("gamma", "beta"))


@op("layer_norm")
def layer_norm(call: Call) -> Bound:
    shape = call.shape("x")
    axes = call.axes(len(shape), list(range(len(shape))))
    epsilon = call.value("epsilon", 1e-5)
    sizes = [shape[axis] for axis in axes]
    if axes == list(range(len(shape) - len(axes), len(shape))):
        return call.on(lambda x, gamma, beta: F.layer_norm(x, sizes, gamma, beta, epsilon), "x", optional=("gamma", "beta"))
    order = [axis for axis in range(len(shape)) if axis not in axes] + axes
    back = [order.index(axis) for axis in range(len(shape))]

    def normalise(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        return F.layer_norm(x.permute(order), sizes, gamma, beta, epsilon).permute(back)

    return call.on(normalise, "x", optional=("gamma", "beta"))


@op("l2_norm")
def l2_norm(call: Call) -> Bound:
    """Over the last three axes."""
    if len(call.shape("x")) < 3:
        raise call.error("its input has less than 3 axes")
    epsilon = call.value("epsilon", 1e-6)
    return call.on(lambda x: x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon), "x")


@op("local_response_norm")
def local_response_norm(call: Call) -> Bound:
    """Over ``size`` channels around each; the reference says nothing of which, where they are even in number."""
    size = call.value("size")
    if size % 2 == 0:
        raise call.error(f"a window of {size} channels has no documented middle")
    alpha, beta, k = call.value("alpha", 1e-4), call.value("beta", 0.75), call.value("k", 1.0)
    return call.on(lambda x: F.local_response_norm(x, size, alpha, beta, k), "x")
