"""Tensors held in another order than they are shown in: what a chain of reshapes and transposes does, without doing it.

A tensor's axes are products of *atoms*, indivisible for as long as nothing asks for a part of them. How a tensor lies in memory and what a
network believes it to be are then two groupings of the same atoms, in two orders. A reshape regroups what is shown, a transpose reorders
it, and neither touches what is held; only an operator that cannot compute on what is held makes somebody move data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any


@dataclass(frozen=True, eq=False)
class Atom:
    """A factor of an axis; two are the same only where they are one object."""

    size: int
    parts: dict[int, tuple[Atom, Atom]] = field(default_factory=dict)

    def split(self, outer: int) -> tuple[Atom, Atom]:
        """Its two factors, the slower one first; the same whenever it is asked."""
        return self.parts.setdefault(outer, (Atom(outer), Atom(self.size // outer)))


TURNED = "__ane"
"""Ends the name of a tensor that is a node's, held in another order than the node's."""
MOVED = "__moved"
"""Ends, with a number, the name of a tensor that was only moved, and is no node's."""
HALF = "_cast_fp16"
"""What coremltools appends to the name of what became FP16."""
MOVES = ("transpose", "reshape", "expand_dims", "squeeze")
"""Operators that only move data."""


def node_of(name: str) -> str:
    """The name of a tensor in the network's own order."""
    return name.removesuffix(TURNED)


Group = tuple[Atom, ...]
"""An axis: its atoms, the slowest first; of size 1 when empty."""
Groups = tuple[Group, ...]


def fresh(shape: Iterable[int]) -> Groups:
    return tuple((Atom(size),) if size > 1 else () for size in shape)


def sizes(groups: Iterable[Group]) -> tuple[int, ...]:
    return tuple(prod(atom.size for atom in group) for group in groups)


def flat(groups: Iterable[Group]) -> Group:
    return tuple(atom for group in groups for atom in group)


@dataclass(frozen=True)
class View:
    """A tensor.

    Attributes:
        value: whatever holds it.
        held: its axes as it is held.
        shown: its axes as the network knows it. An atom here that ``held`` lacks repeats what is held.
    """

    value: Any
    held: Groups
    shown: Groups

    @classmethod
    def plain(cls, value: Any, shape: Iterable[int]) -> View:
        groups = fresh(shape)
        return cls(value, groups, groups)

    @property
    def repeated(self) -> frozenset[Atom]:
        return frozenset(flat(self.shown)) - frozenset(flat(self.held))

    @property
    def is_plain(self) -> bool:
        return self.held == self.shown

    @property
    def shape(self) -> tuple[int, ...]:
        return sizes(self.shown)

    def split(self, atom: Atom, outer: int) -> View:
        """The same, with an atom in two."""

        def divided(groups: Groups) -> Groups:
            return tuple(tuple(one for part in group for one in (part.split(outer) if part is atom else (part,))) for group in groups)

        return View(self.value, divided(self.held), divided(self.shown))

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """Shown in another shape of as many values; None where an axis would be cut at no atom's factor."""
        view, groups = self, list[Group]()
        at = 0
        for size in shape:
            group: list[Atom] = []
            left = size
            while left > 1:
                atoms = flat(view.shown)
                if at >= len(atoms):
                    return None
                atom = atoms[at]
                if left % atom.size == 0:
                    left //= atom.size
                    group.append(atom)
                    at += 1
                elif atom.size % left == 0:
                    view = view.split(atom, left)
                    group.append(flat(view.shown)[at])
                    at += 1
                    left = 1
                else:
                    return None
            groups.append(tuple(group))
        return View(view.value, view.held, tuple(groups)) if at == len(flat(view.shown)) else None

    def transposed(self, order: Sequence[int]) -> View:
        return View(self.value, self.held, tuple(self.shown[axis] for axis in order))

    def axis_of(self, group: Group) -> int | None:
        """The held axis that is this group and nothing else."""
        return next((axis for axis, held in enumerate(self.held) if held == group), None) if group else None

    def axes_of(self, atoms: Iterable[Atom]) -> list[int] | None:
        """The held axes that are made of these atoms, all of them, and of no others."""
        wanted = set(atoms)
        axes = [axis for axis, held in enumerate(self.held) if wanted.intersection(held)]
        return axes if set(flat(self.held[axis] for axis in axes)) == wanted else None


def matched(one: View, other: View, axes: Iterable[tuple[int, int]]) -> tuple[View, View] | None:
    """Both with pairs of shown axes cut at the same places; None where their factors differ."""
    for mine, theirs in axes:
        at = 0
        while at < len(one.shown[mine]) and at < len(other.shown[theirs]):
            atom, opposite = one.shown[mine][at], other.shown[theirs][at]
            if atom.size == opposite.size:
                at += 1
            elif atom.size % opposite.size == 0:
                one = one.split(atom, opposite.size)
            elif opposite.size % atom.size == 0:
                other = other.split(opposite, atom.size)
            else:
                return None
        if not at == len(one.shown[mine]) == len(other.shown[theirs]):
            return None
    return one, other


@dataclass(frozen=True)
class Move:
    """One operator that moves data: a reshape or a transpose, with what it makes."""

    kind: str
    arguments: tuple[int, ...]
    groups: Groups


def moves(held: Groups, wanted: Groups) -> Iterator[Move]:
    """From one grouping of some atoms to another, in at most three operators: a reshape, a transpose, a reshape."""
    if held == wanted:
        return
    before, after = flat(held), flat(wanted)
    if before == after:
        yield Move("reshape", sizes(wanted), wanted)
        return
    blocks = _blocks(before, after)  # in the order in which they are held
    first = {block[0]: block for block in blocks}
    turned = [first[atom] for atom in after if atom in first]
    starts, ends = [group for group in held if group] == blocks, [group for group in wanted if group] == turned
    singles = held.count(()) if starts else wanted.count(()) if ends else 0
    at = held if starts else ((),) * singles + tuple(blocks)
    if not starts:
        yield Move("reshape", sizes(at), at)
    then = wanted if ends and wanted.count(()) == singles else ((),) * singles + tuple(turned)
    single = iter([axis for axis, group in enumerate(at) if not group])
    yield Move("transpose", tuple(at.index(group) if group else next(single) for group in then), then)
    if then != wanted:
        yield Move("reshape", sizes(wanted), wanted)


def _blocks(before: Group, after: Group) -> list[Group]:
    """The longest runs of atoms that stay together."""
    place = {atom: index for index, atom in enumerate(after)}
    blocks: list[list[Atom]] = []
    for atom in before:
        if blocks and place[blocks[-1][-1]] + 1 == place[atom]:
            blocks[-1].append(atom)
        else:
            blocks.append([atom])
    return [tuple(block) for block in blocks]
