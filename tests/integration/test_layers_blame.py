"""One weight of one module is changed in the exported file; the layer report must name that module and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blamed import MODULES, changed, program
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.pipeline import measure
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.runtimes.pairing import pairings


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    return program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def artifacts(entry: ProgramEntry, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Artifact]:
    cache, guard = Cache(tmp_path_factory.mktemp("cache")), open_material(None, entry.artifact.manifest).guard()
    simplified = onnx_stage(entry, guard, cache)
    return {Precision.FP32: simplified, Precision.FP16: float16_stage(simplified, guard, (), cache)}


def reported(entry: ProgramEntry, artifact: Artifact) -> LayerReport:
    material = open_material(None, entry.artifact.manifest)
    (found,) = measure.layers(measure.Bench(entry, pairings((artifact,)), material, 1, Silent()))
    assert found is not None
    return found


Spoil = Callable[[Artifact, str, float], Artifact]


@pytest.fixture
def spoilt(tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]) -> Spoil:
    """Make a copy in which the largest weight of a module is another, with a manifest that vouches for it."""

    def copy(artifact: Artifact, module: str, relative: float) -> Artifact:
        return vouch(changed(artifact, module, tmp_path, relative), artifact.manifest)

    return copy


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_faithful_artefact_blames_nobody(entry: ProgramEntry, artifacts: dict[Precision, Artifact], precision: Precision) -> None:
    found = reported(entry, artifacts[precision])
    assert found.first is None
    assert found.verdict.startswith("no error above the noise floor reaches an output; 0 of ")
    assert len(found.layers) >= 0.6 * found.program_tensors
    assert found.samples == measure.LAYER_SAMPLES


@pytest.mark.parametrize(("precision", "relative"), [(Precision.FP32, 0.01), (Precision.FP16, 4)], ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_the_module_whose_weight_was_changed_is_named(
    entry: ProgramEntry, artifacts: dict[Precision, Artifact], spoilt: Spoil, module: str, precision: Precision, relative: float
) -> None:
    found = reported(entry, spoilt(artifacts[precision], module, relative))
    assert found.first == module, found.verdict
    assert f"the error arises in {module}" in found.verdict
    before = [layer for layer in found.layers if layer.module in MODULES[: MODULES.index(module)]]
    assert not any(layer.suspect for layer in before)


def test_a_module_that_another_was_folded_into_is_named_with_it(
    entry: ProgramEntry, artifacts: dict[Precision, Artifact], spoilt: Spoil
) -> None:
    found = reported(entry, spoilt(artifacts[Precision.FP32], "stem.1", 0.01))
    assert "the error arises in stem.1 or in stem.0, which was merged with it: getitem" in found.verdict


def test_the_changed_file_alone_is_not_even_opened(artifacts: dict[Precision, Artifact], spoilt: Spoil) -> None:
    copy = spoilt(artifacts[Precision.FP32], "head", 0.01)
    write_json(manifest_path(copy.path), artifacts[Precision.FP32].manifest)
    with pytest.raises(Exception, match="was changed after export"):
        load_artifact(copy.path)
