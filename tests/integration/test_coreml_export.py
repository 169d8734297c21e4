"""Core ML packages of networks: what Xcode finds in them, whose names the tensors have, and that they answer like torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checking import checked
from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Link, load_artifact, sha256_of
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.class_map import read_class_map
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions, Layout, views_of
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.coreml import require_coreml
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import runtime_for
from dtvit_deploy.runtimes.torch.session import TorchRuntime
from packages import package

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow
SEEDED = Link(kind="seeded", sha256="0" * 64)
FP32, FP16 = Precision.FP32, Precision.FP16


def entry(folder: Path, module: nn.Module, inputs: dict[str, Tensor], **facts: Any) -> ProgramEntry:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    write_program(Reference(model="mine:net", module=module.eval(), inputs=inputs, weights=SEEDED, **{"output_names": (), **facts}), folder)
    return read_program_entry(folder)


def answers(artifact: Artifact, feeds: dict[str, Any], taps: tuple[str, ...] = ()) -> dict[str, Any]:
    with runtime_for(artifact).load(artifact, SessionOptions(taps=taps)) as session:
        return session.run(feeds)


def description(artifact: Artifact) -> Any:
    from dtvit_deploy.export.coreml.saved import read_mlpackage

    return read_mlpackage(artifact.path).get_spec().description


def operators(artifact: Artifact) -> Any:
    """The operators of a saved package, but for its constants."""
    from dtvit_deploy.export.coreml.saved import read_mlpackage

    spec = read_mlpackage(artifact.path).get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return [operation for operation in block.operations if operation.type != "const"]


def dtype_of(operation: Any) -> str:
    return {10: "fp16", 11: "fp32"}[operation.outputs[0].type.tensorType.dataType]


class Warped(nn.Module):
    """With an operator that Core ML has and the evaluator has not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.warp = Warp()

    def forward(self, picture: Tensor) -> Tensor:
        return self.warp(self.stem(picture)).mean((2, 3))


class Warp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Buffer(torch.rand(1, 4, 4, 2))

    def forward(self, picture: Tensor) -> Tensor:
        return torch.nn.functional.grid_sample(picture, self.places, align_corners=True)


class Two(nn.Module):
    """Two inputs of two types, a batch norm, a split, a pool without a stride, and two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU())
        self.pool = nn.MaxPool2d(2)
        self.words = nn.Embedding(10, 8)
        self.mixed = nn.Linear(8, 16)

    def forward(self, picture: Tensor, word: Tensor) -> Any:
        found = self.pool(self.stem(picture)).flatten(2).mean(2)
        left, right = self.mixed(found + self.words(word)).chunk(2, 1)
        return {"difference": left - right, "total": (left * right).sum(1)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.manual_seed(0)
    net = Two()
    nn.init.normal_(net.stem[1].running_mean)  # type: ignore[arg-type]
    return entry(tmp_path_factory.mktemp("two"), net, {"picture": torch.randn(1, 3, 8, 8), "word": torch.tensor([3])})


@pytest.fixture
def feeds() -> dict[str, Any]:
    return {"picture": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32), "word": np.array([7])}


class Turned(nn.Module):
    """Between two transposes that undo each other, which coremltools takes out; as many tokens as channels, so that no shape tells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 4, 1)
        self.scale, self.places = nn.Parameter(torch.rand(8)), nn.Parameter(torch.randn(8, 8))

    def forward(self, signal: Tensor) -> Tensor:
        tokens = torch.nn.functional.softplus(self.stem(signal).transpose(1, 2) * self.scale) + self.places
        left, right = tokens.chunk(2, 2)
        return self.last(torch.cat([left.sigmoid(), right.tanh()], 2).transpose(1, 2)).mean(2)


