"""The evaluator behind the protocols that every runtime stands behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.mlpackage.options import HeldAs, image_input_of, views_of
from dtvit_deploy.formats.mlpackage.views import TURNED, node_of
from dtvit_deploy.runtimes.base import ASKED_FOR, Availability, SessionOptions
from dtvit_deploy.runtimes.mil.described import require_as_described
from dtvit_deploy.runtimes.mil.evaluate import Evaluator, numbers
from dtvit_deploy.runtimes.mil.load import load_program
from dtvit_deploy.runtimes.mil.names import tensors_by_node
from dtvit_deploy.runtimes.mil.program import Program
from dtvit_deploy.runtimes.mil.proto import REMEDY, coremltools_version, model_proto
from dtvit_deploy.runtimes.trial import require_survived

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs


class MilRuntime:
    """Loads ``mlpackage`` artefacts, which are folders."""

    name = "mil"
    formats = ("mlpackage",)
    rung = Rung.EMULATED

    def __init__(self, why: Callable[[Artifact], str] = lambda _: ASKED_FOR) -> None:
        """An evaluator.

        Args:
            why: why an artefact's own runtime is not the one that is taken, for the conditions; only who knows all runtimes can say more.
        """
        self._why = why

    def available(self, artifact: Artifact | None = None) -> Availability:
        try:
            model_proto()
        except MissingError as error:
            return Availability(version=None, missing=str(error), remedy=REMEDY)
        return Availability(version=coremltools_version())

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return tuple(_offered(_read(artifact), views_of(artifact.manifest)))

    def load(self, artifact: Artifact, options: SessionOptions) -> MilSession:
        return MilSession(_read(artifact), artifact, options, self._why)


class MilSession:
    """One program, bound; feeds and answers by the names and in the types of the artefact's signature."""

    def __init__(self, program: Program, artifact: Artifact, options: SessionOptions, why: Callable[[Artifact], str]) -> None:
        self.signature = artifact.manifest.signature
        require_as_described(program, artifact)
        self._views = views_of(artifact.manifest)
        nodes = _offered(program, self._views)
        unknown = [name for name in options.taps if name not in nodes]
        if unknown:
            raise InputError(f"{artifact.name} has no tensor {', '.join(sorted(unknown)[:5])}", remedy="ask `tensors` for what it has")
        self._taps = {name: nodes[name] for name in options.taps}
        outputs = tuple(spec.name for spec in self.signature.outputs)
        _set_threads(options.threads)
        self._image = image_input_of(artifact.manifest)
        self._evaluator: Evaluator | None = Evaluator(program, (*outputs, *self._taps.values()))
        self._types = {output.name: output.type for operation in program.operations for output in operation.outputs}
        self._threads = options.threads
        self.conditions = {
            "runtime": f"{MilRuntime.name} {coremltools_version()}",
            "torch": str(torch.__version__),
            "threads": str(options.threads),
            "precision": _precision(artifact.manifest.precision),
            "opset": program.opset,
            "package": f"not executed: {why(artifact)}",
        }

    def run(self, feeds: Feeds) -> Outputs:
        if self._evaluator is None:
            raise RuntimeError("the session was left; it cannot run")
        _set_threads(self._threads)
        # A copy: what a network hands through must not change with the caller's array.
        given = feeds if self._image is None else {**feeds, self._image.name: self._image.pixels(feeds[self._image.name])}
        tensors = {spec.name: torch.tensor(np.ascontiguousarray(given[spec.name])) for spec in self.signature.inputs}
        values = self._evaluator.run(tensors)
        outputs = {spec.name: values[spec.name].numpy().astype(spec.dtype) for spec in self.signature.outputs}
        return outputs | {node: self._tap(name, numbers(values[name], self._types[name])) for node, name in self._taps.items()}

    def _tap(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """A tensor as the network has it."""
        if not name.endswith(TURNED):
            return values
        try:
            return self._views[node_of(name)].restored(values)
        except ValueError as error:
            raise InputError(f"{name} is not held as the manifest tells: {error}", remedy="export the package again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._evaluator = None


def _read(artifact: Artifact) -> Program:
    """The program, once it was evaluated elsewhere: torch allocates what a program declares, and computes as long as that takes."""
    program = load_program(artifact.path)
    require_survived(artifact, MilRuntime, "the evaluator of Core ML packages")
    return program


def _offered(program: Program, views: Mapping[str, HeldAs]) -> dict[str, str]:
    """Variables by node; of those that are held in another order, the ones whose order is known."""
    return {node: name for node, name in tensors_by_node(program).items() if not name.endswith(TURNED) or node_of(name) in views}


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:  # a setting of the process, and other sessions set theirs
        torch.set_num_threads(threads)


def _precision(precision: Precision) -> str:
    return "fp32" if precision is Precision.FP32 else f"{precision} package; every operator in fp32, its answer rounded as declared"
