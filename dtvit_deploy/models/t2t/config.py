"""The sizes of T2T-ViT and of the backbones that its paper studies, as plain values.

Nothing here needs torch, so a registry, a command line or a report can list every variant at once. Sizes come from arXiv 2101.11986; where
its tables contradict the parameters that they print, the released modules decide (:mod:`dtvit_deploy.models.t2t_variants` says where).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.sizes import require_classes, require_multiple

STRIDE = 16
"""Input pixels per token of the backbone, on each side."""
SQUEEZE = 16
"""How many times narrower the channel attention's middle is than its ends."""


@dataclass(frozen=True, kw_only=True)
class T2TConfig:
    """One T2T-ViT, completely described.

    Attributes:
        dim: channels of the backbone's tokens, at its start where it is dense.
        depths: blocks of each group; all but the dense backbone have one group.
        heads: attention heads of every block.
        mlp_ratio: hidden width of every block's MLP, in multiples of its channels.
        tokens: the layers between the soft splits: ``performer`` and ``transformer`` are attention of 64 channels and one head,
            ``convolution`` puts three convolutions in place of splits and layers.
        backbone: ``plain``; ``channel-attention`` gates every attention's output by squeeze and excitation; ``ghost`` computes half
            of each projection, and a third of each hidden layer, and scales it for the rest; ``dense`` appends ``growth`` channels
            in each block.
        growth: channels that a dense block appends.
        input_size: height and width of the input image, in pixels; both divide by 16.
        num_classes: outputs of the classifier.
        token_dim: channels of the layers between the soft splits.
        drop_path: greatest stochastic-depth rate, reached at the last block; used in training only.
    """

    dim: int
    depths: tuple[int, ...]
    heads: int
    mlp_ratio: int
    tokens: Literal["performer", "transformer", "convolution"] = "performer"
    backbone: Literal["plain", "channel-attention", "ghost", "dense"] = "plain"
    growth: int = 64
    input_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    token_dim: int = 64
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        why = f"T2T-ViT makes a token of every {STRIDE}×{STRIDE} pixels, and its soft splits need"
        require_multiple(self.input_size, STRIDE, why)
        require_classes(self.num_classes)
        if self.backbone != "dense" and len(self.depths) != 1:
            raise InputError(f"{len(self.depths)} groups of blocks asked for; only the dense backbone has more than one")
        if odd := [width for width in self.widths if width % self.heads]:
            raise InputError(
                f"{odd[0]} channels cannot be shared among {self.heads} heads", remedy="give a number of heads that divides them"
            )

    @property
    def step(self) -> int:
        """Pixels that both sides of an input divide by."""
        return STRIDE

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Channels and stride of the only map, of the tokens after the last block."""
        return ((self.last_width, STRIDE),)

    def grid(self, stride: int) -> tuple[int, int]:
        """Height and width of the map with one token for each ``stride`` × ``stride`` pixels (4, 8 or 16)."""
        return self.input_size[0] // stride, self.input_size[1] // stride

    @property
    def token_count(self) -> int:
        """Tokens of the backbone, without the class token."""
        height, width = self.grid(STRIDE)
        return height * width

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the tokens before each block."""
        if self.backbone != "dense":
            return (self.dim,) * self.depths[0]
        found, start = [], self.dim
        for depth in self.depths:
            found += [start + index * self.growth for index in range(depth)]
            start = (start + depth * self.growth) // 2
        return tuple(found)

    @property
    def last_width(self) -> int:
        """Channels of the class token that the classifier reads."""
        return self.widths[-1] + (self.growth if self.backbone == "dense" else 0)

    @property
    def attention_maps(self) -> tuple[AttentionMap, ...]:
        """The class token's attention in the last block."""
        last = sum(self.depths) + len(self.depths) - 2  # between groups of blocks stands a transition
        return (
            AttentionMap(
                name="class token",
                what="the class token looks at the image, in the last block; what it gives to itself is left out",
                module=f"blocks.{last}.attn",
                softmax=-1,
                shape=(self.heads, self.token_count + 1, self.token_count + 1),
                asker="tokens",
                tokens=1,
                first_part=1,
                grid=self.grid(STRIDE),
            ),
        )
