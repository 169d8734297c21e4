"""A measurement with the state of its device: what that says of it, and what it says beside the time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dtvit_deploy.harness.latency.measurement import Measurement
from dtvit_deploy.harness.state import energy, judging
from dtvit_deploy.harness.state.blocks import Block
from dtvit_deploy.harness.state.record import Watched


def stated(measurement: Measurement, watched: Watched, blocks: Sequence[Block] = (), subject: int = 0) -> Measurement:
    """The measurement with the state that it was taken in; INVALID where the device held itself back, or nobody watched.

    A graphics card counts where the candidate has a clock of its own there, and so runs on it; it is in the record in any case.

    Args:
        watched: around the samples, on the clock of their stamps.
        blocks: in which rails were read; none where there is no rail.
        subject: place of this candidate in the blocks.
    """
    state = watched if measurement.device is not None else watched.of_processor
    reasons, notes = [*measurement.reasons, *judging.spoilt(state)], [*measurement.notes, *judging.remarks(state)]
    drifted = any(reason.startswith("drift:") for reason in reasons)
    for fall in judging.slowed(state):
        if drifted:
            reasons.append(f"clock: {fall}, as the samples became slower or faster")
        else:
            notes.append(f"{fall} while sampling, which does not show in the samples")
    found, why = energy.energies(state, blocks, subject)
    return msgspec.structs.replace(
        measurement,
        state=watched,
        energy=found,
        reasons=tuple(reasons),
        notes=(*notes, *why),
        status="INVALID" if reasons else "VALID",
    )
