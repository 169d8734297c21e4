"""What was not proven does not pass: gates that nothing could be held to, labels that are guesses, references of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact
from networks import IMAGES, WEIGHTS

NETWORK = (
    IMAGES
    + """
class Features(Net):
    def forward(self, image):
        return self.conv(image).relu()

def features(): return Features(), image()
def net(): return Net(), image()
def other(): return Net(), image()
"""
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its checkpoint, its export, and images in two folders, which are fewer than its three scores."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "network.py").write_text(NETWORK)
    for index in range(6):
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * index, 0, 99)).save(path)
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in WEIGHTS.items()}
    save_file(state, folder / "net.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, folder / "moved.safetensors")
    deploy("export", "-m", "network:net", "-c", "net.safetensors", "-o", "out", cwd=folder)
    return folder


ARTEFACT = "out/network.net.fp32.onnx"


def recipe(work: Path, name: str, gates: str, data: str = "") -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, report and message of a recipe for the network."""
    text = f'[model]\nname = "network:net"\ncheckpoint = "net.safetensors"\n{data}\n{gates}\n'
    (work / f"{name}.toml").write_text(text)
    done = deploy("run", f"{name}.toml", "-o", name, "--no-layers", "--json", cwd=work, code=None)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_a_limit_that_nothing_was_measured_for_fails(work: Path) -> None:
    code, report, said = recipe(work, "unmeasured", "[gates.fp32]\ntop1_drop = 0.5")
    assert report is not None, said
    assert code == 1
    (failed,) = (gate for gate in report["verdict"]["gates"] if not gate["passed"])
    assert failed["name"] == "network.net.fp32.onnx: loss of top-1 (gate 'top1_drop' of the recipe)"
    assert failed["reason"] == "not measured; at most 0.5 asked"
    assert (work / "unmeasured" / "report.html").is_file()


def test_a_network_without_scores_is_run_on_images_and_has_no_accuracy_to_pass_with(work: Path) -> None:
    (work / "features.toml").write_text(
        '[model]\nname = "network:features"\n[data]\nevaluation = "images"\n[gates.fp32]\nmax_abs = 1e-4\ntop1_drop = 0.5\n'
    )
    done = deploy("run", "features.toml", "-o", "features", "--no-layers", "--json", cwd=work, code=1)
    failed = [gate["name"] for gate in json.loads(done.stdout)["verdict"]["gates"] if not gate["passed"]]
    assert failed == ["network.features.fp32.onnx: loss of top-1 (gate 'top1_drop' of the recipe)"]
    assert (work / "features" / "network.features.fp32.onnx").is_file()


def test_a_runtime_that_is_not_here_stops_a_run_before_it_begins(work: Path) -> None:
    code, report, said = recipe(work, "elsewhere", '[run]\nruntimes = ["coreml-ne", "onnxruntime"]')
    assert (code, report) == (3, None)
    assert "the runtime coreml-ne was asked for, which is not usable here: Core ML runs on macOS alone" in said
    assert not (work / "elsewhere").exists()


def test_a_verify_that_fails_names_the_module_unasked(work: Path, vouch: Callable[[Path, Manifest], Artifact]) -> None:
    model = onnx.load(work / ARTEFACT)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    onnx.save(model, work / "wrong.onnx")
    vouch(work / "wrong.onnx", load_artifact(work / ARTEFACT).manifest)
    done = deploy("verify", ARTEFACT, "wrong.onnx", "--runtime", "onnxruntime", "--json", cwd=work, code=1)
    right, wrong = json.loads(done.stdout)["subjects"][1:]
    assert {right["name"], wrong["name"]} == {"ONNX FP32 in onnxruntime"}
    assert (right["layers"], wrong["layers"]["first"]) == (None, "conv")
    assert "wrong.onnx in onnxruntime is wrong: looking in onnxruntime for the module that is to blame" in done.stderr


def test_gates_for_what_is_not_built_are_refused(work: Path) -> None:
    code, report, said = recipe(work, "unbuilt", "[gates.fp16]\nagreement = 0.9")
    assert (code, report) == (2, None)
    assert "the recipe sets gates for fp16, which it does not build" in said
    assert not (work / "unbuilt").exists()


@pytest.mark.parametrize("command", ["evaluate", pytest.param("run", marks=pytest.mark.thorough)])
def test_folders_that_are_not_as_many_as_scores_are_no_labels(command: str, work: Path) -> None:
    if command == "evaluate":
        done = deploy("evaluate", ARTEFACT, "--data", "images", cwd=work, code=2)
        code, said = done.returncode, done.stderr
    else:
        code, _, said = recipe(work, "guessed", "", '[data]\nevaluation = "images"')
    assert code == 2
    assert "the images lie in 2 class folders and the network has 3 scores, so which is which is unknown" in said
    assert not (work / "guessed").exists()


class TestTheReferenceThatIsNamed:
    def test_must_be_the_model_that_was_exported(self, work: Path) -> None:
        done = deploy("verify", ARTEFACT, "-m", "network:other", cwd=work, code=2)
        assert "was exported from network:net, not from network:other" in done.stderr

    def test_must_be_the_checkpoint_that_was_exported(self, work: Path) -> None:
        done = deploy("verify", ARTEFACT, "-c", "moved.safetensors", cwd=work, code=2)
        assert "moved.safetensors has SHA-256 " in done.stderr
        assert "leave --checkpoint out" in done.stderr

    def test_may_be_named_when_it_is(self, work: Path) -> None:
        deploy("verify", ARTEFACT, "-m", "network:net", "-c", "net.safetensors", cwd=work)


@pytest.mark.parametrize("preprocessing", ['{"resize": "huge"}', '{"crop": [0, 16]}', '{"mean": [NaN, 0, 0]}', "[1]", "{"])
def test_a_checkpoint_whose_preprocessing_makes_no_sense_is_refused(preprocessing: str, work: Path, tmp_path: Path) -> None:
    state = {name: torch.ones(shape) for name, shape in WEIGHTS.items()}
    save_file(state, tmp_path / "odd.safetensors", metadata={"preprocessing": preprocessing})
    done = deploy(
        "export", "-m", "network:net", "-c", tmp_path / "odd.safetensors", "--data", "images", "-o", tmp_path / "new", cwd=work, code=2
    )
    assert "preprocessing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
