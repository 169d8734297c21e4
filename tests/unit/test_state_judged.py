"""A device that held itself back, or that nobody watched, makes its latency INVALID; one that rests while it may does not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, stated, summarise
from dtvit_deploy.harness.state.blocks import Block
from dtvit_deploy.harness.state.carried import state_arrays, state_of
from dtvit_deploy.harness.state.judging import spoilt
from dtvit_deploy.harness.state.record import Channel, Kind, Watched

LASTED = 60.0
TIMES = tuple(float(at) for at in np.arange(-3.0, LASTED + 3.5, 0.5))
"""Of readings: three seconds before sampling, and three after it."""


def latency(slower_from: float = 1e9, factor: float = 1.0, seed: int = 0) -> Measurement:
    """A thousand samples over a minute, that take longer from some second on."""
    rng = np.random.default_rng(seed)
    stamps = np.linspace(0, LASTED - 0.1, 1000)
    samples = 10 * rng.lognormal(sigma=0.02, size=1000) * np.where(stamps < slower_from, 1.0, factor)
    warmup = Warmup(runs=20, seconds=0.3, change=0.01, first_ms=12.0)
    return summarise(samples.tolist(), stamps.tolist(), MeasureOptions(), warmup=warmup)


def channel(
    kind: Kind, values: dict[float, float | None], start: float | None, *, harm: bool = False, limit: float | None = None
) -> Channel:
    """A series that begins with a value and takes others from moments on."""
    series = []
    for at in TIMES:
        now = [value for since, value in values.items() if since <= at]
        series.append(now[-1] if now else start)
    return Channel(name=f"a {kind}", kind=kind, source="/there", harm=harm, limit=limit, values=tuple(series))


def watched(*channels: Channel, **others: object) -> Watched:
    return Watched(**{"times_s": TIMES, "sampled_s": LASTED, "channels": channels, **others})  # type: ignore[arg-type]


def test_a_device_of_which_nothing_ill_was_seen_leaves_a_measurement_as_it_is() -> None:
    fine = watched(channel("temperature", {}, 50.0, limit=99.0), channel("clock", {}, 2000.0), channel("events", {}, 7.0, harm=True))
    found = stated(latency(), fine)
    assert (found.status, found.reasons, found.notes) == ("VALID", (), latency().notes)
    assert found.state == fine


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (channel("events", {20.0: 9.0}, 7.0, harm=True), "throttled: a events counted 2 while samples were taken (/there)"),
        (channel("events", {20.0: 0.0, 30.0: 1.0}, 7.0, harm=True), "throttled: a events counted 1 while samples were taken (/there)"),
        (channel("flag", {20.0: 1.0, 21.0: 0.0}, 0.0, harm=True), "throttled: a flag 20.0 s into sampling (/there)"),
        (channel("flag", {}, 1.0, harm=True), "throttled: a flag 0.0 s into sampling (/there)"),
        (
            channel("temperature", {40.0: 99.5}, 80.0, limit=99.0),
            "temperature: a temperature reached 99.5 °C 40.0 s into sampling, and from 99.0 °C on the device holds itself back (/there)",
        ),
    ],
)
def test_a_device_that_held_itself_back_makes_it_invalid(one: Channel, reason: str) -> None:
    found = stated(latency(), watched(one))
    assert (found.status, found.reasons) == ("INVALID", (reason,))


@pytest.mark.parametrize(
    "one",
    [
        channel("events", {-1.0: 9.0}, 7.0, harm=True),  # before sampling
        channel("events", {61.0: 9.0}, 7.0, harm=True),  # after it
        channel("flag", {-2.0: 0.0}, 1.0, harm=True),
        channel("flag", {62.0: 1.0}, 0.0, harm=True),
        channel("flag", {20.0: None, 24.0: 0.0}, 0.0, harm=True),  # it did not answer for a moment
        channel("temperature", {}, 99.5),  # nothing says where this one's limit is
        channel("temperature", {20.0: None}, 50.0),  # of a unit that sleeps, and by which nothing is judged
        channel("temperature", {}, None, limit=99.0),  # it slept all the time
        channel("clock", {20.0: None}, 2000.0),
        channel("clock", {61.0: 400.0}, 2000.0),  # it rests when there is nothing to do
        channel("clock", {0.0: 2000.0, 60.5: 400.0}, 400.0),
    ],
)
def test_what_happens_before_and_after_and_what_does_not_answer_leaves_it_valid(one: Channel) -> None:
    assert stated(latency(), watched(one)).status == "VALID"


def test_a_device_that_becomes_hot_after_twenty_seconds_is_invalid_and_its_clock_is_named() -> None:
    hot = watched(channel("clock", {20.0: 1400.0}, 2000.0), channel("temperature", {20.0: 88.0}, 70.0, limit=99.0))
    found = stated(latency(20.0, 1 / 0.7), hot)
    assert found.status == "INVALID"
    assert [reason.partition(":")[0] for reason in found.reasons] == ["drift", "spread", "clock"]
    assert found.reasons[2] == "clock: a clock went -30%, 2000 → 1400 MHz, as the samples became slower or faster"


def test_a_clock_that_falls_without_a_trace_in_the_samples_is_a_note() -> None:
    found = stated(latency(), watched(channel("clock", {20.0: 1400.0}, 2000.0)))  # that of cores which do not work, say
    assert found.status == "VALID"
    assert found.notes == (*latency().notes, "a clock went -30%, 2000 → 1400 MHz while sampling, which does not show in the samples")


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"failure": "it was ended by SIGKILL after a reading 3.2 s into 60.0 s of sampling"}, "watcher: it was ended by SIGKILL"),
        ({"times_s": (), "channels": ()}, "watcher: it read nothing"),
        ({"times_s": tuple(at for at in TIMES if at < 30)}, "watcher: it read nothing for 30.5 s from 29.5 s on"),
        ({"times_s": tuple(at for at in TIMES if not 10 < at < 16)}, "watcher: it read nothing for 6.0 s from 10.0 s on"),
        ({"times_s": tuple(at for at in TIMES if at < 0)}, "watcher: it read nothing for 60.5 s from -0.5 s on"),
    ],
)
def test_what_nobody_watched_is_invalid(others: dict[str, object], reason: str) -> None:
    found = stated(latency(), watched(**others))
    assert found.status == "INVALID"
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("lasted", "silent", "allowed"),
    [(3.0, 1.9, True), (3.0, 2.4, False), (6.0, 1.9, True), (9.0, 2.9, True), (9.0, 3.4, False), (60.0, 4.9, True), (60.0, 5.4, False)],
)
def test_how_long_nobody_may_watch_is_a_share_of_sampling(lasted: float, silent: float, allowed: bool) -> None:
    times = [at / 10 for at in range(-10, int(lasted * 10) + 11)]
    cut = tuple(at for at in times if not 0.5 < at < 0.5 + silent)
    found = spoilt(watched(times_s=cut, sampled_s=lasted))
    assert found == [] if allowed else found[0].startswith("watcher: it read nothing for")


def test_what_is_not_seen_after_sampling_is_nothing() -> None:
    assert spoilt(watched(times_s=(-0.2, 1.0, 2.0, 2.9, 9.0), sampled_s=3.0)) == []


@pytest.mark.parametrize(
    "one",
    [
        channel("flag", {20.0: None}, 0.0, harm=True),
        channel("flag", {20.0: None, 40.0: 0.0}, 0.0, harm=True),
        channel("events", {20.0: None}, 7.0, harm=True),
        channel("flag", {}, None, harm=True),  # it was watched because it answered before
        channel("temperature", {20.0: None}, 94.9, limit=95.0),
        channel("events", {-2.0: None}, 7.0, harm=True),
    ],
)
def test_what_judges_and_falls_silent_makes_it_invalid(one: Channel) -> None:
    (reason,) = stated(latency(), watched(one)).reasons
    assert reason.startswith(f"watcher: a {one.kind} did not answer for ")
    assert reason.endswith("(/there)")


def test_channels_of_one_tool_that_ended_are_one_reason() -> None:
    three = [msgspec.structs.replace(channel("flag", {20.0: None}, 0.0, harm=True), name=f"flag {place}") for place in range(3)]
    assert spoilt(watched(*three)) == ["watcher: flag 0 and 2 others did not answer for 40.5 s from 19.5 s on (/there)"]


@pytest.mark.parametrize("every", [2.0, 2.5])
def test_what_is_asked_more_seldom_may_be_silent_in_between(every: float) -> None:
    for lasted in (3.0, 60.0):
        times = tuple(at for at in TIMES if at <= lasted + 1)
        told = tuple(0.0 if (at + 3.0) % every == 0 or at == times[-1] else None for at in times)
        one = Channel(name="limit", kind="flag", source="a tool", harm=True, values=told)
        assert spoilt(watched(one, times_s=times, sampled_s=lasted)) == []
        dead = Channel(name="limit", kind="flag", source="a tool", harm=True, values=(*told[:8], *[None] * (len(told) - 8)))
        assert len(spoilt(watched(dead, times_s=times, sampled_s=lasted))) == (lasted > 3.0)


@pytest.mark.parametrize("setting", ["governor", "power mode", "turbo", "power source"])
def test_a_device_whose_settings_were_changed_meanwhile_is_invalid(setting: str) -> None:
    found = stated(latency(), watched(before={setting: "one"}, after={setting: "other"}))
    assert (found.status, found.reasons) == ("INVALID", (f"settings: {setting} was one and became other",))
    for before, after in (({setting: "one"}, {}), ({}, {setting: "one"}), ({setting: "one"}, {setting: "one"})):
        assert stated(latency(), watched(before=before, after=after)).status == "VALID"  # who does not say has changed nothing
    moving = {"temperature": "50 °C", "load": "0.5", "clock": "1 to 2 MHz"}
    assert stated(latency(), watched(before=moving, after={name: f"more than {value}" for name, value in moving.items()})).status == "VALID"


def test_time_that_others_took_is_a_note_where_it_is_worth_one() -> None:
    much, own = stated(latency(), watched(channel("seconds", {30.0: 101.0}, 100.0, limit=0.01))), latency().notes
    assert (much.status, much.notes) == ("VALID", (*own, "a seconds: 1.00 s in 60.0 s of sampling"))
    assert stated(latency(), watched(channel("seconds", {30.0: 100.5}, 100.0, limit=0.01))).notes == own
    assert stated(latency(), watched(channel("events", {30.0: 3.0}, 1.0))).notes == (*own, "a events: 2 while sampling")


def test_a_state_travels_whole_and_what_is_none_stays_none() -> None:
    sent = watched(channel("power", {10.0: None, 20.0: 0.0}, 5000.0), before={"governor": "performance"}, after={"governor": "powersave"})
    blocks = (Block(subject=-1, began_s=61.0, ended_s=63.5), Block(subject=0, began_s=63.5, ended_s=66.0, runs=250))
    assert state_of(*state_arrays(sent, blocks)) == (sent, blocks)
    empty = Watched(failure="it could not be started")
    assert state_of(*state_arrays(empty, ())) == (empty, ())


def test_a_state_that_is_none_is_refused() -> None:
    arrays, body = state_arrays(watched(channel("power", {}, 5000.0)), (Block(subject=0, began_s=1.0, ended_s=2.0, runs=3),))
    for name, value in (
        ("times_s", np.nan),
        ("values", np.inf),
        ("values", 1e300),
        ("blocks", np.nan),
        ("blocks", -7.0),
        ("blocks", 1e300),
    ):
        changed = {**arrays, name: np.full_like(arrays[name], value)}
        with pytest.raises(ValueError, match=r"."):
            state_of(changed, body)
    for change in ({"channels": []}, {"times_s": [1.0]}, {"unknown": 1}, {"sampled_s": -1.0}, {"before": [1]}):
        with pytest.raises(ValueError, match=r"."):
            state_of(arrays, {**body, **change})
    assert isinstance(msgspec.convert(body, Watched), Watched)
