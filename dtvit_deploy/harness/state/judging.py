"""What a device's state says of a measurement that was taken in it.

A device that held itself back, or that nobody watched, was another device than the one that a figure is said to be of. A clock that went
down while nothing was to be done is no such thing.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from dtvit_deploy.harness.state.record import NOT_WATCHED, Channel, Watched

LONGEST_SILENCE, SHORTEST_SILENCE, SILENT_SHARE = 5.0, 2.0, 1 / 3
"""Seconds between two readings, beyond which nobody can say what went on: a third of sampling, between two bounds. Readings are half a
second apart, and a machine at work is late."""
CLOCK_FALL = 0.10
"""Change of a clock's median within a measurement that is worth a word."""
SETTINGS = (
    *("governor", "clock driver", "clock bounds", "energy preference", "turbo", "power mode", "jetson_clocks", "low power mode"),
    *("power source", "cores allowed", "memory limit", "GPU power limit", "GPU persistence"),
)
"""Facts that somebody sets: a device on which one of them changed in between is two devices."""

UNLIMITED = {"cores allowed": "all", "memory limit": "none"}
"""What holds where a device tells of itself, and of these nothing: they are told where there are any."""


def settings(watched: Watched) -> dict[str, str]:
    """What somebody had set before a measurement; empty where the device told nothing of itself."""
    known = UNLIMITED | {name: said for name, said in watched.before.items() if said}
    return {name: known[name] for name in SETTINGS if name in known} if watched.before else {}


def spoilt(watched: Watched) -> list[str]:
    """Why a measurement is INVALID by the state of its device, each with its figures; empty where it is not."""
    unwatched = _unwatched(watched)
    found = [f"watcher: {why}" for why in unwatched or _silent(watched)]
    for channel in watched.channels:
        found += held_back(watched, channel)
    both = [(name, watched.before[name], watched.after[name]) for name in SETTINGS if watched.before.get(name) and watched.after.get(name)]
    return found + [f"settings: {name} was {before} and became {after}" for name, before, after in both if before != after]


def slowed(watched: Watched) -> list[str]:
    """Clocks that fell while samples were taken: the reason where the samples changed, too; else nothing that shows in them."""
    found = []
    for channel in watched.channels:
        values = [value for _, value in watched.during(channel)]
        third = len(values) // 3
        if channel.kind != "clock" or not third:
            continue
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        if last < (1 - CLOCK_FALL) * first:
            found.append(f"{channel.name} went {last / first - 1:+.0%}, {first:.0f} → {last:.0f} MHz")
    return found


def remarks(watched: Watched) -> list[str]:
    """What a reader of the figures must know of the device even where they are VALID."""
    found = [f"not watched: {watched.before[NOT_WATCHED]}"] if NOT_WATCHED in watched.before else []
    found += contended(watched)
    for channel in watched.channels:
        rise = watched.rise(channel)
        if channel.kind == "events" and rise and not channel.harm:
            found.append(f"{channel.name}: {rise:.0f} while sampling")
        elif channel.kind == "flag" and channel.limit is not None and not channel.harm:
            on = [value > channel.limit for _, value in watched.during(channel)]
            found += [f"{channel.name} in {sum(on)} of {len(on)} readings while sampling"] if any(on) else []
    return found


def contended(watched: Watched) -> list[str]:
    """What others had of the machine meanwhile: samples that are steady may all be slow."""
    lasted, found = watched.sampled_s, []
    for channel in watched.channels:
        rise = watched.rise(channel)
        if channel.kind == "seconds" and rise is not None and channel.limit is not None and rise > channel.limit * lasted:
            found.append(f"{channel.name}: {rise:.2f} s in {lasted:.1f} s of sampling")
    return found


def _unwatched(watched: Watched) -> list[str]:
    if watched.failure:
        return [watched.failure]
    if not watched.times_s:
        return ["it read nothing"]
    longest, since = _longest_gap(watched, watched.times_s)
    return [f"it read nothing for {longest:.1f} s from {since:.1f} s on"] if longest > _allowed(watched) else []


def _silent(watched: Watched) -> list[str]:
    """Channels that judge, and did not answer for so long that they could not, though they had answered before.

    What is asked more seldom than the others may be silent for as long as it usually is, twice. A sensor with a trip point that never
    answered is of a unit that sleeps; a counter or a flag is only watched because it answered.
    """
    found: dict[tuple[str, float, float], list[str]] = {}
    for channel in watched.channels:
        answered = [at for at, value in zip(watched.times_s, channel.values, strict=False) if value is not None]
        before = [at for at in answered if at <= watched.sampled_s]
        if not channel.judges or not (before or channel.harm):
            continue
        usual = statistics.median(later - earlier for earlier, later in itertools.pairwise(answered)) if len(answered) > 1 else 0.0
        longest, since = _longest_gap(watched, answered or watched.times_s[:1])
        if longest > min(LONGEST_SILENCE, max(_allowed(watched), 2 * usual)):
            found.setdefault((channel.source, longest, since), []).append(channel.name)
    return [
        f"{name}{f' and {len(others)} others' if others else ''} did not answer for {longest:.1f} s from {since:.1f} s on ({source})"
        for (source, longest, since), (name, *others) in found.items()
    ]


def _allowed(watched: Watched) -> float:
    return min(LONGEST_SILENCE, max(SHORTEST_SILENCE, SILENT_SHARE * watched.sampled_s))


def _longest_gap(watched: Watched, times: Sequence[float]) -> tuple[float, float]:
    """Seconds of the longest time between readings, and when it began, from the last before sampling to the end of sampling."""
    known = sorted(times)
    last = max((at for at in known if at < 0), default=None)
    points = [*([0.0] if last is None else [last]), *(at for at in known if 0 <= at < watched.sampled_s), watched.sampled_s]
    return max(((later - earlier, earlier) for earlier, later in itertools.pairwise(points)), default=(0.0, 0.0))


def held_back(watched: Watched, channel: Channel) -> list[str]:
    """Why a channel says that the device held itself back while samples were taken; empty where it does not."""
    values = watched.around(channel)
    if channel.kind == "temperature" and channel.limit is not None:
        beyond = [(at, value) for at, value in values if value >= channel.limit]
        if beyond:
            at, _ = beyond[0]
            return [
                (
                    f"temperature: {channel.name} reached {max(value for _, value in beyond):.1f} °C {_when(at)}, and from"
                    f" {channel.limit:.1f} °C on the device holds itself back ({channel.source})"
                )
            ]
    if not channel.harm:
        return []
    if channel.kind == "flag":
        on = [at for at, value in values if value > 0]
        return [f"throttled: {channel.name} {_when(on[0])} ({channel.source})"] if on else []
    if channel.kind == "events" and (rise := watched.rise(channel)):
        return [f"throttled: {channel.name} counted {rise:.0f} while samples were taken ({channel.source})"]
    return []


def _when(at: float) -> str:
    return "before sampling began" if at < 0 else f"{at:.1f} s into sampling"
