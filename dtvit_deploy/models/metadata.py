"""What a safetensors file says of the network in it, typed and bounded: the file may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError

LARGEST_TEXT = 16 << 20
"""Characters of one entry; a hundred thousand class names are two million."""
LARGEST_SIDE = 8192
"""Pixels of a crop (see ``calibration.preprocessing``)."""

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Names = Annotated[list[Annotated[str, Meta(min_length=1, max_length=1000)]], Meta(min_length=1, max_length=1_000_000)]
_Value = int | float | bool | None | Annotated[str, Meta(max_length=100)] | Annotated[list[int | float], Meta(max_length=16)]
_Preprocessing = Annotated[dict[Annotated[str, Meta(max_length=100)], _Value], Meta(max_length=32)]
_Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
_Model = Annotated[str, Meta(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True)
class Description:
    """The metadata that means something here; what is absent is ``None`` or empty.

    Attributes:
        preprocessing: fields of ``calibration.preprocessing.Preprocessing``, each of a plain type; that class checks their values.
        crop: height and width of the images that ``preprocessing`` makes.
    """

    model: str | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    crop: tuple[int, int] | None = None


def describe(metadata: Mapping[str, str], path: Path) -> Description:
    """Type-check the entries ``model``, ``num_classes``, ``classes`` (a JSON list) and ``preprocessing`` (a JSON object).

    Raises:
        InputError: one of them is not what it should be; the file and the entry are named.
    """

    def entry(key: str, kind: Any, *, plain: bool = False) -> Any:
        if key not in metadata:
            return None
        text = metadata[key]
        try:
            if len(text) > LARGEST_TEXT:
                raise ValueError(f"{len(text):,} characters; no {key} is that long")
            if plain:
                return msgspec.convert(text, kind)
            require_shallow_json(text.encode())
            return msgspec.json.decode(text.encode(), type=kind)
        except ValueError as error:  # msgspec's errors and Unicode's are ValueErrors
            raise _refusal(path, key, error) from error

    preprocessing = entry("preprocessing", _Preprocessing) or {}
    try:
        crop = msgspec.convert(preprocessing["crop"], tuple[_Side, _Side]) if "crop" in preprocessing else None
    except msgspec.ValidationError as error:
        raise _refusal(path, "preprocessing", f"crop: {error}") from error
    description = Description(
        model=entry("model", _Model, plain=True),
        num_classes=entry("num_classes", _Count),
        classes=tuple(entry("classes", _Names) or ()),
        preprocessing=preprocessing,
        crop=crop,
    )
    if description.classes and description.num_classes not in (None, len(description.classes)):
        raise _refusal(path, "classes", f"{len(description.classes)} names for num_classes {description.num_classes}")
    return description


def _refusal(path: Path, key: str, reason: object) -> InputError:
    return InputError(
        f"the metadata of {path} is wrong in {key!r}: {reason}", remedy="save the checkpoint again with that entry right, or without it"
    )


def for_size(preprocessing: dict[str, Any], crop: tuple[int, int] | None, size: tuple[int, int]) -> dict[str, Any]:
    """The same preprocessing for another (height, width): the crop is the input, and takes the same share of the resized image."""
    if crop is None or crop == size:
        return preprocessing
    scaled = preprocessing | {"crop": list(size)}
    resize = preprocessing.get("resize")
    if isinstance(resize, int):
        scaled["resize"] = max(round(resize * min(size) / min(crop)), min(size))
    return scaled
