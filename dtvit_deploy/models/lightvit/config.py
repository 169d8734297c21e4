"""The sizes of LightViT, as plain values: arXiv 2207.05557, and where it leaves one open the released module."""

from __future__ import annotations

from dataclasses import dataclass

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.sizes import require_classes, require_multiple

WINDOW = 7
"""Positions on each side of a window of local attention."""
STRIDE = 32 * WINDOW
"""Input pixels on each side that the last stage makes one window of: its grids are whole windows in every stage."""


@dataclass(frozen=True, kw_only=True)
class LightViTConfig:
    """One LightViT, completely described.

    Attributes:
        dims: channels of the three stages.
        depths: blocks in each stage.
        heads: attention heads in each stage, of 32 channels each.
        tokens: global tokens.
        mlp_ratios: hidden width of each stage's MLP, in multiples of its channels.
        input_size: height and width of the input image, in pixels; both divide by 224.
        num_classes: outputs of the classifier.
        drop_path: greatest stochastic-depth rate, reached at the last block; used in training only.
    """

    dims: tuple[int, int, int]
    depths: tuple[int, int, int]
    heads: tuple[int, int, int]
    tokens: int
    mlp_ratios: tuple[int, int, int] = (8, 4, 4)
    input_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        why = f"LightViT attends within {WINDOW}×{WINDOW} windows down to 1/32 of the image, and whole windows need"
        require_multiple(self.input_size, STRIDE, why)
        require_classes(self.num_classes)
        if odd := [dim for dim, heads in zip(self.dims, self.heads, strict=True) if dim % heads or dim % 4]:
            raise InputError(f"{odd[0]} channels cannot be shared among its heads and gates", remedy="give channels that both divide")

    @property
    def step(self) -> int:
        """Pixels that both sides of an input divide by."""
        return STRIDE

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Channels and stride of the map at the end of each stage."""
        return tuple((dim, 8 << stage) for stage, dim in enumerate(self.dims))

    def grid(self, stage: int) -> tuple[int, int]:
        """Height and width of the feature map of stage 0, 1 or 2 (strides 8, 16, 32)."""
        stride = 8 << stage
        return self.input_size[0] // stride, self.input_size[1] // stride

    @property
    def attention_maps(self) -> tuple[AttentionMap, ...]:
        """Both ways through the global tokens of the last block."""
        grid, heads = self.grid(2), self.heads[2]
        module, parts = f"stages.2.{self.depths[2]}.attn", grid[0] * grid[1]
        return (
            AttentionMap(
                name="global gathering",
                what="each global token looks at the image, in the last block",
                module=module,
                softmax=-2,
                shape=(heads, self.tokens, parts),
                asker="tokens",
                tokens=self.tokens,
                grid=grid,
                window=WINDOW,
            ),
            AttentionMap(
                name="global broadcast",
                what="each part of the image looks at the global tokens, in the last block",
                module=module,
                softmax=-1,
                shape=(heads, parts, self.tokens),
                asker="image",
                tokens=self.tokens,
                grid=grid,
                window=WINDOW,
            ),
        )
