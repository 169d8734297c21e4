"""LightViT as a plain torch module, with the published names and the published answers.

What exports badly in the released module is written otherwise here, and equal: image tokens lie in the order of their windows for a whole
stage, so that windows are a reshape and no tensor has more than four axes; the maximum of a patch is one of four tensors, not a pooling in
three dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtvit_deploy.models.lightvit.config import WINDOW, LightViTConfig
from dtvit_deploy.models.lightvit.layers import Block, Merge


class PatchEmbed(nn.Module):
    """(B, 3, H, W) image → (B, H/8, W/8, C) map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2

        def conv(inputs: int, stride: int, groups: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, half, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(half), nn.GELU()]

        self.stem = nn.Sequential(*conv(3, 2, 1), *conv(half, 1, half), *conv(half, 1, half), *conv(half, 2, half))
        self.proj = nn.Conv2d(half, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.norm(self.proj(self.stem(image)).permute(0, 2, 3, 1))
        return x


class LightViT(nn.Module):
    """The classifier: (B, 3, H, W) normalised image → (B, classes) logits. See :class:`LightViTConfig` for the sizes."""

    def __init__(self, config: LightViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.dims[0])
        self.global_token = nn.Parameter(torch.zeros(1, config.tokens, config.dims[0]))
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for stage, (dim, depth) in enumerate(zip(config.dims, config.depths, strict=True)):
            first, hidden = sum(config.depths[:stage]), dim * config.mlp_ratios[stage]
            blocks: list[nn.Module] = [Block(dim, config.heads[stage], config.tokens, hidden, rates[first + i]) for i in range(depth)]
            self.stages.append(nn.ModuleList([Merge(config.dims[stage - 1], dim), *blocks] if stage else blocks))
        self.norm = nn.LayerNorm(config.dims[2], eps=1e-6)
        self.neck = nn.Sequential(nn.Linear(config.dims[2], 1280), nn.LayerNorm(1280), nn.GELU())
        self.head = nn.Linear(1280, config.num_classes)
        self.apply(_initialise)
        nn.init.normal_(self.global_token, std=0.02)

    def maps(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The (B, H, W, C) map at the end of each stage, and all tokens of the last, the global ones first, the others window by window."""
        found: list[Tensor] = []
        image, count = self.patch_embed(image), self.config.tokens
        y = torch.cat([self.global_token.expand(image.shape[0], -1, -1), windowed(image)], 1)
        for stage, layers in enumerate(self.stages):
            assert isinstance(layers, nn.ModuleList)
            blocks = list(layers)
            if stage:
                tokens, image = blocks.pop(0)(y[:, :count], found[-1])
                y = torch.cat([tokens, windowed(image)], 1)
            for block in blocks:
                y = block(y)
            found.append(unwindowed(y[:, count:], self.config.grid(stage)))
        return found, y

    def forward(self, image: Tensor) -> Tensor:
        y = self.maps(image)[1]  # nothing from here on depends on the order of tokens
        logits: Tensor = self.head(self.neck(self.norm(y)).mean(1))
        return logits


def windowed(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, H·W, C), window by window."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch * height // WINDOW, WINDOW, width // WINDOW, WINDOW * channels)
    return rows.transpose(1, 2).reshape(batch, height * width, channels)


def unwindowed(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The reverse, to a map of that height and width."""
    (batch, _, channels), (height, width) = x.shape, grid
    rows = x.reshape(batch * height // WINDOW, width // WINDOW, WINDOW, WINDOW * channels)
    return rows.transpose(1, 2).reshape(batch, height, width, channels)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
