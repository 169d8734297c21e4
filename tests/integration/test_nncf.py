"""NNCF as the second quantiser: an artefact that says so, answers like the float network, and clear refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, sha256_of
from dtvit_deploy.pipeline.calibration_set import real_set
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.openvino import GRAPH, HINT, OpenVinoRuntime

pytest.importorskip("nncf", reason="NNCF is the quantiser")
pytestmark = pytest.mark.slow
IMAGES = 32
BY_NNCF = ("-t", "openvino", "-p", "int8", "--quantizer", "nncf")


def some(source: Path, folder: Path) -> Path:
    """Class folders with `IMAGES` of the images in all, taken in turn from each class."""
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    for number in range(IMAGES):
        kind = classes[number % len(classes)]
        image = sorted(kind.iterdir())[number // len(classes)]
        (folder / kind.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / kind.name / image.name)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return some(digits / "train", tmp_path_factory.mktemp("few") / "train")


@pytest.fixture(scope="module")
def said_and_made(tmp_path_factory: pytest.TempPathFactory, few: Path, checkpoint: Path) -> tuple[str, Artifact]:
    folder = tmp_path_factory.mktemp("nncf")
    said = deploy("export", "-c", checkpoint, *BY_NNCF, "--calibration", few, "-o", folder).stderr
    return said, load_artifact(folder / "dualtoken-vit-t-mix.int8.openvino")


def test_the_manifest_says_what_quantised_it_on_which_images(said_and_made: tuple[str, Artifact], few: Path) -> None:
    _, artifact = said_and_made
    *_, parent, link = artifact.manifest.lineage
    assert (parent.kind, link.kind, link.sha256) == ("openvino", "nncf", artifact.manifest.sha256)
    assert link.tools["nncf"] == version("nncf")
    assert link.options["calibration"] == f"{IMAGES} samples of the images in train"
    assert (link.options["smooth_quant"], link.options["bias_correction"]) == (False, False)
    assert artifact.manifest.parent("int8") is None  # that is what our own quantiser calls itself
    chosen = real_set(few, artifact.manifest, 300, 0)
    assert {one.sha256 for one in chosen.samples} == {sha256_of(path) for path in few.rglob("*.png")}
    assert link.options["samples"] == hashlib.sha256("\n".join(one.sha256 for one in chosen.samples).encode()).hexdigest()


def test_nncf_itself_says_nothing(said_and_made: tuple[str, Artifact]) -> None:
    said, _ = said_and_made
    assert "INFO" not in said
    assert "Statistics" not in said


def test_it_is_int8_and_runs_as_such(said_and_made: tuple[str, Artifact]) -> None:
    _, artifact = said_and_made
    with OpenVinoRuntime().load(artifact, SessionOptions(threads=1)) as session:
        assert session.conditions["precision"] == "int8 where the graph is quantised, fp32 elsewhere"
        assert session.conditions[HINT] == "f32"
        assert "u8" in session.conditions["layers"] or "i8" in session.conditions["layers"]


def test_it_answers_like_the_float_network(said_and_made: tuple[str, Artifact], digits: Path, tmp_path: Path) -> None:
    held_out = some(digits / "held-out", tmp_path / "held-out")
    words = ("evaluate", said_and_made[1].path, "--data", held_out, "--json")
    scored = json.loads(deploy(*words, code=None).stdout)["subjects"][1]["accuracy"]
    assert scored["samples"] == IMAGES
    assert scored["agreement"] >= 0.95


@pytest.mark.thorough
def test_the_same_images_make_the_same_bytes(said_and_made: tuple[str, Artifact], few: Path, checkpoint: Path, tmp_path: Path) -> None:
    deploy("export", "-c", checkpoint, *BY_NNCF, "--calibration", few, "-o", tmp_path, "--no-cache", fresh=True)
    assert load_artifact(tmp_path / said_and_made[1].name).manifest == said_and_made[1].manifest


@pytest.mark.parametrize("option", ["smooth_quant", pytest.param("bias_correction", marks=pytest.mark.thorough)])
def test_an_option_reaches_nncf_and_is_recorded(
    option: str, said_and_made: tuple[str, Artifact], few: Path, checkpoint: Path, tmp_path: Path
) -> None:
    _, plain = said_and_made
    deploy("export", "-c", checkpoint, *BY_NNCF, f"--{option.replace('_', '-')}", "--calibration", few, "-o", tmp_path)
    made = load_artifact(tmp_path / plain.name)
    asked = {name: made.manifest.lineage[-1].options[name] for name in ("smooth_quant", "bias_correction")}
    assert asked == {"smooth_quant": False, "bias_correction": False} | {option: True}
    # The graph holds what NNCF was told, so its digest alone would not show that anything was done: the constants do.
    told = "'disable_bias_correction': False" in (made.path / GRAPH).read_text()
    assert told == (option == "bias_correction")
    if option == "smooth_quant":
        assert sha256_of(made.path / "model.bin") != sha256_of(plain.path / "model.bin")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*BY_NNCF,), "NNCF calibrates on images, and none were given"),
        ((*BY_NNCF, "--calibration", "FEW", "-t", "onnx"), "NNCF quantises OpenVINO's graph"),
        ((*BY_NNCF, "--calibration", "FEW", "--keep-fp32", "stages.2"), "modules to keep there cannot be named"),
        ((*BY_NNCF, "--calibration", "FEW", "--ranges", "ranges.json"), "NNCF takes neither --ranges nor --method"),
        ((*BY_NNCF, "--calibration", "FEW", "--method", "entropy"), "NNCF takes neither --ranges nor --method"),
        ((*BY_NNCF, "--calibration", "FEW", "--smooth-quant", "--method", "minmax"), "NNCF takes neither --ranges nor --method"),
        (("-t", "openvino", "--quantizer", "nncf", "--calibration", "FEW"), "INT8 was not asked for"),
        (("-t", "openvino", "-p", "int8", "--smooth-quant"), "--smooth-quant and --bias-correction are NNCF's"),
        (("-t", "openvino", "-p", "int8", "--bias-correction"), "--smooth-quant and --bias-correction are NNCF's"),
        ((*BY_NNCF, "--calibration", "ONE"), "the images in one are a single one"),
        (
            (*BY_NNCF, "--calibration", "FEW", "--evaluation", "ONE"),
            "1 of the 1 evaluation images in one are calibration images too: image.png",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], message: str, few: Path, checkpoint: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copyfile(next(few.rglob("*.png")), one / "image.png")
    places = {"FEW": few, "ONE": one}
    said = deploy("export", "-c", checkpoint, *(places.get(word, word) for word in words), "-o", tmp_path / "out", code=2).stderr
    assert "Traceback" not in said
    assert message in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_without_nncf_the_remedy_is_named_before_anything_is_built(few: Path, checkpoint: Path, tmp_path: Path) -> None:
    hidden = "sys.modules['nncf'] = None"
    said = deploy("export", "-c", checkpoint, *BY_NNCF, "--calibration", few, "-o", tmp_path / "out", code=3, before=hidden).stderr
    assert "pip install 'dtvit-deploy[nncf]'" in " ".join(said.split())
    assert "tracing" not in said
    assert not (tmp_path / "out").exists()
