"""INT8 from end to end on the trained digits: one range table, two runtimes, the same answers, and a search that explains itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from commandline import deploy
from dtvit_deploy.artifacts.artifact import load_artifact, manifest_path
from dtvit_deploy.calibration.ranges import load_ranges
from dtvit_deploy.export.onnx.modules import module_of

pytest.importorskip("openvino", reason="OpenVINO executes one of the two artefacts")
pytestmark = pytest.mark.slow
LOST = 2
"""Images of 500: 0.4 points of top-1."""


def command(*words: object, code: int = 0) -> tuple[str, str]:
    done = deploy(*words, code=code)
    return done.stdout, done.stderr


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, ranges: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    command("export", "-c", checkpoint, "-t", "onnx", "-t", "openvino", "-p", "int8", "--ranges", ranges, "-o", folder)
    return folder


def artefacts(folder: Path) -> list[Path]:
    return [folder / "dualtoken-vit-t-mix.int8.onnx", folder / "dualtoken-vit-t-mix.int8.openvino"]


def test_both_manifests_carry_the_digest_of_the_one_table(exported: Path, ranges: Path) -> None:
    table = load_ranges(ranges)
    for path in artefacts(exported):
        link = load_artifact(path).manifest.parent("int8")
        assert link is not None
        assert link.options["ranges"] == table.sha256
        assert link.options["method"] == "mse"
        assert link.options["calibration"] == "300 samples of the images in train"


@pytest.mark.thorough
def test_both_lose_at_most_two_of_500_images(exported: Path, digits: Path) -> None:
    report = json.loads(command("evaluate", *artefacts(exported), "--data", digits / "held-out", "--json")[0])
    reference, *subjects = (one["accuracy"] for one in report["subjects"])
    assert reference["samples"] == 500
    for scored in subjects:
        assert round(500 * (reference["top1"] - scored["top1"])) <= LOST


@pytest.mark.thorough
def test_verify_judges_int8_by_agreement_and_signal_to_noise(exported: Path, digits: Path) -> None:
    report = json.loads(command("verify", *artefacts(exported), "--data", digits / "held-out", "--samples", 16, "--layers", "--json")[0])
    for subject in report["subjects"][1:]:
        (real,) = (one for one in subject["parity"] if one["feeds"] == "images")
        assert (real["tolerance"], real["floor"]) == (None, None)
        assert real["sqnr"] >= real["least_sqnr"] > 0
        assert subject["layers"]["layers"]
    assert any("top-1 agreement of 'logits'" in gate["name"] for gate in report["verdict"]["gates"])


def test_a_module_that_is_to_stay_in_float_does(ranges: Path, checkpoint: Path, tmp_path: Path) -> None:
    asked = ("-p", "int8", "--ranges", ranges, "--keep-fp32", "stages.2")
    command("export", "-c", checkpoint, *asked, "-o", tmp_path)
    model = onnx.load(artefacts(tmp_path)[0])
    touched = {module_of(node) for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    assert touched
    assert not [module for module in touched if module.startswith("stages.2.")]
    _, said = command("export", "-c", checkpoint, *asked[:-1], "stages.9", "-o", tmp_path / "new", code=2)
    assert "'stages.9'" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.thorough
def test_the_search_names_modules_and_says_why(ranges: Path, checkpoint: Path, digits: Path, tmp_path: Path) -> None:
    held_out = ("--evaluation", digits / "held-out")
    command("export", "-c", checkpoint, "-p", "int8", "--ranges", ranges, "--calibration", digits / "train", *held_out, "-o", tmp_path)
    link = load_artifact(artefacts(tmp_path)[0]).manifest.parent("int8")
    assert link is not None
    search: dict[str, Any] = link.options["search"]
    assert search["reached"] is True
    assert search["samples"] == 64
    measured = {one["module"] for one in search["modules"]}
    assert measured >= set(search["in_float"]) == set(link.options["in_float"])
    assert len(measured) > 50
    assert [one["sqnr"] for one in search["modules"]] == sorted(one["sqnr"] for one in search["modules"])
    assert any((one["gain_ms"] or 0) > 0 for one in search["modules"])  # None where no profile names the module
    assert search["reason"] in link.notes


class TestRefusals:
    def test_int8_without_ranges(self, checkpoint: Path, tmp_path: Path) -> None:
        _, said = command("export", "-c", checkpoint, "-p", "int8", "-o", tmp_path / "new", code=2)
        assert "INT8 needs calibrated ranges, and there is nothing to take them from" in said
        assert "dtvit-deploy calibrate" in said
        assert not (tmp_path / "new").exists()

    def test_ranges_without_int8(self, ranges: Path, checkpoint: Path, tmp_path: Path) -> None:
        _, said = command("export", "-c", checkpoint, "--ranges", ranges, "-o", tmp_path / "new", code=2)
        assert "INT8 was not asked for" in said

    def test_evaluation_images_among_those_of_the_search(self, ranges: Path, checkpoint: Path, digits: Path, tmp_path: Path) -> None:
        asked = ("export", "-c", checkpoint, "-p", "int8", "--ranges", ranges, "--evaluation", digits / "held-out", "-o", tmp_path / "new")
        _, said = command(*asked, "--calibration", digits / "held-out", code=2)
        assert "of the 500 evaluation images in held-out are among those of the search: 0/" in said
        assert "building" not in said
        assert not (tmp_path / "new").exists()

    def test_ranges_of_other_weights(self, ranges: Path, tmp_path: Path) -> None:
        asked = ("-m", "dualtoken-vit-t-mix", "--num-classes", 10, "-p", "int8", "--ranges", ranges)
        _, said = command("export", *asked, "-o", tmp_path / "new", code=2)
        assert "the ranges were calibrated with other weights" in said
        assert not (tmp_path / "new").exists()

    def test_ranges_of_another_preprocessing(self, ranges: Path, checkpoint: Path, tmp_path: Path) -> None:
        _, said = command("export", "-c", checkpoint, "-p", "int8", "--ranges", ranges, "--channels", "bgr", "-o", tmp_path / "new", code=2)
        assert "another preprocessing" in said
        assert "channels" in said

    def test_ranges_that_somebody_edited(self, ranges: Path, checkpoint: Path, tmp_path: Path) -> None:
        edited = tmp_path / "ranges.json"
        edited.write_text(ranges.read_text().replace('"synthetic": false', '"synthetic": true'))
        _, said = command("export", "-c", checkpoint, "-p", "int8", "--ranges", edited, "-o", tmp_path / "new", code=2)
        assert "was changed after calibration" in said


def test_random_numbers_leave_a_stain_that_every_manifest_shows(checkpoint: Path, tmp_path: Path) -> None:
    command("calibrate", "-c", checkpoint, "--random-data", "--samples", 2, "-o", tmp_path / "ranges.json")
    said, _ = command("export", "-c", checkpoint, "-p", "int8", "--ranges", tmp_path / "ranges.json", "-o", tmp_path / "out")
    assert "CALIBRATED ON RANDOM NUMBERS" in said
    path = artefacts(tmp_path / "out")[0]
    assert "CALIBRATED ON RANDOM NUMBERS" in manifest_path(path).read_text()
    report = json.loads(command("verify", path, "--json", code=1)[0])
    assert any("CALIBRATED ON RANDOM NUMBERS" in note for note in report["notes"])
    assert not report["verdict"]["passed"]  # agreement was not shown on real input
