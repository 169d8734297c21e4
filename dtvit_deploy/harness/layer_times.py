"""Where the time of an inference goes: what a runtime tells of its layers, by the torch modules that they come from.

Runtimes fuse, split and rename. A layer that was made of several operators belongs to the product or convolution among them, else to the
first; what cannot be told belongs to nobody and is a line of its own. A profiled run is slower than an ordinary one, each layer by the
look at a clock: such figures say where time goes, and none of them is a latency.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from dtvit_deploy.artifacts.bounds import Milliseconds, Natural
from dtvit_deploy.artifacts.nodes import NETWORK

NOBODY = "(not told)"
MOST_ROWS = 16
"""Modules that a table has room for."""


class LayerTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer as the runtime executes it.

    Attributes:
        name: as the runtime calls it.
        type: of operator, likewise.
        kernel: that computes it, which names instructions and precision where the runtime tells them.
        unit: that it ran on, as ``CPU``.
        ms: median over the profiled runs.
        node: of the exported program, whose time this is; empty where that is not known.
        module: torch module that the node belongs to; empty as well, or for the network itself.
    """

    name: str
    type: str
    kernel: str
    unit: str
    ms: Milliseconds
    node: str = ""
    module: str = ""


class ModuleTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A torch module with everything in it, but for what other rows have.

    Attributes:
        module: its dotted path; `NOBODY` for layers that belong to none.
        ms: milliseconds of all its layers.
        share: of all layers' time.
        layers: how many.
    """

    module: str
    ms: Milliseconds
    share: float
    layers: int


class LayerTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a runtime tells of an inference.

    Attributes:
        layers: all that were executed, in the runtime's order.
        runs: profiled ones, after warm-up.
        whole_ms: median of a whole profiled inference by this machine's clock.
    """

    layers: tuple[LayerTime, ...]
    runs: Natural
    whole_ms: Milliseconds

    @property
    def ms(self) -> float:
        """Of all layers."""
        return sum(one.ms for one in self.layers)

    @property
    def attributed(self) -> float:
        """Share of the layers' time that is some module's."""
        return sum(one.ms for one in self.layers if one.node) / self.ms if self.ms else 0.0

    def modules(self, most: int = MOST_ROWS) -> tuple[ModuleTime, ...]:
        """Modules that have all of the time between them, the slowest first: the whole network, taken apart where most time is.

        Args:
            most: rows at most. A module whose parts do not fit any more stays whole.
        """
        paths = [(tuple(one.module.split(".")) if one.module else ()) if one.node else (NOBODY,) for one in self.layers]
        rows: dict[tuple[str, ...], list[int]] = {(): [index for index, path in enumerate(paths) if path != (NOBODY,)]}
        kept: dict[tuple[str, ...], list[int]] = {(NOBODY,): [index for index, path in enumerate(paths) if path == (NOBODY,)]}
        while rows:
            widest = max(rows, key=lambda path: self._ms(rows[path]))
            members = rows.pop(widest)
            parts: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
            for index in members:
                parts[paths[index][: len(widest) + 1]].append(index)
            if set(parts) == {widest} or len(rows) + len(kept) + len(parts) > most:
                kept[widest] = members
                continue
            kept |= {path: found for path, found in parts.items() if path == widest}
            rows |= {path: found for path, found in parts.items() if path != widest}
        found = [self._row(path, members) for path, members in kept.items() if members]
        return tuple(sorted(found, key=lambda row: -row.ms))

    def _row(self, path: tuple[str, ...], members: list[int]) -> ModuleTime:
        ms = self._ms(members)
        name = ".".join(path) or NETWORK
        return ModuleTime(module=name, ms=ms, share=ms / self.ms if self.ms else 0.0, layers=len(members))

    def _ms(self, members: list[int]) -> float:
        return sum(self.layers[index].ms for index in members)
