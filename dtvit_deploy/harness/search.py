"""Which torch modules to leave in float, so that INT8 costs no accuracy that matters and gains time.

Two figures for each module decide. Its *noise* is what reaches the output when that module alone is INT8: for small errors these add up,
so the sum over a set foretells the set. Its *gain* is how much sooner it is done in INT8. What gains nothing is left in float to begin
with; then, while the accuracy asked for is missed, what costs most noise for each millisecond follows, found by halving, since each trial
takes a build and an evaluation. The answer is a set of modules that a person can read, and every trial is kept: the best of what was
found is there even where the goal is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Natural, Share, unit
from dtvit_deploy.plural import counted

Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Decibels = Annotated[Finite, unit("dB")]
LEAST_GAIN = 0.0005
"""Share of the whole latency that a module must gain to count as gaining; less is what a profile says by chance."""


class ModuleFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What INT8 does in one torch module.

    Attributes:
        module: its path.
        sqnr: dB of signal over noise at the network's output when this module alone is INT8, over all feeds.
        gain_ms: time that its operators and their conversions take in float less that in INT8; None where it was not measured.
    """

    module: str
    sqnr: _Decibels
    gain_ms: Finite | None = None

    @property
    def noise(self) -> float:
        """Power of the noise in units of the signal's."""
        return float(10 ** (-self.sqnr / 10))


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set that was built and evaluated.

    Attributes:
        in_float: the modules that stay in float.
        agreement: share of the feeds on which top-1 is the float network's; None for a network without scores.
        sqnr: dB at the output.
    """

    in_float: tuple[str, ...]
    agreement: Share | None
    sqnr: _Decibels


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found.

    Attributes:
        in_float: the modules that stay in float in the set that is recommended.
        reached: whether that set reaches the goal.
        goal: least agreement, or, for a network without scores, least SQNR in dB.
        samples: feeds that every trial was evaluated on.
        modules: figures of every module, the noisiest first.
        trials: in the order they were made.
        reason: in words.
    """

    in_float: tuple[str, ...]
    reached: bool
    goal: Annotated[Finite, unit("1 (agreement), dB (SQNR)")]
    samples: Natural
    modules: tuple[ModuleFigures, ...]
    trials: tuple[Trial, ...]
    reason: str


def search_modules(
    figures: Iterable[ModuleFigures],
    latency_ms: float | None,
    evaluate: Callable[[tuple[str, ...]], Trial],
    *,
    goal: float,
    samples: int,
    keep: Sequence[str] = (),
) -> Search:
    """Find the smallest set to leave in float.

    Args:
        figures: of every module that can be INT8.
        latency_ms: of the whole network in float, which gains are measured by; None where gains were not measured.
        evaluate: builds the network with these modules in float and evaluates it.
        goal: least agreement; for a network without scores, least SQNR in dB.
        samples: how many feeds ``evaluate`` takes.
        keep: modules that stay in float by the user's wish.
    """
    ranked = sorted(figures, key=lambda one: (one.sqnr, one.module))
    threshold = LEAST_GAIN * latency_ms if latency_ms is not None else 0.0
    idle = {one.module for one in ranked if one.gain_ms is not None and one.gain_ms < threshold}
    base = idle.union(keep)
    # Noise for each millisecond, the dearest first; where gains are unknown, the noisiest.
    costly = sorted(
        (one for one in ranked if one.module not in base), key=lambda one: (-one.noise / max(one.gain_ms or 1.0, 1e-6), one.module)
    )
    trials: list[Trial] = []

    def attempt(count: int) -> bool:
        trials.append(evaluate(tuple(sorted(base | {one.module for one in costly[:count]}))))
        return _reaches(trials[-1], goal)

    least, most = 0, len(costly)  # with `most` in float nothing is left to quantise, which reaches any goal
    if attempt(0):
        most = 0
    while least < most - 1:
        middle = (least + most) // 2
        if attempt(middle):
            most = middle
        else:
            least = middle
    reached = [trial for trial in trials if _reaches(trial, goal)]
    best = min(reached, key=lambda trial: len(trial.in_float)) if reached else max(trials, key=_quality)
    return Search(
        in_float=best.in_float,
        reached=bool(reached),
        goal=goal,
        samples=samples,
        modules=tuple(ranked),
        trials=tuple(trials),
        reason=_reason(best, bool(reached), goal, idle, len({one.module for one in ranked}.union(keep))),
    )


def _quality(trial: Trial) -> tuple[float, float]:
    return (trial.agreement if trial.agreement is not None else 0.0), trial.sqnr


def _reaches(trial: Trial, goal: float) -> bool:
    return (trial.sqnr if trial.agreement is None else trial.agreement) >= goal


def _reason(best: Trial, reached: bool, goal: float, idle: set[str], modules: int) -> str:
    kept = len(best.in_float)
    gained = f"{len(idle)} because INT8 gains no time there" if idle else ""
    noisy = f"{kept - len(idle)} because of what they cost in accuracy or were asked for" if kept > len(idle) else ""
    why = " and ".join(part for part in (gained, noisy) if part)
    figure = f"SQNR {best.sqnr:.1f} dB" if best.agreement is None else f"top-1 agreement {best.agreement:.2%}, SQNR {best.sqnr:.1f} dB"
    wanted = f"{goal:g} dB" if best.agreement is None else f"{goal:.2%}"
    end = "" if reached else f"; the goal of {wanted} was not reached, and this is the best that was found"
    verb = "stays" if kept == modules == 1 else "stay"
    return f"{kept} of {counted(modules, 'module')} {verb} in float{f': {why}' if why else ''} ({figure}){end}"


def readable(modules: Sequence[str], quantisable: Iterable[str]) -> tuple[str, ...]:
    """The same set in fewer words: a parent stands for its modules where all of them are in the set.

    >>> readable(["a.x", "a.y", "b.x"], ["a.x", "a.y", "b.x", "b.y"])
    ('a', 'b.x')
    """
    chosen, every = set(modules), set(quantisable) | set(modules)
    parents = {".".join(parts[:depth]) for path in chosen for parts in [path.split(".")] for depth in range(1, len(parts))}
    whole = {parent for parent in parents if all(path in chosen for path in every if path.startswith(parent + "."))}
    found = chosen | whole
    return tuple(sorted(path for path in found if not any(path.startswith(other + ".") for other in whole)))
