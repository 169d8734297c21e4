"""A device's state as it travels: arrays and what they are of, put together on the device and read strictly where they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.harness.state.blocks import Block
from dtvit_deploy.harness.state.record import Watched

if TYPE_CHECKING:
    from numpy.typing import NDArray


def state_arrays(watched: Watched, blocks: Sequence[Block]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """``times_s`` (readings), ``values`` (readings × channels; NaN: not read), ``blocks`` (blocks × 4), and the rest as JSON has it."""
    import numpy as np

    series = [[np.nan if value is None else value for value in one.values] for one in watched.channels]
    arrays = {
        "times_s": np.array(watched.times_s, np.float64),
        "values": np.array(series, np.float64).reshape(len(series), len(watched.times_s)).T.copy(),
        "blocks": np.array([[one.subject, one.began_s, one.ended_s, one.runs] for one in blocks], np.float64).reshape(len(blocks), 4),
    }
    emptied = [msgspec.structs.replace(one, values=()) for one in watched.channels]
    body: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(watched, times_s=(), channels=tuple(emptied)))
    return arrays, body


def state_of(arrays: Mapping[str, NDArray[Any]], body: Mapping[str, Any]) -> tuple[Watched, tuple[Block, ...]]:
    """The state of such arrays.

    Raises:
        ValueError: a number is none, or beyond what it may be; the channels are not as many as their values.
    """
    import numpy as np

    told: Watched = msgspec.convert(dict(body), Watched)
    values = arrays["values"]
    if len(told.channels) != values.shape[1] or any(one.values for one in told.channels) or told.times_s:
        raise ValueError(f"{len(told.channels)} channels have {values.shape[1]} series of values")
    if not (np.isfinite(arrays["times_s"]).all() and np.isfinite(arrays["blocks"]).all()):
        raise ValueError("a time of the device's state is no number")
    series = [tuple(None if np.isnan(value) else float(value) for value in column) for column in values.T]
    channels = [msgspec.structs.replace(one, values=each) for one, each in zip(told.channels, series, strict=True)]
    whole = msgspec.structs.replace(told, times_s=tuple(map(float, arrays["times_s"])), channels=tuple(channels))
    blocks = [{"subject": int(row[0]), "began_s": row[1], "ended_s": row[2], "runs": int(row[3])} for row in arrays["blocks"].tolist()]
    checked: Watched = msgspec.convert(msgspec.to_builtins(whole), Watched)
    return checked, tuple(msgspec.convert(blocks, list[Block]))
