"""The networks that exist by name, with their papers' figures beside our exact ones.

Nothing here needs torch: what a variant costs with 1000 classes is written down, and tests count it again.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.dense.config import DenseConfig
from dtvit_deploy.models.dense_variants import task_of
from dtvit_deploy.models.dense_variants import variants as dense_variants
from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.lightvit_variants import variants as lightvit_variants
from dtvit_deploy.models.t2t_variants import variants as t2t_variants
from dtvit_deploy.models.variant import Config, Variant

FORMS = "features:, retinanet:, deeplabv3: or pspnet:NAME on one of them; timm:NAME; or package.module:factory for a network of your own"
"""What a model can be besides a registry name."""


_S = DualTokenConfig(dims=(64, 128, 256), depths=(2, 6, 6))
_T = DualTokenConfig(dims=(48, 96, 192), depths=(2, 6, 4))
_S_NORMAL = dataclasses.replace(_S, token_mlp="normal")


def _with_tokens(side: int, params: int, macs: int, paper_params: str, paper_gflops: str) -> Variant:
    return Variant(
        name=f"dualtoken-vit-s-tokens-{f'{side}x{side}' if side else 0}",
        config=dataclasses.replace(_S_NORMAL, tokens=side),
        description=f"ablation of S: {f'{side}×{side}' if side else 'no'} position-aware global tokens",
        params=params,
        macs=macs,
        paper_params=paper_params,
        paper_gflops=paper_gflops,
    )


def _variants() -> Iterable[Variant]:
    yield Variant(
        name="dualtoken-vit-t-mix",
        config=_T,
        description="T, tokens mixed by a mix MLP",
        params=5_837_532,
        macs=540_278_624,
        paper_params="5.8",
        paper_gflops="0.5",
        top1=75.4,
    )
    yield Variant(
        name="dualtoken-vit-t",
        config=dataclasses.replace(_T, token_mlp="normal"),
        description="T, tokens through a normal MLP (not in the paper)",
        params=6_016_932,
        macs=546_981_824,
    )
    yield Variant(
        name="dualtoken-vit-s-mix",
        config=_S,
        description="S, tokens mixed by a mix MLP",
        params=11_425_202,
        macs=1_035_199_360,
        paper_params="11.4",
        paper_gflops="1.0 (1.04)",
        top1=79.4,
    )
    yield Variant(
        name="dualtoken-vit-s",
        config=_S_NORMAL,
        description="S, tokens through a normal MLP",
        params=11_893_046,
        macs=1_053_846_016,
        paper_params="11.9",
        paper_gflops="1.1 (1.05)",
        top1=79.5,
    )
    yield _with_tokens(0, 10_844_278, 986_810_880, "10.8", "0.99")
    yield _with_tokens(3, 11_890_486, 933_054_976, "11.9", "0.93")
    yield _with_tokens(4, 11_890_934, 954_193_408, "11.9", "0.95")
    yield _with_tokens(5, 11_891_510, 981_371_392, "11.9", "0.98")
    yield _with_tokens(6, 11_892_214, 1_014_588_928, "11.9", "1.01")
    yield _with_tokens(8, 11_894_006, 1_099_142_656, "11.9", "1.10")
    yield Variant(
        name="dualtoken-vit-s-mix-one-step",
        config=dataclasses.replace(_S, downsample="one-step"),
        description="ablation of S (mix): one-step down-sampling",
        params=11_291_442,
        macs=1_009_283_456,
        paper_params="11.3",
        paper_gflops="1.01",
    )
    yield Variant(
        name="dualtoken-vit-s-mix-window",
        config=dataclasses.replace(_S, local="window"),
        description="ablation of S (mix): 7×7 window self-attention in place of the Conv Encoder",
        params=10_849_454,
        macs=921_450_368,
        paper_params="10.8",
        paper_gflops="0.92",
    )
    yield Variant(
        name="dualtoken-vit-s-normal-star",
        config=dataclasses.replace(_S_NORMAL, tokens=8, fusion="attended-mlp"),
        description='ablation of S: 8 one-dimensional global tokens, the paper\'s "Normal*"',
        params=13_389_558,
        macs=984_911_360,
        paper_params="13.4",
        paper_gflops="0.98",
    )
    yield Variant(
        name="dualtoken-vit-s-normal",
        config=dataclasses.replace(_S_NORMAL, tokens=8, fusion="attended"),
        description='ablation of S: 8 one-dimensional global tokens, the paper\'s "Normal" (its figures are not reached)',
        params=12_887_414,
        macs=980_913_664,
        paper_params="13.0",
        paper_gflops="0.99",
        reached=False,
        why="no structure of whole projections reaches 13.0 and 0.99; this is the nearest",
    )
    yield from lightvit_variants()
    yield from t2t_variants()
    yield from dense_variants(_S_NORMAL)


VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _variants()})
"""Every variant by name, in the order in which people should meet them."""


FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "dualtoken-vit": "DualToken-ViT (arXiv 2309.12424), the paper's networks and ablations",
        "lightvit": "LightViT (arXiv 2207.05557), which DualToken-ViT was made from",
        "t2t-vit": "T2T-ViT (arXiv 2101.11986) and the backbones that its paper studies",
        "retinanet": "detection, on any DualToken-ViT or LightViT: retinanet:NAME",
        "deeplabv3": "segmentation, on any of the networks: deeplabv3:NAME",
        "pspnet": "segmentation, on any of the networks: pspnet:NAME",
    }
)
"""Every family, by what the names of its networks begin with."""


def family(name: str) -> tuple[Variant, ...]:
    """The networks of a family.

    Raises:
        InputError: there is none of that name.
    """
    if name not in FAMILIES:
        of = next((each for each in FAMILIES if name.startswith(f"{each}-")), None)
        known = f"families: {', '.join(FAMILIES)}"
        raise InputError(f"there is no family {name!r:.100}", remedy=f"it would be in {of}: give that" if of else known)
    return tuple(each for each in VARIANTS.values() if each.name.startswith((f"{name}-", f"{name}:")))


def has(name: str) -> bool:
    """Whether a name stands for a network of this registry: a variant, or a dense task on one."""
    return name in VARIANTS or _dense(name) is not None


def config_of(name: str) -> Config:
    """The configuration that a name stands for.

    Raises:
        InputError: it stands for none, or the task cannot be done on that network.
    """
    return _dense(name) or variant(name).config


def _dense(name: str) -> DenseConfig | None:
    return task_of(name, {each.name: each.config for each in VARIANTS.values() if not isinstance(each.config, DenseConfig)})


def variant(name: str) -> Variant:
    """The variant of that name, and never its nearest neighbour.

    Raises:
        InputError: there is none.
    """
    if found := VARIANTS.get(name):
        return found
    near = difflib.get_close_matches(name, VARIANTS, n=1)
    raise InputError(
        f"there is no model {name!r}" + (f"; did you mean {near[0]}?" if near else ""),
        remedy=f"give one of {', '.join(VARIANTS)}; or {FORMS}",
    )


def attention_maps(name: str, size: tuple[int, int]) -> tuple[AttentionMap, ...]:
    """Which inner tensors of a network are its attention maps.

    Args:
        name: of the network.
        size: height and width of its input, in pixels.

    Raises:
        InputError: it is none of the registry's, and nothing says which of its tensors they are; or it has no such input.
    """
    if not has(name):
        raise InputError(
            f"{name} has no attention maps that are known here: nothing says which of its tensors they would be",
            remedy=f"give artefacts of a network of {', '.join(FAMILIES)} (`dtvit-deploy models`)",
        )
    return dataclasses.replace(config_of(name), input_size=size).attention_maps
