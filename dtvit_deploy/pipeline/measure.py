"""What artefacts are measured on, side by side, and their layers. Parity is in `compared`, accuracy in `scoring`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.devices.local import cores
from dtvit_deploy.harness.class_scores import scored_output
from dtvit_deploy.harness.layers import LayerReport, Taps, layer_report, report_of
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.runtimes.base import Elsewhere, MissingOperatorError, Session, SessionOptions
from dtvit_deploy.runtimes.pairing import Pairing, looked_into, pairings

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs, TensorSpec
    from dtvit_deploy.runtimes.torch.session import TorchSession

LAYER_SAMPLES = 2
"""Samples that the layers are walked on: each holds every inner tensor of four evaluations in memory at once."""


@dataclass(frozen=True)
class Bench:
    """What every measurement needs: the reference, the artefacts in their runtimes, the material and the threads."""

    program: ProgramEntry
    pairings: tuple[Pairing, ...]
    material: Material
    threads: int
    progress: Progress
    cuda_graph: bool = True
    adding: bool = False
    """Whether the artefacts are answered for as an ARM64 core does, so that the ideal FP16 too adds in FP16."""
    called_scores: tuple[str, ...] | None = None
    """Outputs that the user calls class scores; None says nothing."""
    said: dict[tuple[str, str], dict[str, str]] = field(init=False, default_factory=dict)
    """Conditions of the sessions that were opened, by the key of the pairing."""

    @cached_property
    def reference(self) -> Pairing:
        return pairings((self.program.artifact,))[0]

    @property
    def everything(self) -> tuple[Pairing, ...]:
        """The reference first, then the artefacts."""
        return (self.reference, *self.pairings)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(one.artifact for one in self.pairings)

    @property
    def precisions(self) -> frozenset[Precision]:
        return frozenset(artifact.manifest.precision for artifact in self.artifacts)

    @property
    def class_scores(self) -> tuple[str, ...]:
        """Names of the outputs whose greatest entry is a decision."""
        return self.material.class_scores(self.program.artifact.manifest, self.called_scores)

    @property
    def scored(self) -> TensorSpec | None:
        """The output that accuracy is taken of; None where none could be class scores."""
        manifest = self.program.artifact.manifest
        return scored_output(manifest.signature.outputs, self.material.known_classes(manifest), self.called_scores)

    def options(self, taps: tuple[str, ...] = ()) -> SessionOptions:
        return SessionOptions(threads=self.threads, taps=taps, cuda_graph=self.cuda_graph)

    def open(self, pairing: Pairing) -> Session:
        """A session without taps, whose conditions are kept: to load it once more for them may take a device minutes."""
        try:
            session = pairing.open(self.options())
        except MissingOperatorError as error:
            raise error.within(self.program.nodes) from error
        self.said[pairing.key] = session.conditions
        return session

    def conditions(self, pairing: Pairing) -> dict[str, str]:
        """What a session of it says of itself."""
        if pairing.key not in self.said:
            with self.open(pairing):
                pass
        return self.said[pairing.key]


class Reference:
    """The reference in every arithmetic that floors need; the program is read from disk once.

    Args:
        program: the exported program.
        threads: of every session but one, which has another number, since the order of summation follows from it.
        precisions: whose ideal evaluations are needed.
        kept: modules that FP16 and BF16 leave in FP32.
        taps: inner tensors to return.
        adding: whether the ideal FP16 adds in FP16.
        ranked: return the scores and the indices of its rankings too.
        rounding: whether planted rounding errors count where its rankings tie, as they do where an FP32 artefact is judged.
    """

    def __init__(
        self,
        program: ProgramEntry,
        threads: int,
        precisions: Collection[Precision],
        kept: Collection[str] = (),
        taps: tuple[str, ...] = (),
        *,
        adding: bool = False,
        ranked: bool = False,
        rounding: bool = False,
    ) -> None:
        from dtvit_deploy.runtimes.torch.interpreter import Arithmetic
        from dtvit_deploy.runtimes.torch.rankings import rankings_of
        from dtvit_deploy.runtimes.torch.session import TorchSession, read_program

        exported, signature = read_program(program.artifact), program.artifact.manifest.signature
        names = [spec.name for spec in signature.outputs]
        self.rounding = rounding
        self.rankings = tuple(one for one in rankings_of(exported, names) if not {one.scores, one.indices} & set(names)) if ranked else ()
        taps = (*taps, *dict.fromkeys(name for one in self.rankings for name in (one.scores, one.indices)))
        other = 1 if threads > 1 else max(2, cores())
        unrounded = [node.name for node in program.nodes.nodes if program.nodes.module_of(node.name) in kept]

        half = Arithmetic.FP16_SUMS if adding else Arithmetic.FP16

        def session(arithmetic: Arithmetic, threads: int = threads) -> TorchSession:
            exact = unrounded if arithmetic is half else ()
            return TorchSession(exported, signature, SessionOptions(threads=threads, taps=taps), arithmetic, exact)

        self.fp32: TorchSession = session(Arithmetic.FP32)
        self.fp64: TorchSession = session(Arithmetic.FP64)
        self.ideal: dict[Precision, TorchSession] = {Precision.FP32: session(Arithmetic.FP32, other)}
        for precision, arithmetic in ((Precision.FP16, half), (Precision.BF16, Arithmetic.BF16)):
            if precision in precisions:
                self.ideal[precision] = session(arithmetic)

    @classmethod
    def of(cls, bench: Bench, taps: tuple[str, ...] = (), *, ranked: bool = False, rounding: bool = False) -> Reference:
        """What a bench's artefacts are compared with."""
        kept = kept_for_precision(bench.artifacts)
        return cls(bench.program, bench.threads, bench.precisions, kept, taps, adding=bench.adding, ranked=ranked, rounding=rounding)

    def floor_of(self, precision: Precision) -> Precision:
        """The precision whose noise floor an artefact is shown beside: INT8 has none of its own (`dtvit_deploy.harness.parity`)."""
        return precision if precision in self.ideal else Precision.FP32


