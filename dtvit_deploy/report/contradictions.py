"""What in a report contradicts itself: figures that do not follow from the samples beside them, as after an edit by hand.

A report comes from anywhere, and a verdict is over what it says. That samples were really taken, no file can prove; that the median is
theirs, and that VALID is said of what may be VALID, can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import FEWEST_SAMPLES, Measurement
from dtvit_deploy.harness.latency.percentiles import P50, P90, P99, P99_9, nearest_rank, percentile

if TYPE_CHECKING:
    from pathlib import Path

    from dtvit_deploy.report.schema import Report

_ROUNDING = 1e-9
_MOST_TOLD = 3


def require_consistent(path: Path, report: Report) -> None:
    """Refuse a report whose latencies contradict themselves.

    Raises:
        InputError: one does.
    """
    found = [
        f"{subject.name}: {why}" for subject in report.subjects if subject.latency is not None for why in contradictions(subject.latency)
    ]
    if found:
        more = f", and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
        raise InputError(
            f"{path} contradicts itself: {'; '.join(found[:_MOST_TOLD])}{more}",
            remedy="give the report as it was written, or measure again",
        )


def contradictions(latency: Measurement) -> Iterator[str]:
    """What of one measurement cannot be, each in words."""
    count = len(latency.samples_ms)
    if latency.status == "VALID" and count < FEWEST_SAMPLES:
        yield f"it is VALID with {count} of at least {FEWEST_SAMPLES} samples"
    if latency.status == "VALID" and latency.reasons:
        yield f"it is VALID, and INVALID for {latency.reasons[0]!r}"
    if latency.status == "INVALID" and not latency.reasons:
        yield "it is INVALID for no reason"
    for name, told, known in _figures(latency):
        if told is None or known is None:
            if told is not known:
                yield f"{name} is {_text(told)}, and of its {count} samples {_text(known)}"
        elif not math.isclose(told, known, rel_tol=_ROUNDING):
            yield f"{name} is {_text(told)}, and of its {count} samples {_text(known)}"


def _figures(latency: Measurement) -> Iterator[tuple[str, float | None, float | None]]:
    """Names, what is told, and what the samples make of it."""
    ordered = sorted(latency.samples_ms)
    yield "min", latency.min, ordered[0]
    yield "max", latency.max, ordered[-1]
    yield from _percentiles("", (latency.p50, latency.p90, latency.p99), ordered)
    yield "p99.9", latency.p99_9, percentile(ordered, P99_9)
    if latency.device is not None:
        own = latency.device
        yield from _percentiles("the device's ", (own.p50, own.p90, own.p99), sorted(own.samples_ms))


def _percentiles(
    whose: str, told: tuple[float, float | None, float | None], ordered: Sequence[float]
) -> Iterator[tuple[str, float | None, float | None]]:
    yield f"{whose}p50", told[0], nearest_rank(ordered, P50)
    yield f"{whose}p90", told[1], percentile(ordered, P90)
    yield f"{whose}p99", told[2], percentile(ordered, P99)


def _text(value: float | None) -> str:
    return "not told" if value is None else f"{value:.6g} ms"
