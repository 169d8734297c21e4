"""Gates and the verdict over them: every gate is evaluated, and none passes that was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import unit

NOT_MEASURED = "not measured"
_Figure = Annotated[float, unit("that of the reason")]


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit and what was reached. Made by :func:`at_least`, :func:`at_most`, :func:`enough`, :func:`few_enough` or :func:`holds`.

    Attributes:
        name: which artefact it is about, and what.
        limit: what was asked; None for a gate that is a yes or no.
        reached: what was measured; None when it was not, or for a yes or no.
        passed: whether the limit was kept.
        reason: why it passed or failed, with both figures and their unit.
    """

    name: str
    limit: _Figure | None
    reached: _Figure | None
    passed: bool
    reason: str


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pass or fail of all gates, in the order they were given.

    Attributes:
        passed: whether all did.
        gates: each of them.
        reason: how many failed, and which.
    """

    passed: bool
    gates: tuple[Gate, ...]
    reason: str

    @property
    def failed(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if not gate.passed)


def at_least(name: str, reached: float | None, limit: float, unit: str = "") -> Gate:
    """Passes when ``reached`` ≥ ``limit``; NaN and None do not."""
    passed = reached is not None and float(reached) >= limit
    return _compared(name, reached, limit, passed, "at least", unit)


def at_most(name: str, reached: float | None, limit: float, unit: str = "", *, absent: str = NOT_MEASURED) -> Gate:
    """Passes when ``reached`` ≤ ``limit``; NaN and None do not. ``absent`` says why there is no figure where there is none."""
    passed = reached is not None and float(reached) <= limit
    return _compared(name, reached, limit, passed, "at most", unit, absent)


def enough(name: str, agreeing: int | None, samples: int, share: float, verb: str = "agree") -> Gate:
    """Passes when a share of samples is reached, and says so in samples: of a few dozen, 99 % may well be all.

    Args:
        agreeing: how many of ``samples``; None where that was not counted.
        share: least share of them, 0 to 1.
        verb: what those samples do.
    """
    if agreeing is None:
        return at_least(name, None, share)
    told = f"{agreeing:,} of {samples:,} {_third(verb, agreeing)}; {needed(samples, share):,} needed for {percent(share)}"
    return Gate(name, share, agreeing / samples, agreeing >= needed(samples, share), told)


def few_enough(name: str, lost: int | None, samples: int, share: float, told: str = "") -> Gate:
    """Passes when no more than a share of samples is lost, and says so in samples; less than none is lost where some are won.

    Args:
        lost: how many; None where that was not counted.
        share: greatest share of ``samples``, 0 to 1.
        told: of what, for the reason.
    """
    if lost is None:
        return at_most(name, None, share)
    allowed = samples - needed(samples, 1 - share)
    words = f"{told}: {max(lost, 0):,} of {samples:,} lost; {allowed:,} allowed for {percent(share)}".removeprefix(": ")
    return Gate(name, share, lost / samples, lost <= allowed, words)


def needed(samples: int, share: float) -> int:
    """The fewest of ``samples`` that are at least ``share`` of them; 1.0 - 0.996 and its like are a decimal, and no double beside it."""
    return max(0, math.ceil(round(share * samples, 9)))


def percent(share: float) -> str:
    """``99.8 %``."""
    return f"{share * 100:.6g} %"


def _third(verb: str, count: int) -> str:
    return f"{verb}s" if count == 1 else verb


def holds(name: str, held: bool | None, reason: str) -> Gate:
    """Passes when ``held`` is true; ``reason`` says what was found."""
    return Gate(name, None, None, bool(held), NOT_MEASURED if held is None else reason)


def verdict(gates: Iterable[Gate]) -> Verdict:
    """All gates together. No gate at all is no pass: nothing was promised, so nothing was kept."""
    every = tuple(gates)
    if not every:
        return Verdict(False, (), "no gate was set")
    failed = [gate.name for gate in every if not gate.passed]
    count = f"{len(every)} gate{'s' * (len(every) > 1)}"
    return Verdict(not failed, every, f"{len(failed)} of {count} failed: {', '.join(failed)}" if failed else f"{count} passed")


def _compared(name: str, reached: float | None, limit: float, passed: bool, asked: str, unit: str, absent: str = NOT_MEASURED) -> Gate:
    unit = f" {unit}" if unit else ""
    if reached is None:
        return Gate(name, limit, None, False, f"{absent}; {asked} {limit:.6g}{unit} asked")
    reached = float(reached)  # a numpy scalar has no place in a report
    texts = f"{reached:.6g}", f"{limit:.6g}"
    if texts[0] == texts[1] and not passed:  # "0.998 reached, at least 0.998 asked" would explain nothing
        texts = repr(reached), repr(limit)
    return Gate(name, limit, reached, passed, f"{texts[0]}{unit} reached, {asked} {texts[1]}{unit} asked")
