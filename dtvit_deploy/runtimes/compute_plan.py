"""Which compute unit a runtime means to run each operation on, as data.

A plan is what the runtime anticipates for a package on one machine, not a measurement: Core ML says so of its own, whose costs are shares
of the whole that are estimated too. The names are those of the program's variables, by which an operation's torch module is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count, unit

_Cost = Annotated[Amount, unit("1")]


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
    cost: _Cost | None = None
    node: str = ""
    module: str = ""


class ComputePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every operation that a unit was chosen for, in the program's order; constants are none.

    Attributes:
        units: the units that were allowed.
        operations: each of them.
        shares: estimated share of the cost that falls to each unit.
        crossings: how often the next operation is meant for another unit than the one before it.
        unplanned: operations that Core ML says nothing of.
    """

    units: str
    operations: tuple[PlannedOperation, ...]
    shares: dict[str, _Cost]
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
