"""LightViT in the form of its paper: windows of six axes, tokens in the order of the image, from a state dict by published names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dtvit_deploy.models.lightvit.config import LightViTConfig


class Plain:
    """The published arithmetic, written from the paper."""

    def __init__(self, config: LightViTConfig, state: dict[str, Tensor]) -> None:
        self.config, self.state = config, state

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
        query, key, value = (one.unflatten(-1, (heads, -1)) for one in (query, key, value))
        scores = torch.einsum("bnhd,bmhd->bhnm", query, key) * query.shape[-1] ** -0.5 + bias
        return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), value).flatten(2)

    def stem(self, image: Tensor) -> Tensor:
        x = image
        for index, (stride, groups) in enumerate(((2, 1), (1, None), (1, None), (2, None))):
            name, bn = f"patch_embed.stem.{3 * index}", f"patch_embed.stem.{3 * index + 1}"
            x = F.conv2d(x, self.state[f"{name}.weight"], None, stride, 1, groups=groups or x.shape[1])
            statistics = (self.state[f"{bn}.{end}"] for end in ("running_mean", "running_var", "weight", "bias"))
            x = F.gelu(F.batch_norm(x, *statistics, training=False, eps=1e-5))
        return F.conv2d(x, self.state["patch_embed.proj.weight"], self.state["patch_embed.proj.bias"], 2, 1)

    def bias(self, name: str) -> Tensor:
        """(heads, 49, 49), entry by entry as the paper has it."""
        table = self.state[f"{name}.relative_position_bias_table"]
        rows = [(i // 7 - j // 7 + 6) * 13 + (i % 7 - j % 7 + 6) for i in range(49) for j in range(49)]
        return table[rows].unflatten(0, (49, 49)).permute(2, 0, 1)

    def attention(self, x: Tensor, grid: tuple[int, int], heads: int, name: str) -> Tensor:
        count, (height, width) = self.config.tokens, grid
        query, key, value = self.linear(x, f"{name}.qkv").chunk(3, -1)

        def windows(one: Tensor) -> Tensor:
            split = one[:, count:].unflatten(1, (height // 7, 7, width // 7, 7))
            return split.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)

        local = self.attend(windows(query), windows(key), windows(value), heads, self.bias(name))
        local = local.unflatten(0, (-1, height // 7, width // 7)).unflatten(3, (7, 7)).permute(0, 1, 3, 2, 4, 5).flatten(1, 4)
        gathered = self.attend(query[:, :count], key[:, count:], value[:, count:], heads)
        key, value = self.linear(gathered, f"{name}.kv_global").chunk(2, -1)
        return self.linear(torch.cat([gathered, local + self.attend(query[:, count:], key, value, heads)], 1), f"{name}.proj")

    def mlp(self, x: Tensor, name: str) -> Tensor:
        y = self.linear(F.gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")
        z = self.norm(y, f"{name}.attn.norm")
        pooled = F.gelu(self.linear(z.mean(1, keepdim=True), f"{name}.attn.global_reduce"))
        local = F.gelu(self.linear(z, f"{name}.attn.local_reduce"))
        channel = self.linear(pooled, f"{name}.attn.channel_select").sigmoid()
        beside = torch.cat([local, pooled.repeat(1, z.shape[1], 1)], -1)
        return y * channel * self.linear(beside, f"{name}.attn.spatial_select").sigmoid()

    def merge(self, x: Tensor, grid: tuple[int, int], name: str) -> Tensor:
        count = self.config.tokens
        image = x[:, count:].unflatten(1, grid)
        phases = torch.stack([image[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))], -2)
        merged = self.linear(self.norm(phases.flatten(-2), f"{name}.norm"), f"{name}.reduction")
        merged = merged + self.linear(phases.amax(-2), f"{name}.res_proj")
        tokens = self.linear(self.norm(x[:, :count], f"{name}.norm2"), f"{name}.proj")
        return torch.cat([tokens, merged.flatten(1, 2)], 1)

    def logits(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image).flatten(2).mT, "patch_embed.norm")
        x = torch.cat([self.state["global_token"].repeat(len(x), 1, 1), x], 1)
        for stage, depth in enumerate(self.config.depths):
            if stage:
                x = self.merge(x, self.config.grid(stage - 1), f"stages.{stage}.0")
            for index in range(depth):
                name = f"stages.{stage}.{index + bool(stage)}"
                mixed = self.attention(
                    self.norm(x, f"{name}.norm1", 1e-6), self.config.grid(stage), self.config.heads[stage], f"{name}.attn"
                )
                x = x + mixed
                x = x + self.mlp(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp")
        y = F.gelu(self.norm(self.linear(self.norm(x, "norm", 1e-6), "neck.0"), "neck.1"))
        return self.linear(y.mean(1), "head")
