"""What the evaluator tells of Core ML packages that are being made: what their tensors reach, and whether rewriting moved answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.stages import GuardFeeds
from dtvit_deploy.runtimes.base import MissingOperatorError, SessionOptions

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

LEAST_SQNR = {Precision.FP32: 80.0, Precision.FP16: 40.0}
"""dB of signal over what another order of the tensors moves: sums in another order, and in FP16 their rounding after every operator."""


def reached(package: Path, feeds: Iterable[Feeds]) -> dict[str, float]:
    """Greatest finite |x| of every floating-point variable of a package on some feeds, by name.

    Raises:
        InputError: it has operators that are not evaluated here.
    """
    import torch

    from dtvit_deploy.runtimes.mil.evaluate import Evaluator
    from dtvit_deploy.runtimes.mil.load import load_program
    from dtvit_deploy.runtimes.mil.program import FLOATS

    program = load_program(package)
    made = (*program.inputs, *(output for operation in program.operations for output in operation.outputs))
    names = tuple(variable.name for variable in made if variable.type.dtype in FLOATS)
    evaluator, found = Evaluator(program, names), dict.fromkeys(names, 0.0)
    torch.set_num_threads(SessionOptions().threads)  # another number sums in another order, and what is found is written down
    for feed in feeds:
        for name, value in evaluator.run({name: torch.tensor(array) for name, array in feed.items()}).items():
            found[name] = max(found[name], float(value.abs().where(value.isfinite(), 0.0).amax()) if value.numel() else 0.0)
    return found


def unproven(package: Path, nodes: NodeMap) -> tuple[str, ...]:
    """A note where a package cannot be verified on this machine; nothing where it can."""
    from dtvit_deploy.runtimes.mil.evaluate import Evaluator
    from dtvit_deploy.runtimes.mil.load import load_program

    try:
        program = load_program(package)
        Evaluator(program, program.outputs)
    except InputError as error:
        told = error.within(nodes) if isinstance(error, MissingOperatorError) else error
        return (f"cannot be verified here: {told}",)
    return ()


def moved(parent: Artifact, relaid: Artifact, guard: GuardFeeds) -> str:
    """Why a package in another order does not do what the one does that it was made from; empty if it does."""
    from dtvit_deploy.runtimes.mil.runtime import MilRuntime

    least = LEAST_SQNR[parent.manifest.precision]
    runtime = MilRuntime()
    with runtime.load(parent, SessionOptions()) as one, runtime.load(relaid, SessionOptions()) as other:
        for feed in guard.feeds:
            expected, answers = one.run(feed), other.run(feed)
            for name, array in expected.items():
                was, now = array.astype(np.float64), answers[name].astype(np.float64)
                finite = np.isfinite(was)
                if not np.array_equal(finite, np.isfinite(now)):
                    return f"{name} is not finite where it was"
                noise, signal = np.square(was - now)[finite].sum(), np.square(was)[finite].sum()
                if noise * 10 ** (least / 10) > signal:
                    found = 10 * np.log10(signal / noise) if signal else -np.inf
                    return f"{name} moved: {found:.1f} dB of signal over the change, at least {least:.0f} is required"
    return ""
