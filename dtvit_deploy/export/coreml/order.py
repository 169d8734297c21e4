"""Tensors that coremltools leaves in another order of axes under the name they had.

Its pass ``common::reduce_transposes`` takes two transposes that undo each other out of a program, and what lies between them is computed in
the order that was before the first. Nothing in the program tells so afterwards: where sizes are equal, not even a shape does. The pass is
therefore watched while it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dtvit_deploy.formats.mlpackage.views import HALF

Orders = dict[str, tuple[int, ...]]
"""By the name of a tensor in either type: the axes of what is held that are the axes of what it was before, in their order."""


@contextlib.contextmanager
def watched_orders() -> Iterator[Orders]:
    """What conversions within the block do, filled as they go on; the pass runs several times in each."""
    from coremltools.converters.mil.mil.passes.defs.optimize_repeat_ops import _LazyTransposeHypotheticalValue, _TransposeOptimization

    orders: Orders = {}
    apply = _TransposeOptimization.apply_transform

    def watched(found: Any) -> None:
        names = {var: var.name for var in found.var_to_hypothetical_value}
        apply(found)
        for var, value in found.var_to_hypothetical_value.items():
            turned = isinstance(value, _LazyTransposeHypotheticalValue) and found.transpose_ops_removed.issuperset(value.transpose_ops)
            if turned and var.op not in found.transpose_ops_removed and var.name == names[var]:  # it may have got an output's name
                name = var.name.replace(HALF, "")  # inside, of the parts of a split
                before = orders.get(name, range(len(value.perm)))
                orders[name] = tuple(int(value.perm[axis]) for axis in before)

    _TransposeOptimization.apply_transform = watched
    try:
        yield orders
    finally:
        _TransposeOptimization.apply_transform = apply
