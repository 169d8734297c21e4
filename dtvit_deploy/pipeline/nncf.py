"""INT8 by NNCF: OpenVINO's FP32 graph, and the images that NNCF observes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import MissingError
from dtvit_deploy.export.openvino.nncf import REMEDY, NncfOptions, openvino_from_nncf
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, real_set
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.stages import describe, made_here, versions
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.calibration.class_map import ClassMap

SAMPLES = 300
"""Images that are observed at most, as by `calibrate`; NNCF's own number too."""
SEED = 0


def require_nncf() -> None:
    """Refuse what needs NNCF before anything is built.

    Raises:
        MissingError: it is not installed.
    """
    if find_spec("nncf") is None:
        raise MissingError("the quantizer nncf needs NNCF, which is not installed", remedy=REMEDY)


def calibration_of(data: Path, manifest: Manifest, evaluation: Path | None = None, class_map: ClassMap | None = None) -> CalibrationSet:
    """What NNCF observes: of more than `SAMPLES`, as many of each class.

    Raises:
        InputError: the data are no calibration data (see `real_set`), or some of them are evaluation images.
    """
    return real_set(data, manifest, SAMPLES, SEED, evaluation=evaluation, class_map=class_map)


def nncf_stage(simplified: Artifact, recipe: Recipe, class_map: ClassMap | None, cache: Cache) -> Artifact:
    """Simplified FP32 ONNX → OpenVINO's FP32 graph → the INT8 one that NNCF makes of it.

    Args:
        recipe: names images or feeds to calibrate on, and says what NNCF is to do besides.
        class_map: what the images call the classes.

    Raises:
        InputError: the data are no calibration data (see `real_set`), or NNCF cannot quantise the graph.
    """
    from dtvit_deploy.runtimes.openvino import GRAPH

    parent = openvino_stage(simplified, Precision.FP32, cache)
    assert recipe.data.calibration is not None
    chosen = calibration_of(recipe.data.calibration, parent.manifest, class_map=class_map)
    options = NncfOptions(smooth_quant=recipe.int8.smooth_quant, bias_correction=recipe.int8.bias_correction)
    tools = versions("nncf", "openvino")
    recorded = {
        "calibration": f"{counted(len(chosen.samples), 'sample')} of {chosen.source}",
        "samples": hashlib.sha256("\n".join(one.sha256 for one in chosen.samples).encode()).hexdigest(),
        "seed": SEED,
        **asdict(options),
    }

    def build(folder: Path) -> None:
        path = folder / "model.openvino"
        path.mkdir()
        openvino_from_nncf(parent.path / GRAPH, _Again(chosen), len(chosen.samples), path / GRAPH, options)
        describe(path, parent.manifest, Precision.INT8, "nncf", tools, recorded, chosen.notes)

    key = {"parent": parent.manifest, "options": recorded, "tools": tools, "source": source_digest(__name__)}
    return made_here(cache.entry("nncf", key, build) / "model.openvino")


@dataclass(frozen=True)
class _Again:
    """Feeds that are made anew each time somebody goes through them, so that only one is held."""

    chosen: CalibrationSet

    def __iter__(self) -> Iterator[Feeds]:
        return self.chosen.feeds(0)
