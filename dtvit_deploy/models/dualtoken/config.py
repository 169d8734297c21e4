"""The sizes and ablation switches of DualToken-ViT, as plain values.

Nothing here needs torch, so a registry, a command line or a report can list every variant at once.
Sizes come from arXiv 2309.12424; the ones that the paper leaves open were found by matching its parameter
and FLOP figures (see :mod:`dtvit_deploy.models.dualtoken.network`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.sizes import require_classes, require_multiple

STRIDE = 32
"""Input pixels per position of the last stage: a static grid needs an input that divides by it."""


@dataclass(frozen=True, kw_only=True)
class DualTokenConfig:
    """One DualToken-ViT, completely described.

    Attributes:
        dims: channels of the three stages.
        depths: blocks in each stage.
        heads: attention heads in each stage.
        ffn_ratios: hidden width of each stage's FFN, in multiples of its channels.
        input_size: height and width of the input image, in pixels; both divide by 32.
        num_classes: outputs of the classifier.
        tokens: position-aware global tokens on each side of their grid (7 means 49 tokens; 0 means none),
            or, for the ``attended`` fusions, the number of one-dimensional tokens.
        token_mlp: ``mix`` mixes across tokens without activation, ``normal`` is a two-layer channel MLP.
        fusion: how the tokens meet the aggregated map (paper, equations 6 to 8, and its table of ablations):
            ``position-aware`` adds them with weight ``alpha``; ``attended-mlp`` is the paper's "Normal*" and
            ``attended`` its "Normal".
        local: ``conv`` is the Conv Encoder, ``window`` replaces it with 7×7 window self-attention.
        downsample: ``step-wise`` halves with a convolution between, ``one-step`` pools at once.
        alpha: weight of the tokens in their fusion with the aggregated map.
        drop_path: greatest stochastic-depth rate, reached at the last block; used in training only.
    """

    dims: tuple[int, int, int]
    depths: tuple[int, int, int]
    heads: tuple[int, int, int] = (2, 4, 8)
    ffn_ratios: tuple[int, int, int] = (8, 4, 4)
    input_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    tokens: int = 7
    token_mlp: Literal["mix", "normal"] = "mix"
    fusion: Literal["position-aware", "attended-mlp", "attended"] = "position-aware"
    local: Literal["conv", "window"] = "conv"
    downsample: Literal["step-wise", "one-step"] = "step-wise"
    alpha: float = 0.1
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        require_multiple(self.input_size, STRIDE, f"DualToken-ViT halves its grid down to 1/{STRIDE}, and a static grid needs")
        require_classes(self.num_classes)
        if self.local == "window" and any(side % 7 for stage in (0, 1) for side in self.grid(stage)):
            raise InputError(
                f"input size {'×'.join(map(str, self.input_size))} cannot be used with window attention: its grids {self.grid(0)} and"
                f" {self.grid(1)} are not whole 7×7 windows",
                remedy="use a height and width that divide by 112, or the Conv Encoder variant",
            )

    def grid(self, stage: int) -> tuple[int, int]:
        """Height and width of the feature map of stage 0, 1 or 2 (strides 8, 16, 32)."""
        stride = 8 << stage
        return self.input_size[0] // stride, self.input_size[1] // stride

    @property
    def step(self) -> int:
        """Pixels that both sides of an input divide by."""
        return 112 if self.local == "window" else STRIDE

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Channels and stride of the map at the end of each stage."""
        return tuple((dim, 8 << stage) for stage, dim in enumerate(self.dims))

    @property
    def aggregated_grid(self) -> tuple[int, int]:
        """Height and width of the map that global aggregation attends over, the same in every stage."""
        return self.grid(2)

    @property
    def token_count(self) -> int:
        """Global tokens that every block carries (0 for the variant without)."""
        return self.tokens**2 if self.fusion == "position-aware" else self.tokens

    @property
    def attention_maps(self) -> tuple[AttentionMap, ...]:
        """The global broadcast of the last block: what the paper's pictures show."""
        (height, width), placed = self.grid(2), self.fusion == "position-aware"
        tokens = self.token_count or height * width  # without global tokens the aggregated map is broadcast as it is
        grid = (self.tokens, self.tokens) if self.tokens else (height, width)
        told = "the global tokens" if self.tokens else "the aggregated map"
        return (
            AttentionMap(
                name="global broadcast",
                what=f"each part of the image looks at {told}, in the last block",
                module=f"stages.2.{self.depths[2] - 1}",
                softmax=-1,
                shape=(self.heads[2], height * width, tokens),
                asker="image",
                tokens=tokens,
                grid=(height, width),
                token_grid=grid if placed else None,
            ),
        )
