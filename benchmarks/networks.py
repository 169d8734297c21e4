"""Small networks of the kinds that exporters get wrong, each to every target in FP32 and FP16, verified: a count of what became of them.

    python benchmarks/networks.py [NAME OR KIND …] [-t TARGET …] [-p PRECISION …]

Refused is as expected only where `tests/difficult_networks.py` says why no such artefact can be; everything else must be exported and pass
`verify`. TensorRT is the folder for a Jetson, whose typed graph is emulated here, and an engine of TensorRT-RTX where that is installed.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from difficult_networks import NETWORKS, REFUSED
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target, pairs
from dtvit_deploy.errors import DeployError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.build import Build
from dtvit_deploy.pipeline.check import check
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.recipe.tables import Data, Export, Recipe, TensorRt

FLAVOURS = (Flavour.ON_DEVICE, *((Flavour.RTX,) if find_spec("tensorrt_rtx") else ()))
EXPECTED = ("verified", "refused with a reason that is true")
SAMPLES = 2
"""Of seeded noise, beside the adversarial feeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wanted", nargs="*", help="names or kinds of networks; all of them by default")
    parser.add_argument("--target", "-t", action="append", type=Target, choices=list(Target), help="repeatable")
    parser.add_argument("--precision", "-p", action="append", type=Precision, choices=[Precision.FP32, Precision.FP16], help="repeatable")
    asked = parser.parse_args()
    targets, precisions = asked.target or list(Target), asked.precision or [Precision.FP32, Precision.FP16]
    counts: collections.Counter[str] = collections.Counter()
    unexpected: list[str] = []
    tried, started = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        cache = Cache(Path(scratch))
        for kind, networks in NETWORKS.items():
            for name in networks:
                if asked.wanted and not {kind, name}.intersection(asked.wanted):
                    continue
                tried += 1
                for way in (way for target in targets for way in (FLAVOURS if target is Target.TRT else (target,))):
                    results = _results(name, way, precisions, cache)
                    counts.update(result for result, _ in results)
                    told = [f"{kind}: {name} → {way}: {result}" + (f": {why}" if why else "") for result, why in dict(results).items()]
                    unexpected += [line for line, result in zip(told, dict(results), strict=True) if result not in EXPECTED]
                    print("\n".join(told), flush=True)
    print(f"{tried} networks to {', '.join(map(str, targets))} in {', '.join(map(str, precisions))}, {time.perf_counter() - started:.0f} s")
    print("\n".join(f"{count:5} artefacts {result}" for result, count in counts.most_common()))
    if unexpected:
        sys.exit("\n".join(["not as expected:", *unexpected]))


def _results(name: str, way: Target | Flavour, precisions: list[Precision], cache: Cache) -> list[tuple[str, str]]:
    """What became of a network on its way to a target or a kind of engine, once for each precision that was asked for."""
    target = Target.TRT if isinstance(way, Flavour) else way
    expected = REFUSED.get((name, str(way)), REFUSED.get((name, str(target))))
    try:
        program = program_stage(Model(name=f"difficult_networks:{name}"), cache)
        found = _verified(program, target, way, precisions, cache)
    except DeployError as error:
        true = expected is not None and re.search(expected, str(error)) is not None
        return [("refused with a reason that is true" if true else "refused", str(error))] * len(precisions)
    return [("exported, and should have been refused", "")] * len(precisions) if expected else found


def _verified(
    program: ProgramEntry, target: Target, way: Target | Flavour, precisions: list[Precision], cache: Cache
) -> list[tuple[str, str]]:
    recipe = Recipe(
        model=Model(name=program.artifact.manifest.model),
        data=Data(samples=SAMPLES),
        export=Export(targets=(target,), precisions=tuple(precisions)),
        tensorrt=TensorRt(flavours=(way,)) if isinstance(way, Flavour) else TensorRt(),
    )
    material = open_material(None, program.artifact.manifest)
    build = Build(recipe, program, None, None, cache, Silent())
    made = [artifact for pair in pairs(recipe.export.targets, recipe.export.precisions) for artifact in build.artifacts(*pair)]
    report = check("verify", program, made, material, recipe, Figures(parity=True, layers=False), Silent())
    found = []
    for subject in report.subjects:
        if subject.verdict is not None:
            failed = [f"{gate.name}: {gate.reason}" for gate in subject.verdict.gates if not gate.passed]
            found.append(("exported, not verified", "; ".join(failed[:2])) if failed else ("verified", ""))
    return found


if __name__ == "__main__":
    main()