def kept_for_precision(artifacts: Sequence[Artifact]) -> frozenset[str]:
    """Modules that an FP16 artefact keeps in FP32 for precision (:mod:`dtvit_deploy.pipeline.float16`).

    The floor is that of FP16 with those modules in FP32: with them rounded it would be as large as the error that they were kept for. A
    manifest that names modules wrongly makes its artefact's tolerance smaller, never larger.
    """
    links = [link for artifact in artifacts if artifact.manifest.precision is Precision.FP16 for link in artifact.manifest.lineage]
    named = [link.options.get("imprecise") for link in links]
    return frozenset(str(module) for modules in named if isinstance(modules, dict) for module in modules)


def check_feeds(session: Session, feeds: Feeds) -> Outputs:
    """Run, the feeds checked first: the one place where that is done for every session."""
    session.signature.check(feeds)
    return session.run(feeds)


def layers(bench: Bench, wanted: Sequence[Pairing] | None = None, sound: Collection[tuple[str, str]] = ()) -> list[LayerReport | None]:
    """Inner tensors against torch's, by shared name: each artefact's in the first of its runtimes that offers them.

    Args:
        bench: artefacts, reference and material.
        wanted: those to look into, where there is something to see; all by default. None stands for the others.
        sound: keys of those whose outputs are right.
    """
    done: dict[tuple[tuple[str, str], bool], LayerReport] = {}  # of several pairings of one artefact most are walked in the same runtime
    reports: list[LayerReport | None] = []
    for pairing in bench.pairings:
        inside = looked_into(pairing) if wanted is None or pairing in wanted else None
        if inside is None or (wanted is not None and not inside.runtime.tensors(inside.artifact)):
            reports.append(None)
            continue
        if wanted is not None:
            bench.progress.step(f"{pairing.name} is wrong: looking in {inside.runtime.name} for the module that is to blame")
        key = inside.key, pairing.key in sound
        if key not in done:
            done[key] = _layers(bench, inside, sound=pairing.key in sound)
        reports.append(done[key])
    return reports


def _layers(bench: Bench, pairing: Pairing, *, sound: bool) -> LayerReport:
    some = bench.material.subset(LAYER_SAMPLES)
    precision = pairing.artifact.manifest.judged_as
    offered = set(pairing.runtime.tensors(pairing.artifact))
    taps = tuple(node.name for node in bench.program.nodes.nodes if node.name in offered)
    reference = Reference.of(bench, taps)
    others = (reference.fp32, reference.fp64, reference.ideal[reference.floor_of(precision)])
    if isinstance(pairing.runtime, Elsewhere):
        return _layers_elsewhere(bench, pairing, pairing.runtime, reference, taps, sound=sound)
    with pairing.open(bench.options(taps)) as session:

        def walk() -> Iterator[Taps]:
            for feed in bench.progress.track(some.feeds(), f"layers of {pairing.artifact.name} in {pairing.runtime.name}", len(some)):
                yield Taps(*(inner_tensors(one.run(feed), taps, bench) for one in (*others, session)))

        found = layer_report(bench.program.nodes, walk(), precision, sound=sound)
        return msgspec.structs.replace(found, conditions=session.conditions, rung=pairing.runtime.rung)


def _layers_elsewhere(
    bench: Bench, pairing: Pairing, runtime: Elsewhere, reference: Reference, taps: tuple[str, ...], *, sound: bool
) -> LayerReport:
    """Inner tensors compared on a device: the reference's travel there once, and sums come back."""
    precision = pairing.artifact.manifest.judged_as
    evaluations = (reference.fp32, reference.ideal[reference.floor_of(precision)], reference.fp64)
    feeds = list(bench.material.subset(LAYER_SAMPLES).feeds())
    told = f"layers of {pairing.name}"
    tensors = []
    for feed in bench.progress.track(feeds, told, len(feeds)):
        fp32, ideal, fp64 = (inner_tensors(one.run(feed), taps, bench) for one in evaluations)
        tensors.append((fp32, ideal, fp64))
    sums, samples = runtime.sums(pairing.artifact, taps, feeds, tensors, bench.program.nodes, bench.threads)
    found = report_of(bench.program.nodes, sums, samples, precision, sound=sound)
    return msgspec.structs.replace(found, conditions=bench.conditions(pairing), rung=pairing.runtime.rung)


def inner_tensors(outputs: Outputs, taps: tuple[str, ...], bench: Bench) -> Outputs:
    """The tapped tensors and the outputs, the latter under the names of the nodes that made them."""
    named = zip(bench.program.nodes.outputs, bench.material.signature.outputs, strict=True)
    return {name: outputs[name] for name in taps} | {node: outputs[spec.name] for node, spec in named}
