"""Which compute unit Core ML means to run each operation on, as data.

A plan is what Core ML anticipates for a compiled package on one machine, not a measurement: it says so of itself, and its costs are shares
of the whole that are estimated too. The names are those of the program's variables, by which an operation's torch module is found.
https://apple.github.io/coremltools/source/coremltools.models.html#coremltools.models.compute_plan.MLComputePlan
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import msgspec


class PlannedOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operation of the program.

    Attributes:
        name: of its first output.
        operator: its type, as ``ios17.conv``.
        preferred: the unit that it is meant for.
        supported: the units that could run it.
        cost: its estimated share of the whole program's cost, 0 to 1; None where Core ML gives none.
    """

    name: str
    operator: str
    preferred: str
    supported: tuple[str, ...] = ()
    cost: float | None = None


class ComputePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every operation that a unit was chosen for, in the program's order; constants are none.

    Attributes:
        units: the units that were allowed.
        unplanned: operations that Core ML says nothing of.
    """

    units: str
    operations: tuple[PlannedOperation, ...]
    unplanned: int = 0

    @property
    def crossings(self) -> int:
        """How often the next operation is meant for another unit than the one before it."""
        return sum(one.preferred != other.preferred for one, other in pairwise(self.operations))

    @property
    def shares(self) -> dict[str, float]:
        """Estimated share of the cost that falls to each unit."""
        shares: dict[str, float] = {}
        for operation in self.operations:
            shares[operation.preferred] = shares.get(operation.preferred, 0.0) + (operation.cost or 0.0)
        return shares


def plan_of(plan: Any, units: str) -> ComputePlan:
    """Read one of coremltools' ``MLComputePlan``, of a package or of one on a device."""
    found, unplanned = [], 0
    for operation in _operations(function.block for function in plan.model_structure.program.functions.values()):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            unplanned += operation.operator_name.rpartition(".")[2] != "const"
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        found.append(
            PlannedOperation(
                name=operation.outputs[0].name if operation.outputs else "",
                operator=operation.operator_name,
                preferred=_unit(usage.preferred_compute_device),
                supported=tuple(sorted({_unit(device) for device in usage.supported_compute_devices})),
                cost=None if cost is None else float(cost.weight),
            )
        )
    return ComputePlan(units=units, operations=tuple(found), unplanned=unplanned)


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
