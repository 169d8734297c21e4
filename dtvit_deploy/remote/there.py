"""A runtime of a device that has answered, and what that can be asked besides: layers of what is wrong, times of layers, peaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtvit_deploy.agent.sessions import PROFILING
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.harness.latency import Measurement
from dtvit_deploy.harness.roofline import Peaks
from dtvit_deploy.remote.adding import adds_in_half, half_of
from dtvit_deploy.remote.asking import offered
from dtvit_deploy.remote.recorded import RecordedRuntime, rung_of
from dtvit_deploy.remote.request import Answering

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.harness.energies import Sums
    from dtvit_deploy.runtimes.layer_times import Told


@dataclass(frozen=True, kw_only=True)
class There(RecordedRuntime):
    """A runtime of a device that has answered, and can be asked for the layers of what is wrong.

    Attributes:
        place: the device.
        measurement: how long the artefact takes there; None where nobody asked, or its processor is emulated.
    """

    place: Answering
    measurement: Measurement | None = None

    @property
    def rung(self) -> Rung:
        """That of an emulated processor where the agent or the probe sees one."""
        return Rung.EMULATED_PROCESSOR if self.place.emulator else rung_of(self.results)

    @property
    def adds_in_half(self) -> bool:
        return adds_in_half(self.results, self._called, self.outcome(self._task()).facts)

    @property
    def may_add_in_half(self) -> bool:
        """Whether that is so only as nothing says otherwise."""
        return self.adds_in_half and self._called == "onnxruntime" and half_of(self.results) is None

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """Inner tensors that can be compared there, in the order of execution."""
        return offered(artifact, self._called)

    def sums(
        self,
        artifact: Artifact,
        taps: Sequence[str],
        feeds: Iterable[Feeds],
        references: Sequence[tuple[Outputs, Outputs, Outputs]],
        nodes: NodeMap,
        threads: int,
    ) -> tuple[Sums, int]:
        """Energies of inner tensors and outputs, those of the artefact taken there."""
        return self.place.sums(artifact, self._called, taps, feeds, references, nodes, threads)

    def layer_times(self, artifact: Artifact, feed: Feeds, threads: int) -> Told | None:
        """What its runtime tells of its layers there."""
        return self.place.layers_told(artifact, self._called, feed, threads) if self._called in PROFILING else None

    @property
    def kept_as(self) -> str:
        return self.place.kept_as

    def peaks(self, threads: int) -> Peaks:
        """What the device can do."""
        return self.place.peaks(threads)

    @property
    def _called(self) -> str:
        return self.asked.job.subjects[self.subject].runtime
