"""The figures of a device that came by a file, put into the report that is there: one table, whoever measured when."""

from __future__ import annotations

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.verdict import Gate, verdict
from dtvit_deploy.report.schema import Report, Subject

_ELSEWHERE = "choose another folder by --out"


def merged(before: Report, brought: Report, device: str) -> Report:
    """The report with one device's figures in the place of those that it had of that device, and all others as they were.

    Args:
        before: the report that is there.
        brought: of the device alone, beside the reference.
        device: its name; its subjects are called ``… on NAME``, and its gates, notes and facts begin with ``on NAME``.

    Raises:
        InputError: they are of two programs, or were fed with different samples, so that their figures do not belong side by side.
    """
    if (before.model, before.lineage) != (brought.model, brought.lineage):
        raise InputError(
            f"the report that is there is of {before.model} and another program than what was brought back, of {brought.model}",
            remedy=_ELSEWHERE,
        )
    if not _same_samples(before.data, brought.data):
        raise InputError(
            f"the report that is there is about {_samples(before)}, and what was brought back about {_samples(brought)}",
            remedy=_ELSEWHERE,
        )
    of_device = f" on {device}"
    kept = [one for one in before.subjects if not one.name.endswith(of_device)]
    there = {(one.name, one.file, one.sha256) for one in kept}  # what was forecast of ARM64 here, say, is the same in both
    new = [one for one in brought.subjects if one.file and (one.name, one.file, one.sha256) not in there]
    subjects = [*_references(kept, brought), *(one for one in kept if one.file), *new]
    of_all = [gate for gate in _gates_of_all(before) if not gate.name.startswith((f"on {device}: ", f"{device}: "))]
    of_all += _gates_of_all(brought)
    gates = [gate for subject in subjects if subject.verdict is not None for gate in subject.verdict.gates] + of_all
    shipped = {one.runtime for one in brought.recommendations}
    return msgspec.structs.replace(
        before,
        created=brought.created,
        data=_without(before.data, device) | _beside(before.data, brought.data, device),
        device={key: value for key, value in before.device.items() if not _is_of(key, device)} | _of(brought.device, device),
        versions=_without(before.versions, device) | _beside(before.versions, brought.versions, device),
        subjects=tuple(subjects),
        notes=tuple(dict.fromkeys([*(note for note in before.notes if not note.startswith(f"on {device}: ")), *brought.notes])),
        recommendations=(
            *(one for one in before.recommendations if one.runtime not in shipped and not one.runtime.endswith(of_device)),
            *brought.recommendations,
        ),
        verdict=verdict(gates) if gates else None,
    )


def _samples(report: Report) -> str:
    return f"{report.data.get('samples', '?')} of {report.data.get('source', 'an unknown source')}"


def _same_samples(one: dict[str, str], other: dict[str, str]) -> bool:
    """By the images' digest, where there is one: a folder may have moved meanwhile."""
    named = ("samples", "preprocessing", "digest" if "digest" in one or "digest" in other else "source")
    return all(one.get(name) == other.get(name) for name in named)


def _references(kept: list[Subject], brought: Report) -> list[Subject]:
    """The reference, with whatever figure of it was not taken before."""
    mine, theirs = ([one for one in subjects if not one.file] for subjects in (kept, brought.subjects))
    if not mine:
        return theirs
    lacking = {name: getattr(theirs[0], name) for name in ("accuracy", "latency") if theirs and getattr(mine[0], name) is None}
    return [msgspec.structs.replace(mine[0], **lacking), *mine[1:]]


def _gates_of_all(report: Report) -> list[Gate]:
    """Gates that are no subject's."""
    mine = {gate for subject in report.subjects if subject.verdict is not None for gate in subject.verdict.gates}
    return [gate for gate in report.verdict.gates if gate not in mine] if report.verdict is not None else []


def _beside(before: dict[str, str], brought: dict[str, str], device: str) -> dict[str, str]:
    """Facts that are new; one that is another than it was is told as the device's."""
    told = {name: value for name, value in brought.items() if name not in before and not _is_of(name, device)}
    return told | {f"{name} on {device}": value for name, value in brought.items() if before.get(name, value) != value and name != "source"}


def _without(facts: dict[str, str], device: str) -> dict[str, str]:
    """Facts without what an earlier import told of the device."""
    return {key: value for key, value in facts.items() if not key.endswith(f" on {device}")}


def _is_of(key: str, device: str) -> bool:
    return key == f"on {device}" or key.startswith(f"on {device} ")


def _of(facts: dict[str, str], device: str) -> dict[str, str]:
    return {key: value for key, value in facts.items() if _is_of(key, device)}
