"""Which torch module broke the answer: the error of every shared tensor, walked in the order of execution.

Each inner tensor has a noise floor of its own, measured as for outputs (see :mod:`dtvit_deploy.harness.parity`), since a sigmoid's output
forgives what a residual sum does not. A tensor is *suspect* when its error exceeds its own tolerance. Suspicion alone says little: a
runtime's sigmoid may be coarse at 1e-7, be multiplied away, and do no harm. What counts is an error that reaches an output: the walk goes
back from the suspect outputs through tensors that are suspect or nearly so (a residual sum dilutes an error, and an output may be a
little above its limit because of one that was a little below), and the module to look at is where it ends: at a tensor that is, while
nothing that it was computed from is.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Magnitude, unit
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nodes import Node, NodeMap, is_view
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.energies import add_feed, noise_energies
from dtvit_deploy.harness.parity import FACTOR, LEAST_SQNR, ROUNDOFF
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs
    from dtvit_deploy.harness.energies import Sums


_Relative = Annotated[Magnitude, unit("1")]
NEARLY = 0.5
"""Share of its limit above which a tensor's error is followed further back."""


class Taps(NamedTuple):
    """Inner tensors of one feed, by node name, from four evaluations."""

    reference: Outputs
    """torch FP32."""
    exact: Outputs
    """torch FP64."""
    ideal: Outputs
    """The best that the artefact's precision can do: torch FP32 at another thread count, or ideal FP16 or BF16."""
    answer: Outputs
    """The artefact."""


class LayerDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How far one inner tensor is off.

    Attributes:
        name: the node, and the tensor's name in every artefact.
        module: torch module that made its values; not the one that only views them, where the artefact has them in that form alone.
        op: operator of the exported program that made them.
        error: root mean square of Δ over that of the reference.
        floor: the same between the ideal and the exact evaluation.
        inherited: greatest error of the tensors it was computed from.
        suspect: ``error`` exceeds the precision's factor times the floor; for INT8, the share that its least SQNR leaves to noise.
    """

    name: str
    module: str
    op: str
    error: _Relative
    floor: _Relative
    inherited: _Relative
    suspect: bool


class ModuleDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One torch module: the greatest error among its tensors and among what they were computed from.

    Attributes:
        module: its path.
        tensors: that were compared in it.
        error, floor, inherited: as of one tensor, the greatest.
        suspect: whether one of them is.
    """

    module: str
    tensors: Count
    error: _Relative
    floor: _Relative
    inherited: _Relative
    suspect: bool

    @property
    def added(self) -> float:
        """What the module itself adds to the error that enters it, as independent errors add: the layers that lose most have most of it."""
        return math.sqrt(max(0.0, self.error**2 - self.inherited**2)) if self.error < 1e150 else self.error


class LayerReport(msgspec.Struct, frozen=True, kw_only=True):
    """All shared tensors in the order of execution.

    Attributes:
        samples: feeds that the errors were taken over.
        program_tensors: tensors of the exported program, of which ``layers`` could be found in the artefact.
        layers: tensors that were found.
        modules: the same by module.
        first: the module where the error that reaches an output arose; None when no output is suspect.
        verdict: what that means, in a sentence.
        conditions: of the session that gave the artefact's tensors, which need not be in the runtime that its outputs are from: engines and
            Core ML keep theirs to themselves.
        rung: of that session; None where nobody says.
    """

    samples: Count
    program_tensors: Count
    layers: tuple[LayerDifference, ...]
    modules: tuple[ModuleDifference, ...]
    first: str | None
    verdict: str
    conditions: dict[str, str] = {}
    rung: Rung | None = None


def layer_report(nodes: NodeMap, taps: Iterable[Taps], precision: Precision, *, sound: bool = False) -> LayerReport:
    """Walk the tensors that all evaluations share; one feed in memory at a time.

    Args:
        nodes: of the program.
        taps: of each feed.
        precision: the artefact's.
        sound: whether its outputs were found within their tolerances, so that nothing is to blame for anything.
    """
    sums: Sums = {}
    samples = 0
    for feed in taps:
        samples += 1
        add_feed(sums, noise_energies(feed.answer, feed.reference), feed.reference, feed.ideal, feed.exact)
    return report_of(nodes, sums, samples, precision, sound=sound)


def report_of(nodes: NodeMap, sums: Sums, samples: int, precision: Precision, *, sound: bool = False) -> LayerReport:
    """The same from energies that were added up over so many feeds, wherever those of the artefact were taken."""
    layers = _layers(nodes, sums, precision)
    origin = None if sound else _origin(layers, nodes, precision)
    return LayerReport(
        samples=samples,
        program_tensors=len(nodes.nodes),
        layers=layers,
        modules=_modules(layers),
        first=origin.module if origin else None,
        verdict=_sentence(origin, layers, nodes, precision),
    )


