"""Which compute unit Core ML means to run each operation on, as data.

A plan is what Core ML anticipates for a compiled package on one machine, not a measurement: it says so of itself, and its costs are shares
of the whole that are estimated too. The names are those of the program's variables, by which an operation's torch module is found.
https://apple.github.io/coremltools/source/coremltools.models.html#coremltools.models.compute_plan.MLComputePlan
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count
from dtvit_deploy.errors import DeployError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operation of the program.

    Attributes:
        name: of its first output.
        operator: its type, as ``ios17.conv``.
        preferred: the unit that it is meant for.
        supported: the units that could run it.
        cost: its estimated share of the whole program's cost, 0 to 1; None where Core ML gives none.
        node: of the exported program, whose values the first output has; empty where that is not known.
        module: torch module that the node belongs to.
    """

    name: str
    operator: str
    preferred: str
    supported: tuple[str, ...] = ()
    cost: Amount | None = None
    node: str = ""
    module: str = ""


class ComputePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every operation that a unit was chosen for, in the program's order; constants are none.

    Attributes:
        units: the units that were allowed.
        shares: estimated share of the cost that falls to each unit.
        crossings: how often the next operation is meant for another unit than the one before it.
        unplanned: operations that Core ML says nothing of.
    """

    units: str
    operations: tuple[PlannedOperation, ...]
    shares: dict[str, Amount]
    crossings: Count
    unplanned: Count = 0

    @classmethod
    def of(cls, units: str, operations: Sequence[PlannedOperation], unplanned: int = 0) -> ComputePlan:
        """A plan with what follows from its operations."""
        shares: dict[str, float] = {}
        for operation in operations:
            shares[operation.preferred] = shares.get(operation.preferred, 0.0) + (operation.cost or 0.0)
        crossings = sum(one.preferred != other.preferred for one, other in pairwise(operations))
        return cls(units=units, operations=tuple(operations), shares=shares, crossings=crossings, unplanned=unplanned)

    @property
    def main(self) -> str:
        """The unit with most of the cost, or of the operations where no cost is told; empty where nothing was planned."""
        counts = Counter(one.preferred for one in self.operations)
        return max(self.shares, key=lambda unit: (self.shares[unit], counts[unit]), default="")

    @property
    def elsewhere(self) -> tuple[PlannedOperation, ...]:
        """Operations that are meant for other units than the main one."""
        return tuple(one for one in self.operations if one.preferred != self.main)

    def __str__(self) -> str:
        if not self.operations:
            return f"Core ML tells of no operation where it runs, with {self.units} allowed"
        ranked = sorted(self.shares.items(), key=lambda one: -one[1])
        if any(share for _, share in ranked):
            told = ", ".join(f"{unit} {share:.0%}" for unit, share in ranked) + " of the estimated cost"
        else:
            counted = Counter(one.preferred for one in self.operations).most_common()
            told = ", ".join(f"{unit} {number}" for unit, number in counted) + " operations, whose cost is not told"
        return f"{told}, {self.crossings} crossing{'s' * (self.crossings != 1)} between units; allowed: {self.units}"


def plan_of(plan: Any, units: str, artifact: Artifact) -> ComputePlan:
    """Read one of coremltools' ``MLComputePlan``, of a package or of one on a device."""
    found, unplanned, nodes = [], 0, _nodes(artifact)
    for operation in _operations(function.block for function in plan.model_structure.program.functions.values()):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            unplanned += operation.operator_name.rpartition(".")[2] != "const"
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        name = operation.outputs[0].name if operation.outputs else ""
        found.append(
            PlannedOperation(
                name=name,
                operator=operation.operator_name,
                preferred=_unit(usage.preferred_compute_device),
                supported=tuple(sorted({_unit(device) for device in usage.supported_compute_devices})),
                cost=None if cost is None else float(cost.weight),
                node=nodes.get(name, ""),
            )
        )
    return ComputePlan.of(units, found, unplanned)


def _nodes(artifact: Artifact) -> dict[str, str]:
    """Nodes of the exported program by variable; none where the package's program cannot be read, which a plan does without."""
    try:
        from dtvit_deploy.runtimes.mil.load import load_program
        from dtvit_deploy.runtimes.mil.names import tensors_by_node

        return {variable: node for node, variable in tensors_by_node(load_program(artifact.path)).items()}
    except (ImportError, DeployError):  # torch is not needed to run a package, but to read its program
        return {}


def _operations(blocks: Iterable[Any]) -> Iterator[Any]:
    """Operations of blocks, each followed by those of the blocks that are nested in it."""
    for block in blocks:
        for operation in block.operations:
            yield operation
            yield from _operations(operation.blocks)


def _unit(device: Any) -> str:
    from coremltools.models.compute_device import MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice

    names = {MLCPUComputeDevice: "CPU", MLGPUComputeDevice: "GPU", MLNeuralEngineComputeDevice: "Neural Engine"}
    return next((name for kind, name in names.items() if isinstance(device, kind)), type(device).__name__)
