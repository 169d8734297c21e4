"""The two protocols behind which every runtime stands.

Protocols and not base classes: a runtime is a module-sized thing with nothing to share but its shape, and the fake that tests use
is then as good as any other. What every session must do (check feeds, report non-finite weights) is checked by the caller, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.harness.energies import Sums
    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.harness.roofline import Peaks
    from dtvit_deploy.runtimes.compute_plan import ComputePlan
    from dtvit_deploy.runtimes.layer_times import Told

ASKED_FOR = "emulation was asked for"
"""Why an artefact is emulated where nothing keeps its own runtime from loading it."""


class MissingOperatorError(InputError):
    """An artefact has operators that a runtime does not know.

    Args:
        opset: where those operators are defined.
        variables: by operator, the name of what the first of each makes, which is its node's where it has one.
        nodes: of the exported program, where it is at hand: the torch modules are then named too.
    """

    def __init__(self, opset: str, variables: Mapping[str, str], nodes: NodeMap | None = None) -> None:
        def place(name: str) -> str:
            return f"{name} in {nodes.module_of(name)}" if nodes and nodes.get(name) else name

        listed = "; ".join(f"{operator} (first for {place(name)})" for operator, name in variables.items())
        super().__init__(
            f"the program needs operators of {opset} that are not evaluated here: {listed}",
            remedy="write that part of the network with other operators, or run the package on macOS",
        )
        self.opset, self.variables = opset, dict(variables)

    def within(self, nodes: NodeMap) -> MissingOperatorError:
        """The same, with the torch modules."""
        return MissingOperatorError(self.opset, self.variables, nodes)


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a session runs.

    Attributes:
        threads: compute threads of one inference; recorded with every figure.
        taps: names of inner tensors to return beside the outputs (by their exported program's node name).
        cache: folder in which a runtime that compiles at load may keep what it compiled, for a later load; empty for none.
        cuda_graph: on a GPU, all kernels of one inference are launched at once where they can be; the conditions say whether they were.
    """

    threads: int = 1
    taps: tuple[str, ...] = ()
    cuda_graph: bool = True
    cache: str = ""


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a runtime can be used here: its version, or why not and how to get it."""

    version: str | None
    missing: str = ""
    remedy: str = ""


class Session(Protocol):
    """A loaded artefact that runs feeds. Use it as a context manager; leaving it frees what it holds."""

    @property
    def signature(self) -> Signature: ...

    @property
    def conditions(self) -> dict[str, str]:
        """What a figure from this session must carry: runtime, version, threads, precision really used."""
        ...

    def run(self, feeds: Feeds) -> Outputs:
        """Run once. Feeds fit the signature (the caller has checked); outputs, then taps, come back by name."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class DeviceTimed(Protocol):
    """A session whose network runs on a device with a clock of its own; what that clock measures, its conditions say."""

    @property
    def device_ms(self) -> float:
        """Milliseconds that the last run took there."""
        ...


@runtime_checkable
class OnDevice(DeviceTimed, Protocol):
    """A session on another machine, the way to which takes longer than the network does: no figure of this machine's clock is of use."""

    @property
    def load_ms(self) -> float:
        """Milliseconds that loading took there."""
        ...

    @property
    def first_ms(self) -> float:
        """Milliseconds that the first run took there."""
        ...


@runtime_checkable
class Profiled(Protocol):
    """A runtime that tells how long each layer takes that it executes."""

    def layer_times(self, artifact: Artifact, feed: Feeds, threads: int) -> Told | None:
        """Profile some inferences of an artefact, in a session of its own; None where it does not tell after all.

        Raises:
            InputError: the runtime refuses the artefact.
        """
        ...


@runtime_checkable
class Planned(Protocol):
    """A session whose runtime tells which of several units it means to run each operation on."""

    def compute_plan(self) -> ComputePlan:
        """Which unit each operation is meant for.

        Raises:
            MissingError: the system does not tell.
            InputError: it refuses to.
        """
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """A runtime on a device, which has answered and measured already; its inner tensors stay there, and their sums come back."""

    @property
    def measurement(self) -> Measurement | None:
        """How long the artefact takes there; None where nobody asked, or no time of it counts."""
        ...

    @property
    def adds_in_half(self) -> bool:
        """Whether products of FP16 are added in FP16 there."""
        ...

    def sums(
        self,
        artifact: Artifact,
        taps: Sequence[str],
        feeds: Iterable[Feeds],
        references: Sequence[tuple[Outputs, Outputs, Outputs]],
        nodes: NodeMap,
        threads: int,
    ) -> tuple[Sums, int]:
        """Energies of tensors by node name (`dtvit_deploy.harness.energies`), and over how many feeds.

        Args:
            references: for each feed the tensors of torch FP32, of the ideal, and of the exact evaluation.
            nodes: of the program.
        """
        ...

    @property
    def kept_as(self) -> str:
        """By what the device's peaks are kept; empty where they came with its answers."""
        ...

    def peaks(self, threads: int) -> Peaks:
        """What the device can do with so many threads, measured there."""
        ...


class Runtime(Protocol):
    """Something that can load artefacts of some formats."""

    @property
    def name(self) -> str: ...

    @property
    def rung(self) -> Rung:
        """The rung that a figure from this runtime reaches on this machine."""
        ...

    def available(self, artifact: Artifact | None = None) -> Availability:
        """Whether it can be used here; given an artefact, whether it can be used for that one."""
        ...

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """Names of the inner floating-point tensors that a session can tap, in the order of execution."""
        ...

    def load(self, artifact: Artifact, options: SessionOptions) -> Session:
        """Load an artefact whose hash the caller has checked.

        Raises:
            InputError: the runtime refuses the artefact.
            MissingError: the runtime is not installed.
        """
        ...
