"""Where nothing says how images are normalised, ImageNet's way is taken, and that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.pipeline.material import assumed, open_material, preprocessing_of, with_preprocessing
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.recipe.tables import PreprocessingChanges

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def manifest(kind: str = "checkpoint", **preprocessing: Any) -> Manifest:
    signature = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 3)),))
    return Manifest(
        model="net",
        format="program",
        precision=Precision.FP32,
        sha256="0" * 64,
        signature=signature,
        lineage=(Link(kind=kind, sha256="0" * 64),),
        preprocessing=preprocessing,
    )


def changed(base: Manifest, **changes: Any) -> Manifest:
    entry = ProgramEntry(Artifact(Path("program.pt2"), base), NodeMap((), ()), Path("model.onnx"))
    return with_preprocessing(entry, PreprocessingChanges(**changes)).artifact.manifest


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (manifest(), "preprocessing: ImageNet's mean and std were assumed; nothing in the checkpoint says so"),
        (manifest(crop=[8, 8], resize=8), "preprocessing: ImageNet's mean and std were assumed; nothing in the checkpoint says so"),
        (manifest(mean=MEAN), "preprocessing: ImageNet's std was assumed; nothing in the checkpoint says so"),
        (manifest("seeded"), "preprocessing: ImageNet's mean and std were assumed; there is no checkpoint that says so"),
        (changed(manifest(), resize=8), "preprocessing: ImageNet's mean and std were assumed; nothing in the checkpoint says so"),
        (changed(manifest(), mean=MEAN), "preprocessing: ImageNet's std was assumed; nothing in the checkpoint says so"),
    ],
)
def test_what_nobody_said_is_told_once(found: Manifest, told: str) -> None:
    (note,) = assumed(found)
    assert note.startswith(f"{told} (where others are right, export with --")


@pytest.mark.parametrize(
    "found",
    [manifest(mean=MEAN, std=STD), changed(manifest(), mean=MEAN, std=STD), changed(manifest(std=STD, crop=[8, 8], resize=8), mean=MEAN)],
)
def test_what_somebody_said_is_not(found: Manifest) -> None:
    assert assumed(found) == ()


def test_what_is_left_unsaid_is_what_was_assumed() -> None:
    """A change of something else must not move what images become."""
    expected = msgspec.structs.replace(Preprocessing.for_input(8, 8), interpolation="nearest")
    assert preprocessing_of(changed(manifest(), interpolation="nearest")) == expected


def test_material_tells_it_of_images_and_not_of_feeds_or_noise(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    assert open_material(tmp_path, manifest()).notes == assumed(manifest())
    assert open_material(tmp_path, manifest(mean=MEAN, std=STD)).notes == ()
    assert open_material(None, manifest()).notes == ()
