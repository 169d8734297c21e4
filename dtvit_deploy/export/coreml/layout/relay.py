"""A Core ML package for the Neural Engine: channels first, linears as 1×1 convolutions, and data moved only where an operator needs it.

The Neural Engine's tensors are (batch, channels, height, width), or (batch, channels, 1, tokens); a transformer that is written for
(batch, tokens, channels) goes to and fro between the two. Here the program is written anew, operator by operator. Each of its tensors is
held in whatever order its operator gave it (see :mod:`dtvit_deploy.formats.mlpackage.views`), reshapes and transposes only change what is
believed of it, and each operator computes on what is held, with axes and constants to match, or asks for the order that it needs. The
principles are Apple's (https://machinelearning.apple.com/research/neural-engine-transformers); the heads of an attention are an axis of
one product here and not a product each: one reshape that leaves the last axis alone, in place of as many operators again for every head.
That this costs less is inferred, not measured; Apple splits the heads.

What no rule is known for is computed as it was, in its own order. Nothing is assumed of a network; whether the answers are the same is for
the caller to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtvit_deploy.export.coreml.interface import model_of_mil
from dtvit_deploy.export.coreml.layout.ops import RULES, as_it_was
from dtvit_deploy.export.coreml.layout.parts import PARTS
from dtvit_deploy.export.coreml.layout.products import PRODUCTS
from dtvit_deploy.export.coreml.layout.rewriting import Rewriting
from dtvit_deploy.export.coreml.saved import mil_of, read_mlpackage, write_mlpackage
from dtvit_deploy.formats.mlpackage.options import HeldAs
from dtvit_deploy.formats.mlpackage.views import MOVES
from dtvit_deploy.process.quiet import quiet

_RULES = RULES | PARTS | PRODUCTS


@dataclass(frozen=True)
class Relaid:
    """What became of a package.

    Attributes:
        before, after: operators that only move data, in the package given and in the one written.
        views: tensors that are held in another order than the node's whose name they have.
    """

    before: int
    after: int
    views: Mapping[str, HeldAs]

    @property
    def note(self) -> str:
        share = f" ({self.after / self.before:.0%})" if self.before else ""
        return f"layout for the Neural Engine: transposes + reshapes: {self.before} → {self.after}{share}"


def relay_mlpackage(source: Path, path: Path, ios: int, views: Mapping[str, HeldAs] | None = None) -> Relaid:
    """Package → the same network in the Neural Engine's order, with images of tokens in whichever form takes fewer moves.

    Args:
        source, path: read, and written.
        ios: least release that loads it.
        views: tensors of ``source`` that are held in another order than their node's.

    Raises:
        InputError: its shapes are not fixed, or it decides at run time what is computed.
    """
    model = read_mlpackage(source)
    with quiet():
        program = mil_of(model)
        function = program.functions["main"]
        rewriting = Rewriting(function, frozenset(), views or {})
        best, written = rewriting.run(_RULES, as_it_was)
        for tokens in sorted(rewriting.images):
            other = Rewriting(function, rewriting.grids | {tokens}, views or {})
            fewer, program = other.run(_RULES, as_it_was)
            if fewer < best:
                best, written, rewriting = fewer, program, other
        made = model_of_mil(written, ios, description=model.get_spec().description)
        write_mlpackage(made, path)
    return Relaid(moved(model.get_spec()), moved(made.get_spec()), rewriting.views)


def moved(spec: Any) -> int:
    """Operators of a saved program that only move data."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    counts = Counter(operation.type for operation in block.operations)
    return sum(counts[kind] for kind in MOVES)
