"""What a number in a file may be. msgspec checks it where the file is read and names the field; values that are made here are not checked.

JSON has no NaN and no infinity; a report stores both as the largest double, which :data:`Magnitude` lets through.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_LARGEST = 2**63 - 1


def unit(name: str) -> Meta:
    """Beside the type of a number: what it counts, or is measured in, for who reads the published schema. ``1`` is of a ratio."""
    return Meta(extra_json_schema={"unit": name})


Count = Annotated[int, Meta(ge=0, le=_LARGEST), unit("count")]
Natural = Annotated[int, Meta(ge=1, le=_LARGEST), unit("count")]
Share = Annotated[float, Meta(ge=0, le=1), unit("1")]
Cosine = Annotated[float, Meta(ge=-1, le=1), unit("1")]
Magnitude = Annotated[float, Meta(ge=0)]
"""Of an error or a tolerance."""
Amount = Annotated[float, Meta(ge=0, le=1e12)]
"""Milliseconds, seconds or MiB: more than any measurement takes, and little enough to add up and divide."""
Milliseconds = Annotated[Amount, unit("ms")]
Mebibytes = Annotated[Amount, unit("MiB")]
