"""The promise, end to end, on the trained checkpoint: from its file to artefacts that are proved to answer the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path, sha256_of
from dtvit_deploy.errors import InputError
from reports import assert_valid

pytestmark = pytest.mark.slow


def command(*words: object, code: int = 0, fresh: bool = False) -> str:
    return deploy(*words, code=code, fresh=fresh).stdout


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("out")
    command("export", "-c", checkpoint, "-p", "fp32", "-p", "fp16", "--data", digits / "held-out", "-o", folder)
    return folder


@pytest.fixture(scope="session")
def verified(exported: Path, digits: Path) -> dict[str, Any]:
    text = command("verify", *sorted(exported.glob("*.onnx")), "--data", digits / "held-out", "--samples", 64, "--layers", "--json")
    report: dict[str, Any] = json.loads(text)
    return report


def subject(report: dict[str, Any], precision: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["subjects"] if one["precision"] == precision and one["file"])
    return found


def on_images(report: dict[str, Any], precision: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in subject(report, precision)["parity"] if one["feeds"] == "images")
    return found


def test_fp32_agrees_on_every_image_and_to_1e_5(verified: dict[str, Any]) -> None:
    found = on_images(verified, "fp32")
    assert found["samples"] == 64
    assert found["agreement"] == 1.0
    assert found["max_abs"] <= 1e-5


def test_fp16_agrees_on_at_least_998_in_a_thousand(verified: dict[str, Any]) -> None:
    assert on_images(verified, "fp16")["agreement"] >= 0.998


def test_adversarial_feeds_are_within_their_own_tolerances(verified: dict[str, Any]) -> None:
    for precision in ("fp32", "fp16"):
        groups = {one["feeds"]: one for one in subject(verified, precision)["parity"]}
        assert {"images", "zeros", "constant", "saturated", "noise"} <= groups.keys()
        assert all(one["passed"] and one["max_abs"] <= one["tolerance"] for one in groups.values())


def test_the_verdict_passes_and_says_how_far_it_was_proved(verified: dict[str, Any]) -> None:
    assert verified["verdict"]["passed"]
    assert {one["rung"] for one in verified["subjects"]} == {"executed"}


def test_no_layer_of_a_right_artefact_is_blamed(verified: dict[str, Any]) -> None:
    for precision in ("fp32", "fp16"):
        layers = subject(verified, precision)["layers"]
        assert layers["first"] is None
        assert len(layers["layers"]) > 700


@pytest.mark.thorough
def test_held_out_accuracy_is_what_the_checkpoint_says(exported: Path, digits: Path) -> None:
    text = command("evaluate", *sorted(exported.glob("*.onnx")), "--data", digits / "held-out", "--json")
    report = json.loads(text)
    for one in report["subjects"]:
        assert one["accuracy"]["samples"] == 500
        assert one["accuracy"]["top1"] >= 0.97
        assert one["accuracy"]["agreement"] is None or one["accuracy"]["agreement"] >= 0.998


def test_the_hash_chain_leads_from_the_file_to_the_checkpoint(exported: Path, checkpoint: Path) -> None:
    artifact = load_artifact(exported / "dualtoken-vit-t-mix.fp16.onnx")
    kinds = [link.kind for link in artifact.manifest.lineage]
    assert kinds == ["checkpoint", "program", "onnx", "simplified", "float16", "portable"]
    assert artifact.manifest.lineage[0].sha256 == sha256_of(checkpoint)
    assert artifact.manifest.lineage[-1].sha256 == sha256_of(artifact.path)
    fp32 = load_artifact(exported / "dualtoken-vit-t-mix.fp32.onnx")
    assert artifact.manifest.lineage[3].sha256 == fp32.manifest.sha256


@pytest.mark.thorough
def test_two_exports_without_the_cache_are_byte_identical(exported: Path, digits: Path, checkpoint: Path, tmp_path: Path) -> None:
    command("export", "-c", checkpoint, "-p", "fp32", "-p", "fp16", "--data", digits / "held-out", "-o", tmp_path, "--no-cache", fresh=True)
    names = sorted(path.name for path in exported.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (exported / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_changed_byte_is_noticed(exported: Path, tmp_path: Path) -> None:
    source = exported / "dualtoken-vit-t-mix.fp16.onnx"
    copy = tmp_path / source.name
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    manifest_path(copy).write_bytes(manifest_path(source).read_bytes())
    with pytest.raises(InputError, match="changed after export"):
        load_artifact(copy)


def test_a_planted_error_is_blamed_on_its_module(
    exported: Path, digits: Path, tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]
) -> None:
    """A scale of 1.5 on one LayerNorm: what a converter's bug looks like."""
    source = exported / "dualtoken-vit-t-mix.fp32.onnx"
    model = onnx.load(source)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "stages.1.3.norm2.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    spoiled = tmp_path / source.name
    onnx.save(model, spoiled)
    vouch(spoiled, load_artifact(source).manifest)
    text = command("verify", spoiled, "--data", digits / "held-out", "--samples", 8, "--layers", "--json", code=1)
    report = json.loads(text)
    assert not report["verdict"]["passed"]
    assert subject(report, "fp32")["layers"]["first"] == "stages.1.3.norm2"


def test_a_recipe_ends_in_a_report(digits: Path, checkpoint: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    data, weights = os.path.relpath(digits / "held-out", tmp_path), os.path.relpath(checkpoint, tmp_path)
    recipe.write_text(f'[model]\ncheckpoint = "{weights}"\n[data]\nevaluation = "{data}"\nsamples = 8\n')
    out = tmp_path / "out"
    command("run", recipe, "-o", out, "--no-layers")
    assert {"report.json", "report.md", "report.html", "dualtoken-vit-t-mix.fp32.onnx"} <= {path.name for path in out.iterdir()}
    report = json.loads((out / "report.json").read_text())
    assert all(len(one["latency"]["samples_ms"]) >= 64 for one in report["subjects"])
    for one in report["subjects"]:
        starts = one["latency"]["starts"]
        assert min(starts["first_load"]["peak_mib"], starts["first_inference"]["peak_mib"], starts["steady_peak_mib"]) > 0
        assert bool(starts["warm_load"]) == bool(one["file"])  # of torch, the yardstick, one start is told
    assert_valid(report)


@pytest.mark.thorough
def test_s_mix_exports_without_a_checkpoint_and_says_so_loudly(tmp_path: Path) -> None:
    text = command("export", "--model", "dualtoken-vit-s-mix", "--target", "onnx", "-p", "fp32", "-p", "fp16", "-o", tmp_path)
    assert "RANDOM" in text
    for precision in ("fp32", "fp16"):
        lineage = load_artifact(tmp_path / f"dualtoken-vit-s-mix.{precision}.onnx").manifest.lineage
        assert lineage[0].kind == "seeded"
        assert any("RANDOM" in note for note in lineage[0].notes)
