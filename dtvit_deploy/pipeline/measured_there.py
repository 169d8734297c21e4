"""What was measured on a device before, as a report takes it: figures, of which artefacts and in which runtimes, without the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.figures import Measured
from dtvit_deploy.remote.there import There
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.pairing import Pairing


@dataclass(frozen=True)
class Group:
    """Artefacts that were measured together on one machine.

    Attributes:
        measured: their figures, in the order of the pairings.
    """

    pairings: tuple[Pairing, ...]
    measured: Measured


@dataclass(frozen=True)
class Remembered:
    """A runtime that has answered before, on a device that nobody reaches now: it loads nothing."""

    name: str
    rung: Rung
    may_add_in_half: bool
    """Whether products of FP16 were taken to be added in FP16 only as nothing says otherwise."""

    def available(self, artifact: Artifact | None = None) -> Availability:
        return Availability(version=None, missing="its device is not reached", remedy="measure there again")

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return ()

    def load(self, artifact: Artifact, options: SessionOptions) -> NoReturn:
        raise RuntimeError(f"{self.name} is only remembered")  # a defect: reports open no session


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """A pairing as it is kept.

    Attributes:
        file, sha256: name and digest of the artefact; of two files of a run the bytes may be equal, and the names are not.
        runtime: with the device's name: ``onnxruntime on orin``.
        asked: whether the user named the runtime.
        unsure: as `Remembered.may_add_in_half`.
    """

    file: str
    sha256: str
    runtime: str
    rung: Rung
    asked: bool
    unsure: bool = False

    @classmethod
    def of(cls, one: Pairing) -> Paired:
        artifact, runtime = one.artifact, one.runtime
        unsure = isinstance(runtime, There) and runtime.may_add_in_half
        digest = artifact.manifest.sha256
        return cls(file=artifact.name, sha256=digest, runtime=runtime.name, rung=runtime.rung, asked=one.asked, unsure=unsure)

    @property
    def artifact(self) -> tuple[str, str]:
        return self.file, self.sha256


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one device, as they are kept. Nothing in it is executed.

    Attributes:
        device: its name.
        measured: figures of the pairings, in their order.
    """

    device: str
    pairings: tuple[Paired, ...]
    measured: Measured

    @classmethod
    def of(cls, device: str, pairings: Sequence[Pairing], measured: Measured) -> Kept:
        return cls(device=device, pairings=tuple(map(Paired.of, pairings)), measured=measured)


def remembered(kept: Sequence[Kept], artifacts: Sequence[Artifact]) -> Group:
    """What several stages have measured of the same artefacts on one device; where two say the same, the first counts.

    Raises:
        InputError: they are of other artefacts, or were taken in other runtimes.
    """
    first, known = kept[0], {(artifact.name, artifact.manifest.sha256): artifact for artifact in artifacts}
    if any(one.pairings != first.pairings for one in kept) or any(one.artifact not in known for one in first.pairings):
        raise InputError(f"what was measured on {first.device} is of other artefacts, or of other runtimes", remedy="run it again")
    measured = Measured()
    for one in reversed(kept):
        measured = measured.with_(one.measured)
    pairings = (
        Pairing(known[one.artifact], Remembered(one.runtime, one.rung, one.unsure), asked=one.asked, device=first.device)
        for one in first.pairings
    )
    return Group(tuple(pairings), measured)
