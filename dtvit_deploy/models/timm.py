"""``timm:NAME``: a network of PyTorch Image Models, where timm is installed. Nothing is ever downloaded: weights come from a checkpoint.

timm needs torchvision, whose compiled part must match torch's own build; this package depends on neither.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dtvit_deploy.errors import InputError, MissingError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
"""What both timm and ``calibration.preprocessing`` have."""


@dataclass(frozen=True, kw_only=True)
class TimmNetwork:
    """What timm makes.

    Attributes:
        shape: of one input, (1, channels, height, width).
        preprocessing: fields of ``calibration.preprocessing.Preprocessing``; empty for inputs that are no RGB image.
        notes: where timm's evaluation differs from what that can express.
    """

    module: nn.Module
    shape: tuple[int, int, int, int]
    preprocessing: dict[str, Any]
    notes: tuple[str, ...] = ()


def network_from_timm(name: str, *, num_classes: int | None, input_size: tuple[int, int] | None) -> TimmNetwork:
    """Make the network with fresh weights.

    Raises:
        MissingError: timm or torchvision cannot be imported.
        InputError: timm has no such network, or cannot make it that way.
    """
    timm = _timm(name)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise InputError(
            f"timm {timm.__version__} has no network {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
            remedy="timm.list_models() lists them; networks of the Hugging Face hub are not fetched",
        )
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    module = _make(timm, name, options)
    config = timm.data.resolve_model_data_config(module)
    channels, *native = config["input_size"]
    if input_size is not None and tuple(native) != input_size:
        # Networks with a position embedding must be told; convolutional ones know no such parameter and take any size.
        try:
            module = timm.create_model(name, pretrained=False, img_size=input_size, **options)
        except TypeError:
            pass
        except Exception as error:
            raise _refusal(name, error) from error
    height, width = input_size or native
    preprocessing, notes = _preprocessing(name, config, (height, width))
    return TimmNetwork(module=module.float().eval(), shape=(1, channels, height, width), preprocessing=preprocessing, notes=notes)


def _timm(name: str) -> Any:
    try:
        import timm
        import timm.data
    except Exception as error:  # torchvision built for another torch raises RuntimeError at import, not ImportError
        raise MissingError(
            f"timm:{name} needs timm, which needs torchvision, and importing them failed: {type(error).__name__}: {error}",
            remedy=f"`pip install timm` together with the torchvision that was built for torch {torch.__version__}, both from the index"
            " that torch came from (https://pytorch.org/get-started/locally); or give the network as package.module:factory",
        ) from error
    return timm


def _make(timm: Any, name: str, options: dict[str, Any]) -> nn.Module:
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise _refusal(name, error) from error
    return module


def _refusal(name: str, error: Exception) -> InputError:
    return InputError(f"timm cannot make {name} that way: {type(error).__name__}: {error}", remedy="--debug shows where")


def _preprocessing(name: str, config: dict[str, Any], size: tuple[int, int]) -> tuple[dict[str, Any], tuple[str, ...]]:
    if config["input_size"][0] != 3:
        return {}, ()
    if config["interpolation"] not in INTERPOLATIONS:
        raise InputError(
            f"timm resizes images for {name} with {config['interpolation']!r}; known are {', '.join(INTERPOLATIONS)}",
            remedy="give the network as package.module:factory",
        )
    mode = config.get("crop_mode") or "center"
    notes = () if mode == "center" else (f"timm's crop mode {mode!r} was replaced by a centre crop: accuracy may differ from timm's",)
    preprocessing = {
        "resize": math.floor(min(size) / config["crop_pct"]),  # timm rounds down too
        "crop": list(size),
        "interpolation": config["interpolation"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "channels": "rgb",
    }
    return preprocessing, notes