def _origin(layers: tuple[LayerDifference, ...], nodes: NodeMap, precision: Precision) -> LayerDifference | None:
    """Where the error that reaches an output arose; of several such places, the one with the largest error."""
    known = {layer.name: layer for layer in layers}
    pending = [name for name in nodes.outputs if name in known and known[name].suspect]
    reached: set[str] = set()
    origins: list[LayerDifference] = []
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        sources = [known[source] for source in _sources(name, nodes, known)[0]]
        followed = [source.name for source in sources if not source.error <= NEARLY * _limit(source.floor, precision)]
        pending.extend(followed)
        if not followed:
            origins.append(known[name])
    return max(origins, key=lambda layer: layer.error, default=None)


def _ratio(noise: float, signal: float) -> float:
    if noise == 0:
        return 0.0
    return math.sqrt(noise / signal) if signal > 0 and math.isfinite(noise) else math.inf


def _limit(floor: float, precision: Precision) -> float:
    if precision not in FACTOR:
        return 10 ** (-LEAST_SQNR / 20)
    return FACTOR[precision] * max(floor if math.isfinite(floor) else 0.0, ROUNDOFF[precision])


def _layers(nodes: NodeMap, sums: Sums, precision: Precision) -> tuple[LayerDifference, ...]:
    found: dict[str, LayerDifference] = {}
    for node in nodes.nodes:
        if node.name not in sums:
            continue
        maker = nodes.maker(node.name, sums) or node
        noise, signal, floor_noise, floor_signal = map(float, sums[node.name])
        error, floor = _ratio(noise, signal), _ratio(floor_noise, floor_signal)
        found[node.name] = LayerDifference(
            name=node.name,
            module=nodes.module_of(maker.name),
            op=maker.op,
            error=error,
            floor=floor,
            inherited=max((found[name].error for name in _sources(node.name, nodes, found)[0]), default=0.0),
            suspect=not error <= _limit(floor, precision),
        )
    return tuple(found.values())


def _sources(name: str, nodes: NodeMap, shared: Container[str]) -> tuple[set[str], set[Node]]:
    """The nearest tensors that a node was computed from and that the artefact has too, and the nodes between, which it lacks."""
    sources: set[str] = set()
    between: set[Node] = set()
    node = nodes.get(name)
    pending = list(node.inputs) if node else []
    while pending:
        source = pending.pop()
        further = nodes.get(source)
        if source in shared:
            sources.add(source)
        elif further and further not in between:
            between.add(further)
            pending.extend(further.inputs)
    return sources, between


def _modules(layers: tuple[LayerDifference, ...]) -> tuple[ModuleDifference, ...]:
    groups: dict[str, list[LayerDifference]] = {}
    for layer in layers:
        groups.setdefault(layer.module, []).append(layer)
    return tuple(
        ModuleDifference(
            module=module,
            tensors=len(group),
            error=max(layer.error for layer in group),
            floor=max(layer.floor for layer in group),
            # What enters a module is what its first tensor was computed from.
            inherited=group[0].inherited,
            suspect=any(layer.suspect for layer in group),
        )
        for module, group in groups.items()
    )


def _sentence(origin: LayerDifference | None, layers: tuple[LayerDifference, ...], nodes: NodeMap, precision: Precision) -> str:
    if not layers:
        return "the artefact shares no tensor with the program, so nothing could be compared inside"
    if origin is None:
        worst = max(layers, key=lambda layer: layer.error)
        local = sum(layer.suspect for layer in layers)
        allowed = (
            "the noise floor"
            if precision in FACTOR
            else f"what an SQNR of {LEAST_SQNR:g} dB leaves to noise (what is quantised is held to that)"
        )
        deviating = f"{local} of {counted(len(layers), 'shared tensor')} {'deviates' if local == 1 else 'deviate'}"
        return (
            f"no error above {allowed} reaches an output; {deviating} on the way,"
            f" the most by {worst.error:.2g} of its size in {worst.module} ({worst.name})"
        )
    if not math.isfinite(origin.floor):
        return f"{origin.module} overflows {precision}: {origin.name} ({origin.op}) is not finite even in an ideal {precision} evaluation"
    between = _sources(origin.name, nodes, {layer.name for layer in layers})[1]
    merged = sorted({nodes.module_of(node.name) for node in between if not is_view(node)} - {origin.module})
    also = f" or in {', '.join(merged)}, which was merged with it" if merged else ""
    return (
        f"the error arises in {origin.module}{also}: {origin.name} ({origin.op}) is off by {origin.error:.2g} of its size,"
        f" its inputs by {origin.inherited:.2g}, its noise floor is {origin.floor:.2g}"
    )
