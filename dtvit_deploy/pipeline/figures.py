"""Which figures are taken of artefacts, and what was taken: by one process, or each kind by another."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.pipeline.timing import Timed
from dtvit_deploy.recipe.tables import Recipe


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Which figures are taken; how, the request says.

    Attributes:
        parity: outputs against the reference's.
        layers: inner tensors against the reference's; None takes them of those artefacts that parity fails.
        accuracy: over all samples.
        latency: interleaved with the reference's.
    """

    parity: bool = False
    layers: bool | None = None
    accuracy: bool = False
    latency: bool = False

    @property
    def only_latency(self) -> bool:
        """Whether nothing else is taken, so that without a latency there is nothing."""
        return self.latency and not (self.parity or self.layers or self.accuracy)


def measure_options(recipe: Recipe) -> MeasureOptions:
    """How long a request has latency measured."""
    asked = recipe.profile
    longest = max(MeasureOptions().max_seconds, asked.seconds)
    return MeasureOptions(
        min_seconds=asked.seconds,
        min_samples=asked.samples,
        max_seconds=longest,
        sustained_seconds=asked.sustained or 0.0,
        energy_seconds=asked.energy,
    )


class Compared(msgspec.Struct, frozen=True):
    """Parity of artefacts, in their order.

    Attributes:
        outputs: of each, every output on every group of feeds.
        layers: of each, or nothing where none were walked.
    """

    outputs: tuple[tuple[Difference, ...], ...] = ()
    layers: tuple[LayerReport | None, ...] = ()


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a reference and its artefacts; what was not taken is empty.

    Attributes:
        scored: accuracy of the reference, and of each artefact.
        compared: parity of each artefact in each runtime.
        on_arm64: parity of those that an ARM64 core answers otherwise.
        timed: latency of the reference, and of each artefact.
        conditions: what the sessions of each artefact said of themselves.
        device: state of the machine when they were taken, and the time in UTC; empty where they are reported at once.
        workers: on a farm, who took each kind of figure.
    """

    scored: tuple[Accuracy, ...] = ()
    compared: Compared = Compared()
    on_arm64: Compared = Compared()
    timed: tuple[Timed, ...] = ()
    conditions: tuple[dict[str, str], ...] = ()
    conditions_on_arm64: tuple[dict[str, str], ...] = ()
    device: dict[str, str] = {}
    workers: dict[str, str] = {}

    def with_(self, other: Measured) -> Measured:
        """These figures and those that another has taken of the same artefacts."""
        taken = {name: value for name, value in msgspec.structs.asdict(other).items() if value not in ((), {}, Compared())}
        return msgspec.structs.replace(self, **taken | {"workers": self.workers | other.workers})
