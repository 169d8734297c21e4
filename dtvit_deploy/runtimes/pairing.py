"""What is measured: an artefact in a runtime. Which runtime that is, is decided here, once for each command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes.base import Runtime, Session, SessionOptions
from dtvit_deploy.runtimes.registry import ALSO, BY_FORMAT, RUNTIMES, of_artefacts, runtime_for


@dataclass(frozen=True)
class Pairing:
    """An artefact and the runtime that it is loaded in.

    Attributes:
        asked: whether the user named the runtime. Names then say it, so that they are the same beside whatever else is asked for.
        device: where it runs; empty for this machine.
    """

    artifact: Artifact
    runtime: Runtime
    asked: bool = False
    device: str = ""

    @property
    def where(self) -> str:
        """What follows a name: `` in coreml-ne`` where the runtime was asked for, `` on orin``; empty where it is the best one here."""
        if self.asked:
            return f" in {self.runtime.name}"
        return f" on {self.device}" if self.device else ""

    @property
    def name(self) -> str:
        return f"{self.artifact.name}{self.where}"

    @property
    def key(self) -> tuple[str, str]:
        """What no other pairing has, whatever its files are called."""
        return str(self.artifact.path), self.runtime.name

    @property
    def emulated(self) -> bool:
        """Whether what answers is not the artefact's own runtime, so that its time would be another's."""
        return self.runtime.rung in (Rung.EMULATED, Rung.EMULATED_PROCESSOR)

    def open(self, options: SessionOptions) -> Session:
        return self.runtime.load(self.artifact, options)


def pairings(artifacts: Sequence[Artifact], asked: Sequence[str] = (), *, timed: bool = False) -> tuple[Pairing, ...]:
    """Every artefact in each of the runtimes that were asked for and load its format, or else in the best one that is usable here.

    Args:
        artifacts: to be loaded.
        asked: names of runtimes.
        timed: whether nothing but a latency is wanted, for which nobody is sent to an emulation.

    Raises:
        InputError: no runtime is called so, or it loads none of the artefacts.
        MissingError: it cannot be used here.
    """
    asked = tuple(dict.fromkeys(asked))
    formats = tuple(dict.fromkeys(artifact.manifest.format for artifact in artifacts))
    known = tuple(dict.fromkeys(name for one in formats for name in loading(one)))
    for name in asked:
        if name not in RUNTIMES:
            raise InputError(f"no runtime is called {name!r}", remedy=f"runtimes: {', '.join(of_artefacts())}")
        if name not in known:
            raise InputError(
                f"the runtime {name} loads none of {', '.join(artifact.name for artifact in artifacts)}",
                remedy=f"runtimes that load {' and '.join(formats)}: {', '.join(known) or 'none'}",
            )
    found = []
    for artifact in artifacts:
        named = [name for name in asked if name in loading(artifact.manifest.format)]
        found += [Pairing(artifact, require_usable(name, artifact, timed=timed), asked=True) for name in named] or [
            Pairing(artifact, runtime_for(artifact))
        ]
    return tuple(found)


def loading(format: str) -> tuple[str, ...]:  # noqa: A002 - the manifest's word
    """Names of all runtimes that load a format, the best first, and those after them that are taken where they are asked for."""
    return (*BY_FORMAT.get(format, ()), *ALSO.get(format, ()))


def require_usable(name: str, artifact: Artifact | None = None, *, timed: bool = False) -> Runtime:
    """A runtime that was asked for, for any artefact or for one; where it is not here, its emulation is, except for what is ``timed``.

    Raises:
        MissingError: it cannot be used here.
    """
    runtime = RUNTIMES[name]()
    found = runtime.available(artifact)
    if found.version is None:
        what = f"{artifact.name} was asked for in {name}" if artifact else f"the runtime {name} was asked for"
        others = [] if timed else [other for kind, names in BY_FORMAT.items() if name in loading(kind) for other in names]
        instead = [f"compare answers with --runtime {other}, on any machine" for other in dict.fromkeys(others) if _emulates(other)]
        remedy = "; or ".join(filter(None, (found.remedy, *instead)))
        raise MissingError(f"{what}, which is not usable here: {found.missing}", remedy=remedy)
    return runtime


def _emulates(name: str) -> bool:
    try:
        runtime = RUNTIMES[name]()
    except MissingError:
        return False
    return runtime.rung is Rung.EMULATED and runtime.available().version is not None


def looked_into(pairing: Pairing) -> Pairing:
    """The same artefact in the first runtime that offers its inner tensors: its own, or else one of those that its format is loaded in.

    It is the pairing itself where none does.
    """
    if pairing.runtime.tensors(pairing.artifact):
        return pairing
    for name in BY_FORMAT[pairing.artifact.manifest.format]:
        try:
            runtime = RUNTIMES[name]()
        except MissingError:
            continue
        if runtime.available(pairing.artifact).version is not None and runtime.tensors(pairing.artifact):
            return Pairing(pairing.artifact, runtime)
    return pairing
