"""What comes before the first steady inference, stage by stage, each with its memory, in several processes that begin anew."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Mebibytes, Milliseconds


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one process.

    Attributes:
        load_ms: from the file to a session, this project's own look at the file included, the import of the runtime not.
        first_ms: the first inference, on zeros, or on black where pictures are taken.
        load_mib, first_mib, steady_mib: greatest resident memory of the process while it loaded, in the first inference and in those
            after it, the interpreter and the runtime's code included; None where the system does not say.
        apart: whether each of them is of its stage alone; else it is of everything up to then.
    """

    load_ms: Milliseconds
    first_ms: Milliseconds
    load_mib: Mebibytes | None = None
    first_mib: Mebibytes | None = None
    steady_mib: Mebibytes | None = None
    apart: bool = False


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Starts of one artefact.

    Attributes:
        first: each as after a boot: its file read anew where the system lets go of it, and nothing kept by the runtime.
        warm: each after another one.
        found: what those found of it.
    """

    first: Annotated[tuple[Start, ...], msgspec.Meta(max_length=1000)] = ()
    warm: Annotated[tuple[Start, ...], msgspec.Meta(max_length=1000)] = ()
    found: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage of a start, once in each of several processes.

    Attributes:
        samples_ms: how long it took in each.
        median_ms, least_ms, most_ms: of those; the range is of all.
        peak_mib: greatest resident memory of a process in this stage, over all of them; None where the system does not say.
    """

    samples_ms: Annotated[tuple[Milliseconds, ...], msgspec.Meta(min_length=1)]
    median_ms: Milliseconds
    least_ms: Milliseconds
    most_ms: Milliseconds
    peak_mib: Mebibytes | None = None

    @classmethod
    def of(cls, samples_ms: Sequence[float], peaks: Sequence[float | None]) -> Stage:
        """A stage of at least one process."""
        return cls(
            samples_ms=tuple(samples_ms),
            median_ms=statistics.median(samples_ms),
            least_ms=min(samples_ms),
            most_ms=max(samples_ms),
            peak_mib=greatest(peaks),
        )


class Starts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stages before steady inference, from processes that do nothing else.

    Attributes:
        first_load: from the file to a session, as after a boot: the file is read anew where the system lets go of it, and compiled, since
            nothing is kept of an earlier load. The import of the runtime is not counted.
        warm_load: the same after an earlier process has loaded it; None where no process was begun for that.
        warm: what that found of the earlier load.
        first_inference: the first run after a first load, on zeros, or on black where pictures are taken.
        steady_peak_mib: greatest resident memory in the runs after that, over all processes; None where the system does not say.
        memory: whether the memory of a stage is of that stage alone, of everything up to its end, or not told. It is all of the process,
            the interpreter and the runtime's code included.
    """

    first_load: Stage
    first_inference: Stage
    warm_load: Stage | None = None
    warm: str = ""
    steady_peak_mib: Mebibytes | None = None
    memory: Literal["of each stage", "up to then", "not told"] = "not told"

    @property
    def peak_mib(self) -> float | None:
        """The greatest of all stages."""
        warm = self.warm_load.peak_mib if self.warm_load is not None else None
        return greatest([self.first_load.peak_mib, self.first_inference.peak_mib, self.steady_peak_mib, warm])


def starts_of(taken: Taken) -> Starts:
    """The stages of starts that were taken, a first one at least."""
    first, warm, every = taken.first, taken.warm, (*taken.first, *taken.warm)
    told = all(one.load_mib is not None for one in every)
    return Starts(
        first_load=Stage.of([one.load_ms for one in first], [one.load_mib for one in first]),
        first_inference=Stage.of([one.first_ms for one in first], [one.first_mib for one in first]),
        warm_load=Stage.of([one.load_ms for one in warm], [one.load_mib for one in warm]) if warm else None,
        warm=taken.found if warm else "",
        steady_peak_mib=greatest([one.steady_mib for one in every]),
        memory="not told" if not told else "of each stage" if all(one.apart for one in every) else "up to then",
    )


def greatest(peaks: Sequence[float | None]) -> float | None:
    """The greatest that is known."""
    return max((one for one in peaks if one is not None), default=None)
