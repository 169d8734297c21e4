"""`check` as most tests ask for it: parity on a few samples, in this process, without a word."""

from __future__ import annotations

from collections.abc import Sequence

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Cpu
from dtvit_deploy.pipeline.check import check
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.recipe.judging import Gates, Parity, Profile
from dtvit_deploy.recipe.tables import Data, Export, Recipe, Run
from dtvit_deploy.report.schema import Report

PARITY = Figures(parity=True)
QUICK = Profile(seconds=0.1, samples=2)
"""A latency that says nothing of any machine, and takes no time."""


def checked(
    program: ProgramEntry,
    artifacts: Sequence[Artifact],
    material: Material,
    figures: Figures = PARITY,
    *,
    command: str = "verify",
    samples: int = 8,
    arm64: bool = False,
    runtimes: Sequence[str] = (),
    gates: Gates | None = None,
    class_scores: tuple[str, ...] | None = None,
) -> Report:
    recipe = Recipe(
        data=Data(samples=samples),
        export=Export(cpu=Cpu.ARM64 if arm64 else Cpu.X86_64),
        run=Run(runtimes=tuple(runtimes)),
        profile=QUICK,
        gates=gates or Gates(),
        parity=Parity(class_scores=class_scores),
    )
    return check(command, program, artifacts, material, recipe, figures, Silent())
