"""``export --target trt`` without a GPU, on the trained digits: compiled engines, jobs for a Jetson, and what is claimed of either."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commandline import deploy
from dtvit_deploy.artifacts.artifact import load_artifact, sha256_of
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.formats.engine.header import read_header
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LAYERS, passport_of
from networks import IMAGES

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX compiles the engines")
pytestmark = pytest.mark.slow
PRECISIONS = ("fp32", "fp16", "int8")
NAME = "dualtoken-vit-t-mix"


def command(*words: object, code: int = 0) -> tuple[str, str]:
    done = deploy(*words, code=code)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path, ranges: Path) -> Path:
    """Every precision in the two flavours that need no GPU."""
    folder = tmp_path_factory.mktemp("trt")
    wanted = [word for precision in PRECISIONS for word in ("-p", precision)]
    data = ("--ranges", ranges, "--data", digits / "held-out")
    command("export", "-c", checkpoint, "-t", "trt", *wanted, *data, "--flavour", "rtx", "--flavour", "on-device", "-o", folder / "out")
    return folder / "out"


def artefacts(out: Path, kind: str) -> list[Path]:
    return [out / f"{NAME}.{precision}.{kind}" for precision in PRECISIONS]


def engine_bytes(out: Path, precision: str) -> int:
    return (out / f"{NAME}.{precision}.rtx" / ENGINE).stat().st_size


def test_an_engine_is_built_and_no_more_is_claimed(out: Path) -> None:
    for path in artefacts(out, "rtx"):
        artifact = load_artifact(path)
        assert str(artifact.manifest.rung) == "built"
        passport = passport_of(artifact.manifest)
        assert (passport.library, passport.version) == ("tensorrt-rtx", tensorrt_rtx.__version__)
        assert passport.capabilities == ("8.9", "12.0")
        assert passport.platform == gpu.this_platform()
        assert passport.device == ""


def test_the_passport_binds_weights_graph_and_engine(out: Path) -> None:
    for path in artefacts(out, "rtx"):
        manifest = load_artifact(path).manifest
        passport = passport_of(manifest)
        assert passport.engine == sha256_of(path / ENGINE)
        assert passport.bytes == (path / ENGINE).stat().st_size
        *_, parent, engine = manifest.lineage
        assert passport.graph == sha256_of(path / GRAPH) == parent.sha256
        assert engine.sha256 == manifest.sha256
        assert manifest.lineage[0].kind == "checkpoint"


def test_every_layer_of_the_network_is_told_with_its_module(out: Path) -> None:
    for path in artefacts(out, "rtx"):
        layers = json.loads((path / LAYERS).read_text())
        assert layers["stage"] == "parsed"  # what the compiler fuses them to, no library tells without a GPU
        assert {"stages.0.0.qkv", "head"} <= {layer["module"] for layer in layers["layers"]}
        assert {len(layer["outputs"]) for layer in layers["layers"]} <= {1, 2, 3}


def test_weights_are_halved_by_fp16_and_less_again_in_int8(out: Path) -> None:
    """Of the file, that is: kernels, of which an engine holds the sources, take as much in each precision, and more in INT8."""
    weights = {precision: read_header(out / f"{NAME}.{precision}.rtx" / ENGINE).gpu_weights or 0 for precision in PRECISIONS}
    assert weights["fp16"] == pytest.approx(weights["fp32"] / 2, rel=0.02)
    assert weights["int8"] < 0.75 * weights["fp16"]


def test_the_whole_engine_is_smaller_in_fp16_and_in_int8(out: Path) -> None:
    fp32, fp16, int8 = (engine_bytes(out, precision) for precision in PRECISIONS)
    assert fp16 < 0.7 * fp32
    assert int8 < 0.8 * fp32


def test_a_user_is_told_what_the_bytes_are(out: Path) -> None:
    for path in artefacts(out, "rtx"):
        (note,) = (note for note in load_artifact(path).manifest.lineage[-1].notes if " engine has " in note)
        assert re.fullmatch(r"the \w+ engine has [\d.]+ MB, of which [\d.]+ are weights and [\d.]+ kernels", note)


def test_a_job_for_the_device_is_prepared_and_not_built(out: Path) -> None:
    for path in artefacts(out, "trtjob"):
        manifest = load_artifact(path).manifest
        assert str(manifest.rung) == "prepared"
        assert not (path / ENGINE).exists()
        assert any(f"TensorRT-RTX {tensorrt_rtx.__version__} compiles this graph" in note for note in manifest.lineage[-1].notes)
        assert {"build.py", GRAPH, "job.json", "trtexec.txt", "README.txt"} <= {file.name for file in path.iterdir()}


def test_verify_emulates_what_cannot_run_here(out: Path, digits: Path) -> None:
    if gpu.gpus().found:
        pytest.skip("this machine has a GPU, and executes")
    every = [*artefacts(out, "rtx"), *artefacts(out, "trtjob")]
    report = json.loads(command("verify", *every, "--data", digits / "held-out", "--samples", 16, "--json")[0])
    assert report["verdict"]["passed"], report["verdict"]
    for subject in report["subjects"][1:]:
        assert subject["rung"] == "emulated"
        assert "emulated" in json.dumps(subject["conditions"])


def test_verify_walks_the_layers_of_an_engine_that_cannot_run_here(out: Path, digits: Path) -> None:
    if gpu.gpus().found:
        pytest.skip("this machine has a GPU, and executes")
    path = out / f"{NAME}.fp16.rtx"
    report = json.loads(command("verify", path, "--data", digits / "held-out", "--samples", 4, "--layers", "--json")[0])
    assert len(report["subjects"][1]["layers"]["layers"]) > 100


WITHOUT_A_BUILDER = """
import runpy
from dtvit_deploy.export.tensorrt import engine
del engine.engine_from_onnx
runpy.run_module("dtvit_deploy", run_name="__main__", alter_sys=True)
"""


def test_a_second_export_is_the_same_and_builds_nothing_and_so_is_one_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(IMAGES + "\ndef net():\n    return Net(), image()\n")

    def export(folder: str, cache: str, *start: str) -> bool:
        words = ("export", "-m", "mine:net", "-t", "trt", "-p", "fp32", "--flavour", "rtx", "-o", folder)
        environment = os.environ | {"DTVIT_DEPLOY_CACHE": str(tmp_path / cache)}
        done = subprocess.run([sys.executable, *start, *words], capture_output=True, env=environment, cwd=tmp_path, check=False)
        return done.returncode == 0

    whole = ("-m", "dtvit_deploy")
    assert not export("never", "cache", "-c", WITHOUT_A_BUILDER)  # from nothing it takes the builder
    assert export("first", "cache", *whole)
    assert export("again", "cache", "-c", WITHOUT_A_BUILDER)
    assert export("anew", "another cache", *whole)
    made = [path for folder in ("first", "again", "anew") for path in (tmp_path / folder).glob("*.rtx")]
    assert len(made) == 3
    assert len(set(map(sha256_of, made))) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--flavour", "rtx", "--capability", "8.7"), 2, "does not compile for compute capability 8.7"),
        (("--flavour", "rtx", "--capability", "eight"), 2, "--capability eight is no list of compute capabilities"),
        (("--flavour", "rtx", "--dla-core", "0"), 2, "TensorRT-RTX cannot do what was asked: a DLA core"),
        (("--flavour", "rtx", "--version-compatible"), 2, "version compatibility"),
        (("--flavour", "rtx", "--workspace", "1"), 2, "scratch memory"),
        (("--flavour", "on-device", "--capability", "8.9"), 2, "nothing is compiled for them"),
        (("--flavour", "tensorrt"), 3, "--flavour rtx"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    words: tuple[str, ...], code: int, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    if "tensorrt" in words and gpu.gpus().found:
        pytest.skip("this machine has a GPU")
    _, error = command("export", "-c", checkpoint, "-t", "trt", *words, "-o", tmp_path / "out", code=code)
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", [("--dla-core", "0"), ("--flavour", "rtx"), ("--tf32",), ("--capability", "8.9")])
def test_options_of_tensorrt_without_it_are_refused(word: tuple[str, ...], checkpoint: Path, tmp_path: Path) -> None:
    _, error = command("export", "-c", checkpoint, "-t", "onnx", *word, "-o", tmp_path / "out", code=2)
    assert "the target trt was not asked for" in error


def test_auto_says_what_it_took_and_why(checkpoint: Path, tmp_path: Path) -> None:
    if gpu.gpus().found:
        pytest.skip("this machine has a GPU, and another choice")
    asked = ("export", "-c", checkpoint, "-t", "trt", "--json")
    command(*asked, "--flavour", "rtx", "-o", tmp_path / "before")  # somebody named it: the engine is in the cache, and nothing was chosen
    printed: list[dict[str, Any]] = json.loads(command(*asked, "--flavour", "rtx", "--flavour", "auto", "-o", tmp_path / "named")[0])
    (named,) = printed
    assert not any("was chosen" in note for note in named["manifest"]["lineage"][-1]["notes"])
    printed = json.loads(command(*asked, "-o", tmp_path / "auto")[0])
    notes = printed[0]["manifest"]["lineage"][-1]["notes"]
    assert any(note.startswith("flavour rtx was chosen; not tensorrt: ") for note in notes)


@pytest.mark.thorough
def test_the_fp16_engine_of_a_larger_network_is_at_most_65_percent_of_the_fp32_one(tmp_path: Path) -> None:
    """S (mix), 11 million weights. Of the digits' T, the kernels are more than half of the file, and no precision halves those."""
    command("export", "-m", "dualtoken-vit-s-mix", "-t", "trt", "--flavour", "rtx", "-p", "fp32", "-p", "fp16", "-o", tmp_path)
    fp32, fp16 = ((tmp_path / f"dualtoken-vit-s-mix.{precision}.rtx" / ENGINE).stat().st_size for precision in ("fp32", "fp16"))
    assert fp16 <= 0.65 * fp32
