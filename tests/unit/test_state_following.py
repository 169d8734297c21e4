"""A rail that does not follow the load gives no energy, and says why; one that does gives what is true, whatever its noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtvit_deploy.devices.state import apple
from dtvit_deploy.harness.state.blocks import IDLE, Block
from dtvit_deploy.harness.state.energy import energies
from dtvit_deploy.harness.state.record import POWERMETRICS, Channel, Kind, Watched

IDLE_MW, BUSY_MW, RUNS, SECONDS = 4000.0, 10000.0, 250, 2.5
TRUE = (BUSY_MW - IDLE_MW) * SECONDS / RUNS
"""mJ of an inference."""
BLOCKS = tuple(
    Block(subject=IDLE if place % 2 == 0 else 0, began_s=10 + SECONDS * place, ended_s=10 + SECONDS * (place + 1), runs=RUNS * (place % 2))
    for place in range(11)
)
STEP = 0.001
FINE = np.arange(0.0, 40.0, STEP)


def block_of(at: float) -> Block | None:
    return next((one for one in BLOCKS if one.began_s <= at < one.ended_s), None)


POWER = np.array([BUSY_MW if (one := block_of(at)) is not None and one.subject != IDLE else IDLE_MW for at in FINE])


def readings(phase: float = 0.003) -> np.ndarray:
    return np.arange(phase, 39.9, 0.502)


def taken(values: list[float | None], kind: Kind, phase: float = 0.003, source: str = "/rail") -> tuple[list[float], list[str]]:
    limit = 262_143_328_850.0 if kind == "energy" else None
    channel = Channel(name="rail", kind=kind, source=source, limit=limit, values=tuple(values))
    found, why = energies(Watched(times_s=tuple(map(float, readings(phase))), channels=(channel,)), BLOCKS, 0)
    return [one.millijoules for one in found], list(why)


def counter(counts: Callable[[float], bool] = lambda at: True, shows: Callable[[float], bool] = lambda at: True) -> list[float | None]:
    """What is read of a counter that counts, and shows what it counted, at some times alone."""
    total = 1e9 + np.cumsum(np.where([counts(at) for at in FINE], POWER, 0.0))
    shown = np.maximum.accumulate(np.where([shows(at) for at in FINE], total, 1e9))
    return [float(shown[int(at / STEP)]) for at in readings()]


def none_or_true(values: list[float | None], kind: Kind, *reasons: str) -> None:
    """Where no reading fell into the time in which an instrument was wrong, what it tells is right."""
    found, why = taken(values, kind)
    assert found == [] or found[0] == pytest.approx(TRUE, rel=0.03)
    assert found or any(reason in why[0] for reason in reasons)


def within(busy: bool, since: float, until: float) -> Callable[[float], bool]:
    """Whether a moment is so far into a block of one kind."""

    def asleep(at: float) -> bool:
        one = block_of(at)
        return one is not None and (one.subject != IDLE) == busy and since <= at - one.began_s < until

    return asleep


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize(("since", "until"), [(1.4, 2.5), (1.2, 2.2), (1.1, 1.5), (0.9, 1.8), (0.0, 2.5)])
def test_a_counter_that_sleeps_for_a_part_of_a_block_gives_no_energy(busy: bool, since: float, until: float) -> None:
    asleep = within(busy, since, until)
    for values in (counter(counts=lambda at: not asleep(at)), counter(shows=lambda at: not asleep(at))):
        none_or_true(values, "energy", "it stood still between", "it counted unevenly")


@pytest.mark.parametrize("every", [0.3, 0.4, 0.7, 1.0, 1.3, 2.0, 3.0, 5.0])
def test_a_counter_that_counts_more_seldom_than_it_is_read_gives_no_energy(every: float) -> None:
    times = [int(at / every) * every for at in readings()]
    total = 1e9 + np.cumsum(POWER)
    found, (why,) = taken([float(total[int(at / STEP)]) for at in times], "energy")
    assert found == []
    assert "it stood still between" in why or "it counted unevenly" in why


def test_a_counter_that_stands_for_one_reading_says_that_it_may_at_others() -> None:
    values = counter()
    values[30] = values[29]
    found, (why,) = taken(values, "energy")
    assert found == []
    assert "it stood still between 1 of" in why


@pytest.mark.parametrize("every", [1.0, 1.3, 2.0, 2.5, 3.0, 5.0])
@pytest.mark.parametrize("phase", [0.0, 0.4])
def test_a_rail_that_tells_what_it_told_before_gives_no_energy(every: float, phase: float) -> None:
    rng = np.random.default_rng(0)
    updates = POWER * (1 + 0.01 * rng.standard_normal(len(POWER)))
    values = [float(updates[max(0, int((int((at - phase) / every) * every + phase) / STEP))]) for at in readings()]
    none_or_true(values, "power", "it still told what it had told before")  # it may have told it as late as it does, and be right


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("seconds", [1.0, 1.5, 2.0, 3.0, 4.0])
def test_a_rail_that_tells_its_mean_of_seconds_gives_no_energy(seconds: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    sums = np.concatenate([[0.0], np.cumsum(POWER)])
    ends = [int(at / STEP) for at in readings()]
    means = [(sums[end] - sums[max(0, end - int(seconds / STEP))]) / max(1, min(end, int(seconds / STEP))) for end in ends]
    found, (why,) = taken([float(mean * (1 + noise * rng.standard_normal())) for mean in means], "power")
    assert found == []
    reasons = [
        "of a change between busy and idle shows only after",
        "it still told what it had told before",
        "cannot be told from the idle",
    ]
    assert any(reason in why for reason in reasons)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_a_rail_that_follows_has_its_energy_whatever_its_noise(noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [float(POWER[int(at / STEP)] * (1 + noise * rng.standard_normal())) for at in readings()]
    (found,), why = taken(values, "power")  # type: ignore[arg-type]
    assert why == []
    assert found == pytest.approx(TRUE, rel=0.02 + noise)
    (counted,), _ = taken(counter(), "energy")
    assert counted == pytest.approx(TRUE, rel=0.01)


def test_a_device_that_takes_more_for_a_while_after_work_has_its_energy() -> None:
    """Clocks that stay up after the work are the device's own: what comes late only downwards is no instrument's."""
    values: list[float | None] = []
    for at in readings():
        one = block_of(at)
        after = one is not None and one.subject == IDLE and one.began_s > 11 and at - one.began_s < 1.2
        values.append(float(POWER[int(at / STEP)]) + (1500.0 if after else 0.0))
    found, why = taken(values, "power")
    assert (len(found), why) == (1, [])


@pytest.mark.parametrize("every", [5, 7])
def test_a_rail_that_says_0_once_in_a_while_is_asleep_then(every: int) -> None:
    values: list[float | None] = [0.0 if place % every == 3 else float(POWER[int(at / STEP)]) for place, at in enumerate(readings())]
    found, why = taken(values, "power")
    assert found == [] or found[0] == pytest.approx(TRUE, rel=0.01)
    assert found or "it said 0 between other readings" in why[0]


def test_a_rail_that_is_switched_off_while_the_device_is_idle_is_at_0_then() -> None:
    values: list[float | None] = [0.0 if POWER[int(at / STEP)] == IDLE_MW else 6000.0 for at in readings()]
    (found,), _ = taken(values, "power")
    assert found == pytest.approx(TRUE, rel=0.01)


def samples(interval: float, phase: float) -> str:
    """What powermetrics tells until the end: a sample is told when it has been taken."""
    sums, told = np.concatenate([[0.0], np.cumsum(POWER)]), ""
    for number in range(1, int((39.9 - phase) / interval)):
        one, other = (int((phase + interval * which) / STEP) for which in (number - 1, number))
        told += f"*** Sampled system activity (Mon Nov 30 10:21:33 2026 +0100) ({interval * 1e3:.2f}ms elapsed) ***\n\n"
        told += f"Combined Power (CPU + GPU + ANE): {(sums[other] - sums[one]) / (other - one):.0f} mW\n\n"
    return told


@pytest.mark.parametrize("phase", [0.01, 0.06, 0.11, 0.16])
@pytest.mark.parametrize("interval", [0.2, 0.25, 0.29])
def test_powermetrics_tells_the_energy_that_is_true(interval: float, phase: float) -> None:
    """It is read as a watcher does: at each reading, the newest sample that is known to be whole."""
    whole = samples(interval, phase)
    starts = [place for place in range(len(whole)) if whole.startswith("*** ", place)]
    values: list[float | None] = []
    for at in readings():
        said = int((at - phase) / interval)  # samples that have been taken, each told at its end
        reports, _ = apple.whole_samples(whole[: starts[min(said, len(starts) - 1)]])
        values.append(apple.metrics(reports[-1]).get("Combined power") if reports else None)
    (found,), why = taken(values, "power", source=POWERMETRICS)
    assert why == []
    assert found == pytest.approx(TRUE, rel=0.01)
