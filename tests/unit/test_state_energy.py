"""Energy of an inference from a simulated rail and a simulated clock: what it really is, or nothing, and never a wrong joule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from dtvit_deploy.harness.state.blocks import IDLE, Block, take_blocks
from dtvit_deploy.harness.state.energy import Energy, energies
from dtvit_deploy.harness.state.record import Channel, Kind, Watched
from dtvit_deploy.runtimes.fake import FakeClock

IDLE_MW, RANGE = 4000.0, 65_532_610_987.0
COSTS = ((0.010, 9000.0), (0.020, 6000.0))
"""Of two networks: seconds of an inference, and mW while it runs."""
RIGHT = tuple((busy - IDLE_MW) * seconds for seconds, busy in COSTS)
"""mJ of an inference."""


def blocks(seconds: float = 2.5) -> tuple[Block, ...]:
    clock = FakeClock()
    runs: Sequence[Callable[[], object]] = [lambda each=each: clock.advance(each) for each, _ in COSTS]  # type: ignore[misc]
    return take_blocks(runs, seconds, since=0.0, clock=clock.now, wait=clock.advance)


def power_at(at: float, of: Sequence[Block]) -> float:
    one = next((block for block in of if block.began_s <= at < block.ended_s), None)
    return IDLE_MW if one is None or one.subject == IDLE else COSTS[one.subject][1]


def rail(kind: Kind, of: Sequence[Block], *, noise: float = 0.0, counted_from: float = 0.0, interval: float = 0.5) -> Watched:
    """What a watcher would have read of the rail; a counter wraps at its end."""
    rng = np.random.default_rng(0)
    ends = of[-1].ended_s
    fine = np.arange(0.0, ends, 0.001)
    power = np.array([power_at(at, of) for at in fine])
    energy = counted_from + np.concatenate([[0.0], np.cumsum(power)])  # mW × 1 ms = µJ
    times = tuple(float(at) for at in np.arange(0.1, ends, interval))
    if kind == "power":
        values = [float(power_at(at, of) * (1 + noise * rng.standard_normal())) for at in times]
    else:
        values = [float(energy[min(int(at * 1000), len(energy) - 1)] % RANGE) for at in times]
    limit = RANGE if kind == "energy" else None
    channel = Channel(name="VDD_IN", kind=kind, source="/rail", limit=limit, values=tuple(values))
    return Watched(times_s=times, sampled_s=0.0, channels=(channel,))


def spoilt(watched: Watched, change: Callable[[int, float | None], float | None], **others: object) -> Watched:
    (channel,) = watched.channels
    values = tuple(change(place, value) for place, value in enumerate(channel.values))
    told = {"name": channel.name, "kind": channel.kind, "source": channel.source, "limit": channel.limit, **others}
    return Watched(times_s=watched.times_s, sampled_s=0.0, channels=(Channel(**told, values=values),))  # type: ignore[arg-type]


def test_blocks_are_between_idle_ones_and_change_their_order() -> None:
    found = blocks()
    assert [one.subject for one in found] == [IDLE, 0, 1, IDLE, 1, 0, IDLE, 0, 1, IDLE, 1, 0, IDLE, 0, 1, IDLE]
    assert {one.runs for one in found if one.subject == 0} <= {250, 251}
    assert all(earlier.ended_s == later.began_s for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize("kind", ["power", "energy"])
@pytest.mark.parametrize("subject", [0, 1])
def test_what_an_inference_takes_beyond_idle_is_found(kind: Kind, subject: int) -> None:
    taken = blocks()
    ((found,), why) = energies(rail(kind, taken), taken, subject)
    assert why == ()
    assert found.millijoules == pytest.approx(RIGHT[subject], rel=0.01)
    assert found.low <= found.millijoules <= found.high
    assert (found.idle_mw, found.busy_mw) == (pytest.approx(IDLE_MW, rel=0.01), pytest.approx(COSTS[subject][1], rel=0.01))
    assert (found.rail, found.source, found.blocks) == ("VDD_IN", "/rail", 5)


def test_the_interval_of_a_noisy_rail_holds_what_it_really_is() -> None:
    taken = blocks()
    ((found,), _) = energies(rail("power", taken, noise=0.05), taken, 0)
    assert found.low < RIGHT[0] < found.high
    assert 0.005 * RIGHT[0] < found.high - found.low < 0.5 * RIGHT[0]


@pytest.mark.parametrize("before_the_end", [1e6, 20e6, 50e6, 120e6, 200e6])
def test_a_counter_that_wraps_around_within_or_between_blocks_counts_the_same(before_the_end: float) -> None:
    taken = blocks()
    ((found,), _) = energies(rail("energy", taken, counted_from=RANGE - before_the_end), taken, 0)
    assert found.millijoules == pytest.approx(RIGHT[0], rel=0.01)


def none_of(watched: Watched, taken: Sequence[Block], why: str) -> None:
    found, told = energies(watched, taken, 0)
    assert found == ()
    assert len(told) == 1
    assert why in told[0]


def test_a_counter_that_began_anew_without_a_known_end_gives_nothing_wrong() -> None:
    taken = blocks()
    wrapped = rail("energy", taken, counted_from=RANGE - 50e6)
    ((found,), _) = energies(spoilt(wrapped, lambda place, value: value, limit=None), taken, 0)
    assert found.millijoules == pytest.approx(RIGHT[0], rel=0.01)
    assert found.blocks == 3  # it began anew in an idle block, which two others would have been held against
    none_of(spoilt(wrapped, lambda place, value: 0.0 if place % 4 else value, limit=None), taken, "it stood still between")


def test_a_sensor_that_sleeps_or_stands_still_gives_no_energy() -> None:
    taken = blocks()
    for kind in ("power", "energy"):
        whole = rail(kind, taken)  # type: ignore[arg-type]
        none_of(spoilt(whole, lambda place, value: None), taken, "only 0 blocks have a figure")
        none_of(spoilt(whole, lambda place, value: value if place % 3 else None), taken, "blocks have a figure")
        none_of(spoilt(whole, lambda place, value: 5000.0), taken, "it stood still" if kind == "energy" else "busy or idle")
        none_of(spoilt(whole, lambda place, value: 0.0), taken, "it stood still" if kind == "energy" else "busy or idle")


def test_one_reading_that_is_missing_costs_its_block_alone() -> None:
    taken = blocks()
    whole = rail("power", taken)
    inside = next(place for place, at in enumerate(whole.times_s) if taken[1].began_s + 1 < at < taken[1].ended_s)
    ((found,), _) = energies(spoilt(whole, lambda place, value: None if place == inside else value), taken, 0)
    assert found.millijoules == pytest.approx(RIGHT[0], rel=0.01)
    assert found.blocks == 4


def test_a_watcher_that_died_gives_no_energy() -> None:
    taken = blocks()
    whole = rail("power", taken)
    cut = Watched(
        times_s=whole.times_s[:12],
        channels=tuple(Channel(name=one.name, kind=one.kind, source=one.source, values=one.values[:12]) for one in whole.channels),
    )
    none_of(cut, taken, "blocks have a figure")
    assert energies(Watched(), taken, 0) == ((), ())
    assert energies(whole, (), 0) == ((), ())  # nobody took blocks


def test_what_cannot_be_told_from_the_idle_device_is_not_told() -> None:
    taken = blocks()
    rng = np.random.default_rng(1)
    flat = spoilt(rail("power", taken), lambda place, value: float(IDLE_MW + 100 * rng.standard_normal()))
    none_of(flat, taken, "cannot be told from the idle device's")


def test_a_jump_that_no_rail_delivers_is_none() -> None:
    taken = blocks()
    jumped = spoilt(rail("energy", taken), lambda place, value: None if value is None else value + 1e12 * (place // 2 % 2), limit=1e15)
    none_of(jumped, taken, "blocks have a figure")


def test_of_several_rails_the_one_that_delivers_most_comes_first() -> None:
    taken = blocks()
    large, small = (
        rail("power", taken),
        spoilt(rail("power", taken), lambda place, value: None if value is None else value / 4, name="VDD_GPU"),
    )
    both = Watched(times_s=large.times_s, channels=(*small.channels, *large.channels))
    found, _ = energies(both, taken, 0)
    assert [one.rail for one in found] == ["VDD_IN", "VDD_GPU"]
    assert isinstance(found[0], Energy)
    assert found[1].millijoules == pytest.approx(RIGHT[0] / 4, rel=0.01)
