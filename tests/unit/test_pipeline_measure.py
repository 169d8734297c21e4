"""What a report says of how latencies were taken is what was done."""

from __future__ import annotations

from functools import partial

import pytest

from dtvit_deploy.harness.latency import MeasureOptions, interleaved, measure
from dtvit_deploy.runtimes.fake import FakeClock


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ([0.01], ["interleaved with 0 others"]),
        ([0.01, 0.02], ["interleaved with 1 other"] * 2),
        ([0.01, 0.02, 0.3], ["interleaved with 2 others"] * 3),
        ([5.0, 0.01], ["interleaved with 1 other", "interleaved with 1 other, the first 20 of 64 samples with all of them"]),
    ],
)
def test_samples_that_were_taken_without_one_of_the_others_are_counted(seconds: list[float], told: list[str]) -> None:
    clock = FakeClock()
    runs = {str(index): partial(clock.advance, each) for index, each in enumerate(seconds)}
    found = measure(runs, MeasureOptions(max_seconds=100), clock.now)
    assert [interleaved(str(index), found) for index in range(len(seconds))] == told
