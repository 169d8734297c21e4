"""What a runtime told of its layers, as it travels from a device: names once each, layers by the places of theirs, and times as arrays.

A name stands in many layers, which all lead to the same outputs: a network's seven hundred layers travel in some hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.expected import MOST_PROFILED, MOST_TIMES, MOST_WORDS
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.runtimes.layer_times import Layer, Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_LETTERS = 1000
"""Of a name."""
MOST_LEADS = 64
"""Names of what a layer leads to, the nearest first: its owner is among the first few."""
LONGEST_MS = 1e12
_Place = Annotated[int, msgspec.Meta(ge=0)]


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names, and of each layer the places of its name, type and kernel, of what it was made of and of what it leads to."""

    names: tuple[Annotated[str, msgspec.Meta(max_length=MOST_LETTERS)], ...]
    layers: tuple[tuple[_Place, _Place, _Place, tuple[_Place, ...], tuple[_Place, ...]], ...]


def layer_arrays(told: Told) -> dict[str, NDArray[Any]]:
    """Arrays for a frame: ``whole_ms`` of each run; ``times_ms`` of all layers, one behind the other, and in ``counts`` how many are of
    each; ``words``, JSON of their names.

    Raises:
        InputError: they are more than is sent.
    """
    places: dict[str, int] = {}

    def at(name: str) -> int:
        return places.setdefault(name[:MOST_LETTERS], len(places))

    layers = [
        (at(one.name), at(one.type), at(one.kernel), [*map(at, one.made_of)], [*map(at, one.leads_to[:MOST_LEADS])]) for one in told.layers
    ]
    words = msgspec.json.encode({"names": list(places), "layers": layers})
    times = [time for one in told.layers for time in one.times_ms]
    if len(words) > MOST_WORDS or len(layers) > MOST_PROFILED or len(times) > MOST_TIMES:
        raise InputError(f"a runtime tells of {len(layers):,} layers in {len(words):,} bytes, which is more than is sent at once")
    return {
        "whole_ms": np.array(told.whole_ms, np.float64),
        "times_ms": np.array(times, np.float64),
        "counts": np.array([len(one.times_ms) for one in told.layers], np.int64),
        "words": np.frombuffer(words, np.uint8),
    }


def layers_of(arrays: Mapping[str, NDArray[Any]]) -> Told:
    """What those arrays tell, whoever sent them; names as they may be shown.

    Raises:
        ValueError: they contradict each other, or a time is none.
    """
    content = arrays["words"].tobytes()
    require_shallow_json(content)
    words = msgspec.json.decode(content, type=_Words)
    whole, times, counts = arrays["whole_ms"], arrays["times_ms"], arrays["counts"]
    if not all(((each >= 0) & (each <= LONGEST_MS)).all() for each in (whole, times)):  # which NaN is not, either
        raise ValueError("a time is none")
    if len(counts) != len(words.layers) or not len(whole) or ((counts < 1) | (counts > len(times))).any() or counts.sum() != len(times):
        raise ValueError(f"{len(words.layers)} layers and {len(times)} times do not fit each other")
    names = [clean(name) for name in words.names]
    if any(place >= len(names) for *one, made, leads in words.layers for place in (*one, *made, *leads)):
        raise ValueError("a layer has a name that is not there")
    taken = np.split(times, np.cumsum(counts)[:-1])
    layers = [
        Layer(names[name], names[kind], names[kernel], tuple(names[at] for at in made), found.tolist(), tuple(names[at] for at in leads))
        for (name, kind, kernel, made, leads), found in zip(words.layers, taken, strict=False)
    ]
    return Told(layers, whole.tolist())