class TestNames:
    def test_inputs_and_outputs_keep_names_order_and_types(self, two: ProgramEntry, tmp_path: Path, feeds: dict[str, Any]) -> None:
        made = package(two, tmp_path, FP16)
        assert [feature.name for feature in description(made).input] == ["picture", "word"]
        assert [feature.name for feature in description(made).output] == ["difference", "total"]
        arrays = [feature.type.multiArrayType.dataType for feature in (*description(made).input, *description(made).output)]
        assert arrays == [0x10000 | 32, 0x20000 | 32, 0x10000 | 32, 0x10000 | 32]  # FLOAT32, INT32, FLOAT32, FLOAT32
        found = answers(made, feeds)
        assert [(array.shape, array.dtype.name) for array in found.values()] == [((1, 8), "float32"), ((1,), "float32")]

    @pytest.mark.parametrize("precision", [FP32, FP16])
    def test_every_tensor_under_a_node_s_name_is_that_node_s(
        self, two: ProgramEntry, tmp_path: Path, feeds: dict[str, Any], precision: Precision
    ) -> None:
        made = package(two, tmp_path, precision)
        shared = tuple(name for name in runtime_for(made).tensors(made) if name in TorchRuntime().tensors(two.artifact))
        assert len(shared) >= 6
        with TorchRuntime().load(two.artifact, SessionOptions(taps=shared)) as session:
            expected = session.run(feeds)
        for name, array in answers(made, feeds, shared).items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5 if precision is FP32 else 2e-2, err_msg=name)

    @pytest.mark.parametrize("precision", [FP32, FP16])
    def test_tensors_that_coremltools_turned_are_shown_as_the_network_has_them(self, tmp_path: Path, precision: Precision) -> None:
        torch.manual_seed(0)
        turned = entry(tmp_path / "p", Turned(), {"signal": torch.randn(1, 3, 8)})
        made = package(turned, tmp_path, precision)
        views, feed = views_of(made.manifest), {"signal": np.random.default_rng(0).normal(size=(1, 3, 8)).astype(np.float32)}
        assert views.keys() == {"mul", "softplus", "add", "getitem", "getitem_1", "sigmoid", "tanh", "cat"}
        shared = tuple(views)
        with TorchRuntime().load(turned.artifact, SessionOptions(taps=shared)) as session:
            expected = session.run(feed)
        for name, array in answers(made, feed, shared).items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5 if precision is FP32 else 2e-2, err_msg=name)

    def test_a_name_that_is_no_identifier_is_refused(self, tmp_path: Path) -> None:
        program = entry(tmp_path / "p", nn.Linear(4, 4), {"in/put": torch.randn(1, 4)})
        with pytest.raises(InputError, match="cannot name a tensor 'in/put'"):
            package(program, tmp_path)


