"""The machines that a report's figures come from: which is whose, and how each was before and after what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.remote.told import ABOUT, EMULATED, MOVING
from dtvit_deploy.report.tables import Section, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report, Subject

HERE = "this machine"
_OF_DEVICES = frozenset((*ABOUT, *MOVING, EMULATED))


def devices(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """What each device is, beside this machine; and its state around each measurement. None where all was measured here."""
    facts = facts_of(report)
    if not facts:
        return None
    machines = {HERE: report.device, **facts}
    what = table(
        "What they are",
        (
            words("", machines),
            *(words(key, [one.get(key, "") for one in machines.values()]) for key in (*ABOUT, EMULATED)),
        ),
    )
    around = [(name, kind, found) for name, subject in pairs for kind, found in _states(subject)]
    how = table(
        "How they were, before → after",
        (
            words("", (name for name, _, _ in around)),
            words("while", (kind for _, kind, _ in around)),
            *(words(key, [found.get(key, "") for _, _, found in around]) for key in MOVING),
        ),
    )
    told = f"The reference ran on {HERE}, and everything was judged here; what is named after a device ran there."
    return section("devices", "Devices", (told,), (what, how))


def facts_of(report: Report) -> dict[str, Mapping[str, str]]:
    """What is said of each device that a figure comes from, by its name; empty where all was measured on this machine."""
    found: dict[str, Mapping[str, str]] = {}
    for subject in report.subjects:
        for conditions in (subject.conditions, subject.latency.conditions if subject.latency is not None else {}):
            if name := conditions.get("device", ""):
                found.setdefault(name, conditions)
    return found


def whose(report: Report) -> str:
    """``on PROCESSOR``; with devices, whose processor is whose."""
    here = report.device.get("processor", "an unknown processor")
    facts = facts_of(report)
    if not facts:
        return f"on {here}"
    return "; ".join([f"the reference on {here}", *(f"on {name}: {_processor(one)}" for name, one in facts.items())])


def own(conditions: Mapping[str, str]) -> dict[str, str]:
    """What a session said of itself, without what is said of its device, which has a section of its own."""
    return {name: value for name, value in conditions.items() if "device" not in conditions or name not in _OF_DEVICES}


def _states(subject: Subject) -> list[tuple[str, Mapping[str, str]]]:
    """Around answers, and around a latency that has no state of its own, which would be told with its samples (`device_state`)."""
    said, timed = [("it answered", subject.conditions)], subject.latency
    if timed is not None and not (timed.state and timed.state.before):
        said.append(("its latency was taken", timed.conditions))
    return [(kind, found) for kind, found in said if "device" in found and any(key in found for key in MOVING)]


def _processor(facts: Mapping[str, str]) -> str:
    """The board and the processor, as far as they are told; an emulated one as that."""
    known = [facts[key] for key in ("model", "processor", "architecture") if facts.get(key, "unknown") != "unknown"]
    return ", ".join([*known, *([f"emulated by {facts[EMULATED]}"] if facts.get(EMULATED) else [])]) or "an unknown processor"
