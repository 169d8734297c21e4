"""T2T-ViT in the plain form of its paper: Unfold, einsum and plain exponentials, from a state dict by published names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dtvit_deploy.models.t2t.config import T2TConfig


class Plain:
    """The published arithmetic, written from the paper."""

    def __init__(self, config: T2TConfig, state: dict[str, Tensor]) -> None:
        self.config, self.state = config, state

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)

    def heads(self, query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
        query, key, value = (one.unflatten(-1, (heads, -1)) for one in (query, key, value))
        weights = (torch.einsum("bnhd,bmhd->bhnm", query, key) * scale).softmax(-1)
        return torch.einsum("bhnm,bmhd->bnhd", weights, value).flatten(2)

    def performer(self, x: Tensor, name: str) -> Tensor:
        key, query, value = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.kqv").chunk(3, -1)
        features = self.state[f"{name}.w"]

        def phi(z: Tensor) -> Tensor:
            return (torch.einsum("bne,me->bnm", z, features) - z.pow(2).sum(-1, keepdim=True) / 2).exp() / len(features) ** 0.5

        denominator = torch.einsum("bnm,bm->bn", phi(query), phi(key).sum(1))[..., None] + 1e-8
        y = torch.einsum("bnm,bem->bne", phi(query), torch.einsum("bne,bnm->bem", value, phi(key))) / denominator
        y = value + self.linear(y, f"{name}.proj")
        return y + self.linear(F.gelu(self.linear(self.norm(y, f"{name}.norm2"), f"{name}.mlp.0")), f"{name}.mlp.2")

    def transformer(self, x: Tensor, name: str) -> Tensor:
        query, key, value = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, -1)
        y = value + self.linear(self.heads(query, key, value, 1, x.shape[-1] ** -0.5), f"{name}.attn.proj")
        return y + self.mlp(self.norm(y, f"{name}.norm2"), f"{name}.mlp")

    def mlp(self, x: Tensor, name: str) -> Tensor:
        return self.linear(F.gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")

    def tokens(self, x: Tensor) -> Tensor:
        windows = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
        if self.config.tokens == "convolution":
            for name, (_, stride, padding) in zip(("soft_split0", "soft_split1", "project"), windows, strict=True):
                weight, bias = (self.state[f"tokens_to_token.{name}.{end}"] for end in ("weight", "bias"))
                x = F.conv2d(x, weight, bias, stride, padding)
            return x.flatten(2).mT
        layer = self.performer if self.config.tokens == "performer" else self.transformer
        for index, (kernel, stride, padding) in enumerate(windows):
            height, width = (side // stride for side in x.shape[-2:])
            tokens = F.unfold(x, kernel, padding=padding, stride=stride).mT
            if index < 2:
                x = layer(tokens, f"tokens_to_token.attention{index + 1}").mT.unflatten(-1, (height, width))
        return self.linear(tokens, "tokens_to_token.project")

    def scaled(self, x: Tensor, name: str) -> Tensor:
        return F.conv1d(x.mT, self.state[f"{name}.weight"], groups=x.shape[-1]).mT

    def block(self, x: Tensor, name: str) -> Tensor:
        normed, given = self.norm(x, f"{name}.norm1"), x
        if self.config.backbone == "ghost":
            firsts = {one: self.linear(normed, f"{name}.attn.{one}") for one in "qkv"}
            query, key, value = (
                torch.cat([first, self.scaled(first, f"{name}.attn.cheap_operation_{one}")], -1) for one, first in firsts.items()
            )
        else:
            query, key, value = self.linear(normed, f"{name}.attn.qkv").chunk(3, -1)
        scale = (x.shape[-1] // self.config.heads) ** -0.5
        y = self.linear(self.heads(query, key, value, self.config.heads, scale), f"{name}.attn.proj")
        if self.config.backbone == "channel-attention":
            y = (
                y
                * self.linear(self.linear(y.mean(1), f"{name}.attn.se_layer.fc.0").relu(), f"{name}.attn.se_layer.fc.2").sigmoid()[:, None]
            )
        x = x + y
        normed = self.norm(x, f"{name}.norm2")
        if self.config.backbone == "ghost":
            first = F.gelu(self.linear(normed, f"{name}.mlp.fc1"))
            more = [F.gelu(self.scaled(first, f"{name}.mlp.cheap_operation{index}")) for index in (2, 3)]
            return x + self.linear(torch.cat([first, *more], -1), f"{name}.mlp.fc2")
        x = x + self.mlp(normed, f"{name}.mlp")
        return torch.cat([given, self.linear(x, f"{name}.dense_linear")], -1) if self.config.backbone == "dense" else x

    def logits(self, image: Tensor) -> Tensor:
        x = self.tokens(image)
        x = torch.cat([self.state["cls_token"].repeat(len(x), 1, 1), x], 1) + self.state["pos_embed"]
        index = 0
        while f"blocks.{index}.norm1.weight" in self.state or f"blocks.{index}.linear.weight" in self.state:
            between = f"blocks.{index}.linear.weight" in self.state
            x = F.gelu(self.linear(x, f"blocks.{index}.linear")) if between else self.block(x, f"blocks.{index}")
            index += 1
        return self.linear(self.norm(x, "norm")[:, 0], "head")