class TestFolder:
    def test_it_has_the_layout_that_xcode_expects(self, two: ProgramEntry, tmp_path: Path) -> None:
        made = package(two, tmp_path)
        files = {path.relative_to(made.path).as_posix() for path in made.path.rglob("*") if path.is_file()}
        weights = "Data/com.apple.CoreML/weights/weight.bin"
        assert files == {"Manifest.json", "Data/com.apple.CoreML/model.mlmodel", weights}
        manifest = json.loads((made.path / "Manifest.json").read_text())
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        assert root["path"] == "com.apple.CoreML/model.mlmodel"
        assert all((made.path / "Data" / item["path"]).exists() for item in manifest["itemInfoEntries"].values())

    def test_what_was_made_before_needs_no_coremltools(self, two: ProgramEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = package(two, tmp_path, layout=Layout.ANE)
        monkeypatch.setitem(sys.modules, "coremltools", None)
        assert package(two, tmp_path, layout=Layout.ANE).manifest == made.manifest
        assert [note for note in made.manifest.lineage[-1].notes if note.startswith("Neural Engine: ")]

    def test_another_process_writes_the_same_bytes(self, checkpoint: Path, two: ProgramEntry, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from test_coreml_export import *;"
            "made = package(read_program_entry(Path(sys.argv[1])), Path(sys.argv[2]), FP16, classifier=False); print(made.manifest.sha256)"
        )
        digests = set()
        for seed in ("1", "2"):
            environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
            words = [sys.executable, "-c", code, str(two.artifact.path.parent), str(tmp_path / seed)]
            digests.add(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip())
        assert len(digests) == 1
        assert len(digests.pop()) == 64

    def test_the_manifest_leads_from_the_program_to_the_package(self, two: ProgramEntry, tmp_path: Path) -> None:
        made = package(two, tmp_path, FP16, author="me", ios=16)
        *_, program, link = made.manifest.lineage
        assert (program.kind, link.kind, link.sha256) == ("program", "coreml", sha256_of(made.path))
        assert {"coremltools", "torch"} <= link.tools.keys()
        assert (link.options["ios"], link.options["author"], link.options["image"]) == (16, "me", None)


class Beyond(nn.Module):
    """What FP16 does not hold: a node's tensor, one that a split takes apart, and two that are within what is one node to torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.split, self.norm, self.attention = nn.Linear(8, 8), nn.GroupNorm(2, 4), Attention()

    def forward(self, x: Tensor) -> Any:
        left, right = (self.split(x) * 1e6).chunk(2, 1)
        return {
            "steps": self.last(self.middle(self.first(x) * 1e6) * 1e-6),
            "parts": left * 0.5 * 1e-6 + right * 1e-6,
            "grouped": self.norm(x.reshape(1, 4, 2) * 600),
            "attended": self.attention(x.reshape(1, 1, 4, 2)),
        }


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x * 500, x * 500, x)


class TestFloat16:
    def test_what_overflows_stays_fp32_and_the_answers_are_right(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        program = entry(tmp_path / "p", Beyond(), {"x": torch.randn(1, 8)})
        made = package(program, tmp_path, FP16)
        found = {operation.outputs[0].name: dtype_of(operation) for operation in operators(made)}
        assert [found[f"linear{number}"] for number in ("", "_1", "_2", "_3")].count("fp32") == 1
        link = made.manifest.parent("coreml")
        assert link is not None
        assert [note for note in link.notes if note.startswith("middle stays FP32: |mul_") and note.endswith("FP16 ends at 65504")]
        assert link.options["fp32_modules"].keys() == {"(the network itself)", "middle", "norm", "attention"}
        feed = {"x": np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)}
        with TorchRuntime().load(program.artifact, SessionOptions()) as session:
            expected = session.run(feed)
        for name, array in answers(made, feed).items():
            np.testing.assert_allclose(array, expected[name], rtol=0.02, atol=0.02, err_msg=name)

    def test_what_is_named_stays_fp32_with_its_children(self, two: ProgramEntry, tmp_path: Path) -> None:
        made = package(two, tmp_path, FP16, keep=("stem",))
        types = {operation.type: dtype_of(operation) for operation in operators(made) if operation.type in ("conv", "gelu", "linear")}
        assert types == {"conv": "fp32", "gelu": "fp32", "linear": "fp16"}

    def test_a_module_that_is_not_there_is_refused(self, two: ProgramEntry, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no node comes from a module 'steam'"):
            package(two, tmp_path, FP16, keep=("steam",))


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Any:
        return self.head(self.stem(image).relu().mean((2, 3)))


class TestInterface:
    @pytest.fixture(scope="class")
    @classmethod
    def scores(cls, tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
        torch.manual_seed(0)
        how = {"resize": 16, "crop": [16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "channels": "bgr"}
        facts: dict[str, Any] = {"classes": ("cat", "dog", "owl"), "preprocessing": how, "output_names": ("logits",)}
        return entry(tmp_path_factory.mktemp("scores"), Scores(), {"image": torch.randn(1, 3, 16, 16)}, **facts)

    def test_a_classifier_names_the_likeliest_class_and_keeps_the_scores(self, scores: ProgramEntry, tmp_path: Path) -> None:
        made = package(scores, tmp_path, classifier=True)
        found = description(made)
        assert {feature.name for feature in found.output} == {"classLabel", "classLabel_probs", "logits"}
        assert (found.predictedFeatureName, found.predictedProbabilitiesName) == ("classLabel", "classLabel_probs")
        *_, softmax, classify = operators(made)
        assert (softmax.type, classify.type) == ("softmax", "classify")
        assert "logits" in answers(made, {"image": np.zeros((1, 3, 16, 16), np.float32)})

    def test_a_network_without_class_names_is_no_classifier(self, two: ProgramEntry, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be a classifier: it has 0 class names"):
            package(two, tmp_path, classifier=True)

    def test_a_classifier_takes_the_names_of_a_class_map_where_the_checkpoint_names_none(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        inputs = {"image": torch.randn(1, 3, 16, 16)}
        unnamed = entry(tmp_path / "unnamed", Scores(), inputs, output_names=("logits",))
        (tmp_path / "names.txt").write_text("kitten\npuppy\nowlet\n")
        made = package(unnamed, tmp_path / "cache", class_map=read_class_map(tmp_path / "names.txt"), classifier=True)
        assert made.manifest.classes == ("kitten", "puppy", "owlet")  # which the package is held to when it is loaded
        assert "logits" in answers(made, {"image": np.zeros((1, 3, 16, 16), np.float32)})
        assert description(made).predictedFeatureName == "classLabel"

    @pytest.mark.parametrize("precision", [FP32, FP16])
    def test_pixels_are_normalised_inside_as_the_preprocessing_says(
        self, scores: ProgramEntry, tmp_path: Path, precision: Precision
    ) -> None:
        made, plain = package(scores, tmp_path, precision, image=True), package(scores, tmp_path, precision)
        (feature,) = description(made).input
        assert (feature.type.imageType.width, feature.type.imageType.height, feature.type.imageType.colorSpace) == (16, 16, 30)  # BGR
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16)).astype(np.float32)
        mean, std = (np.array(three, np.float32).reshape(1, 3, 1, 1) for three in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
        feed = {"image": (pixels / 255 - mean) / std}
        np.testing.assert_allclose(answers(made, feed)["logits"], answers(plain, feed)["logits"], atol=1e-5 if precision is FP32 else 5e-3)

    def test_what_is_no_image_takes_no_pixels(self, two: ProgramEntry, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not one image of three channels"):
            package(two, tmp_path, image=True)

    def test_xcode_shows_what_was_given(self, scores: ProgramEntry, tmp_path: Path) -> None:
        words = {"author": "A. Author", "licence": "MIT", "version": "1.2", "description": "Tells cats from owls."}
        shown = description(package(scores, tmp_path, **words)).metadata
        assert [shown.author, shown.license, shown.versionString, shown.shortDescription] == list(words.values())
        assert dict(shown.userDefined) == {"classes": "cat,dog,owl"}

    @pytest.mark.parametrize(("ios", "specification"), [(16, 7), (17, 8), (18, 9)])
    def test_the_deployment_target_is_the_one_asked_for(self, scores: ProgramEntry, tmp_path: Path, ios: int, specification: int) -> None:
        from dtvit_deploy.export.coreml.saved import read_mlpackage

        assert read_mlpackage(package(scores, tmp_path, ios=ios).path).get_spec().specificationVersion == specification


class TestRefusals:
    def test_an_operator_without_translation_is_named_with_its_module(self, tmp_path: Path) -> None:
        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return torch.special.bessel_j1(x)

        program = entry(tmp_path / "p", nn.Sequential(nn.Linear(4, 4), Odd()), {"x": torch.randn(1, 4)})
        with pytest.raises(InputError, match=r"^coremltools cannot translate special_bessel_j1 \(special_bessel_j1\) in 1: ") as caught:
            package(program, tmp_path)
        assert caught.value.remedy
        assert "replace that operator" in caught.value.remedy

    def test_so_is_one_whose_tensors_core_ml_cannot_hold(self, tmp_path: Path) -> None:
        class Six(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return x.reshape(1, 2, 2, 5, 2, 5).flip(1).amax((3, 5))

        program = entry(tmp_path / "p", nn.Sequential(nn.ReLU(), Six()), {"x": torch.randn(1, 2, 10, 10)})
        with pytest.raises(InputError, match=r"^coremltools cannot translate reshape \(\w+\) in 1: .* rank 6 tensor"):
            package(program, tmp_path)

    def test_a_variance_is_not_called_untranslatable_for_what_the_onnx_exporter_made_of_it(self, tmp_path: Path) -> None:
        class Variances(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return {"all": x.var(), "lines": x.std(2, keepdim=True), "biased": x.var((1, 2), correction=0)}

        made = package(entry(tmp_path / "p", Variances(), {"x": torch.randn(1, 3, 5)}), tmp_path)
        x = np.random.default_rng(0).normal(3, 2, size=(1, 3, 5)).astype(np.float32)
        for name, array in answers(made, {"x": x}).items():
            np.testing.assert_allclose(array, Variances()(torch.from_numpy(x))[name], rtol=1e-5, err_msg=name)

    def test_int8_needs_ios_17_and_says_what_ios_16_can_have(self) -> None:
        with pytest.raises(InputError, match="INT8 activations need iOS 17") as caught:
            require_coreml(CoreMlOptions(ios=16), [FP16, Precision.INT8])
        assert caught.value.remedy
        assert "--weights int8" in caught.value.remedy

    def test_numpy_that_coremltools_fails_with_is_refused_beforehand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(np, "__version__", "2.4.1")
        with pytest.raises(MissingError, match=r"does not work with NumPy 2\.4\.1") as caught:
            require_coreml(CoreMlOptions(), [FP32])
        assert caught.value.remedy
        assert "numpy<2.4" in caught.value.remedy

    def test_without_coremltools_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "coremltools", None)
        with pytest.raises(MissingError, match="coremltools is not installed") as caught:
            require_coreml(CoreMlOptions(), [FP32])
        assert caught.value.remedy == "pip install 'dtvit-deploy[coreml]'"


@pytest.mark.thorough
def test_the_digits_answer_as_in_torch(checkpoint: Path, digits: Path, tmp_path: Path) -> None:
    asked = ("-c", checkpoint, "-t", "coreml", "-p", "fp32", "-p", "fp16", "--data", digits / "held-out")
    deploy("export", *asked, "-o", tmp_path)
    paths = [tmp_path / f"dualtoken-vit-t-mix.{precision}.mlpackage" for precision in (FP32, FP16)]
    report = json.loads(deploy("verify", *paths, "--data", digits / "held-out", "--samples", 32, "--layers", "--json").stdout)
    full, half = report["subjects"][1:]
    assert {full["rung"], half["rung"]} == {"emulated"}
    assert max(one["max_abs"] for one in full["parity"]) <= 1e-4
    for subject, least in ((full, 1.0), (half, 0.998)):
        assert all(one["agreement"] >= least for one in subject["parity"] if one["feeds"] == "images")
        assert len(subject["layers"]["layers"]) > 500
    assert load_artifact(paths[1]).bytes < 0.52 * load_artifact(paths[0]).bytes


def test_own_networks_are_checked_like_any(two: ProgramEntry, tmp_path: Path) -> None:
    material = open_material(None, two.artifact.manifest)
    report = checked(two, [package(two, tmp_path)], material, samples=4)
    assert report.verdict is not None
    assert report.verdict.passed, report.verdict.reason


def test_what_cannot_be_evaluated_is_said_at_export_and_refused_with_its_module(tmp_path: Path) -> None:
    warped = entry(tmp_path / "warped", Warped(), {"picture": torch.randn(1, 3, 8, 8)})
    made = package(warped, tmp_path / "cache")
    said = "operators of CoreML7 that are not evaluated here: resample (first for grid_sampler in warp)"
    assert any(note.startswith("cannot be verified here: ") and note.endswith(said) for note in made.manifest.lineage[-1].notes)
    with pytest.raises(InputError) as refused:
        checked(warped, [made], open_material(None, made.manifest), samples=1)
    assert str(refused.value).endswith(said)
