"""INT8 in Core ML packages: pairs around every product, weights stored as INT8, the ranges of the one table, and the same answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Link, load_artifact
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.ranges import load_ranges
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import Weights
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from packages import converted

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow
LOST = 2
"""Images of 500: 0.4 points of top-1."""
PRODUCTS = ("linear", "conv")
INT8 = 21
"""``DataType`` of MIL.proto."""


class Saved:
    """A saved package, read by its protocol buffers alone."""

    def __init__(self, path: Path) -> None:
        from dtvit_deploy.export.coreml.saved import read_mlpackage

        (block,) = read_mlpackage(path).get_spec().mlProgram.functions["main"].block_specializations.values()
        self.operations = list(block.operations)
        self.made_by = {output.name: operation for operation in self.operations for output in operation.outputs}
        self.counts = Counter(operation.type for operation in self.operations if operation.type != "const")

    @property
    def products(self) -> list[Any]:
        return [operation for operation in self.operations if operation.type in PRODUCTS]

    def source(self, operation: Any, argument: str) -> Any:
        return self.made_by.get(operation.inputs[argument].arguments[0].name)

    def readers(self, operation: Any) -> list[Any]:
        name = operation.outputs[0].name
        return [reader for reader in self.operations for given in reader.inputs.values() for one in given.arguments if one.name == name]

    def number(self, operation: Any, argument: str) -> float:
        """A constant scalar, wherever it lies."""
        given = operation.inputs[argument].arguments[0]
        value = given.value if given.WhichOneof("binding") == "value" else self.made_by[given.name].attributes["val"]
        return float(np.frombuffer(value.immediateValue.tensor.bytes.values, np.float16)[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, ranges: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("coreml")
    asked = ("-t", "onnx", "-t", "coreml", "-p", "fp32", "-p", "int8", "--ranges", ranges)
    deploy("export", "-c", checkpoint, *asked, "-o", folder)
    return folder


def packaged(folder: Path, precision: Precision) -> Artifact:
    return load_artifact(folder / f"dualtoken-vit-t-mix.{precision}.mlpackage")


@pytest.mark.thorough
class TestDigits:
    def test_every_product_stands_between_quantise_and_dequantise(self, exported: Path) -> None:
        saved = Saved(packaged(exported, Precision.INT8).path)
        assert len(saved.products) == 185
        for product in saved.products:
            before = saved.source(product, "x")
            assert (before.type, saved.source(before, "input").type) == ("dequantize", "quantize")
        last = [saved.readers(product)[0] if saved.readers(product)[0].type == "sigmoid" else product for product in saved.products]
        following = [tuple(reader.type for reader in saved.readers(operation)) for operation in last]
        assert Counter(following) == {("quantize",): 184, ("cast",): 1}  # scores are not rounded to 256 steps
        assert saved.counts["quantize"] == saved.counts["dequantize"] == 185 + 184

    def test_every_product_has_int8_weights_with_a_scale_for_each_channel(self, exported: Path) -> None:
        saved = Saved(packaged(exported, Precision.INT8).path)
        for product in saved.products:
            weights = saved.source(product, "weight")
            assert weights.type == "constexpr_affine_dequantize"
            stored, scale = (weights.attributes[name].type.tensorType for name in ("quantized_data", "scale"))
            assert stored.dataType == INT8
            channels = stored.dimensions[0].constant.size
            assert [one.constant.size for one in scale.dimensions] == ([channels] if channels > 1 else [])

    def test_the_package_is_less_than_a_third_of_fp32_s(self, exported: Path) -> None:
        assert packaged(exported, Precision.INT8).bytes <= 0.30 * packaged(exported, Precision.FP32).bytes

    def test_the_manifest_has_the_digest_of_the_table_that_onnx_has(self, exported: Path, ranges: Path) -> None:
        mine, onnx = packaged(exported, Precision.INT8), load_artifact(exported / "dualtoken-vit-t-mix.int8.onnx")
        links = [artifact.manifest.parent("int8") for artifact in (mine, onnx)]
        assert [link.options["ranges"] for link in links if link] == [load_ranges(ranges).sha256] * 2
        assert [link.options["method"] for link in links if link] == ["mse"] * 2
        assert [link.kind for link in mine.manifest.lineage][-3:] == ["program", "coreml", "int8"]
        assert links[0] is not None
        assert links[0].options["products"] == 185

    def test_scales_are_the_table_s(self, exported: Path, ranges: Path) -> None:
        """An INT8 tensor of bound b has the scale b / 127, as FP16 has it."""
        saved, table = Saved(packaged(exported, Precision.INT8).path), load_ranges(ranges)
        compared = 0
        for quantize in (operation for operation in saved.operations if operation.type == "quantize"):
            name = quantize.inputs["input"].arguments[0].name
            if name in table.tensors:
                bound = max(abs(table.tensors[name].mse.low), abs(table.tensors[name].mse.high))
                assert saved.number(quantize, "scale") == pytest.approx(bound / 127, rel=2e-3)
                compared += 1
        assert compared > 150

    def test_at_most_two_of_500_images_are_lost(self, exported: Path, digits: Path) -> None:
        path = packaged(exported, Precision.INT8).path
        report = json.loads(deploy("evaluate", path, "--data", digits / "held-out", "--json").stdout)
        reference, mine = (one["accuracy"] for one in report["subjects"])
        assert (reference["samples"], report["subjects"][1]["rung"]) == (500, "emulated")
        assert round(500 * (reference["top1"] - mine["top1"])) <= LOST

    def test_modules_that_are_named_stay_in_float(self, ranges: Path, checkpoint: Path, tmp_path: Path) -> None:
        deploy("export", "-c", checkpoint, "-t", "coreml", "-p", "int8", "--ranges", ranges, "--keep-fp32", "stages.2", "-o", tmp_path)
        made = packaged(tmp_path, Precision.INT8)
        saved = Saved(made.path)
        link = made.manifest.parent("int8")
        assert link is not None
        kept = [product for product in saved.products if saved.source(product, "weight").type == "const"]
        assert 0 < len(kept) == 185 - link.options["products"]
        assert link.options["in_float"] == ["stages.2"]

    @pytest.mark.parametrize(
        ("weights", "share", "operator"), [("int8", 0.29, "affine"), ("palette6", 0.23, "lut"), ("palette4", 0.17, "lut")]
    )
    def test_weights_alone_can_be_made_smaller(
        self, exported: Path, checkpoint: Path, digits: Path, tmp_path: Path, weights: str, share: float, operator: str
    ) -> None:
        deploy("export", "-c", checkpoint, "-t", "coreml", "-p", "fp16", "--ios", "16", "--weights", weights, "-o", tmp_path)
        made = load_artifact(tmp_path / f"dualtoken-vit-t-mix.fp16.{weights}.mlpackage")
        assert made.bytes <= share * packaged(exported, Precision.FP32).bytes
        counts = Saved(made.path).counts
        assert sum(number for kind, number in counts.items() if kind.startswith("constexpr_") and operator in kind) == 185
        assert counts["quantize"] == 0
        link = made.manifest.lineage[-1]
        assert (link.kind, link.options) == ("weights", {"weights": weights, "tensors": 185})


class Shared(nn.Module):
    """A product of two activations, one weight read by two products, a channel of zeros, an activation behind a product, and biases of
    zeros that a layer norm has too: coremltools makes equal constants one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(16)
        self.second.weight = self.first.weight
        with torch.no_grad():
            self.last.weight[3] = 0
            self.first.bias.zero_()

    def forward(self, x: Tensor) -> Any:
        one, other = self.first(x).sigmoid(), self.norm(self.second(x))
        return self.last(one @ other.transpose(1, 2) @ other)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProgramEntry, Path]:
    """Its program, and its FP16 package."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("shared")
    seeded = Link(kind="seeded", sha256="0" * 64)
    write_program(
        Reference(model="mine:net", module=Shared().eval(), inputs={"x": torch.randn(1, 4, 16)}, output_names=("y",), weights=seeded),
        folder,
    )
    entry = read_program_entry(folder)
    return entry, converted(entry, Precision.FP16, folder / "half.mlpackage").path


def quantised(shared: tuple[ProgramEntry, Path], path: Path, ranges: dict[str, tuple[float, float]], *keep: str) -> Any:
    from dtvit_deploy.export.coreml.int8 import quantise_mlpackage

    entry, half = shared
    return quantise_mlpackage(half, path, ranges, entry.nodes, 17, keep)


def every(nodes: NodeMap, bound: float = 4.0) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(("x", *(node.name for node in nodes.nodes)), (-bound, bound))


class TestEdges:
    def test_products_of_activations_stay_and_the_rest_does_not(self, shared: tuple[ProgramEntry, Path], tmp_path: Path) -> None:
        made = quantised(shared, tmp_path / "a.mlpackage", every(shared[0].nodes))
        assert dict(made.modules) == {"first": 1, "second": 1, "last": 1}
        saved = Saved(tmp_path / "a.mlpackage")
        assert saved.counts["matmul"] == 2
        assert saved.counts["constexpr_affine_dequantize"] == 2  # one of them is read twice

    def test_weights_that_a_float_product_reads_too_stay_float(self, shared: tuple[ProgramEntry, Path], tmp_path: Path) -> None:
        made = quantised(shared, tmp_path / "a.mlpackage", every(shared[0].nodes), "first")
        assert dict(made.modules) == {"last": 1}
        assert [note for note in made.notes if "shares its weights" in note]

    def test_without_a_range_a_product_stays_float_and_the_note_says_so(self, shared: tuple[ProgramEntry, Path], tmp_path: Path) -> None:
        ranges = every(shared[0].nodes)
        made = quantised(shared, tmp_path / "a.mlpackage", {name: value for name, value in ranges.items() if name != "x"})
        assert dict(made.modules) == {"last": 1}
        assert sorted(made.notes) == ["linear stays FP16: its input has no range", "linear_1 stays FP16: its input has no range"]

    @pytest.mark.parametrize("bound", [1e-4, 4e4])
    def test_what_fp16_has_no_scale_for_stays_float(self, shared: tuple[ProgramEntry, Path], tmp_path: Path, bound: float) -> None:
        made = quantised(shared, tmp_path / "a.mlpackage", every(shared[0].nodes) | {"x": (-bound, bound)})
        assert dict(made.modules) == {"last": 1}
        assert all("no good scale" in note for note in made.notes)

    def test_a_tensor_that_is_always_zero_does_no_harm(self, shared: tuple[ProgramEntry, Path], tmp_path: Path) -> None:
        made = quantised(shared, tmp_path / "a.mlpackage", every(shared[0].nodes) | {"x": (0.0, 0.0)})
        assert sum(made.modules.values()) == 3
        saved = Saved(tmp_path / "a.mlpackage")
        scales = [saved.number(operation, "scale") for operation in saved.operations if operation.type == "quantize"]
        assert all(np.isfinite(scale) and scale > 0 for scale in scales)

    def test_int8_of_nothing_is_refused(self, shared: tuple[ProgramEntry, Path], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nothing would be INT8"):
            quantised(shared, tmp_path / "a.mlpackage", {})

    @pytest.mark.parametrize("weights", list(Weights))
    def test_the_same_package_comes_twice(self, shared: tuple[ProgramEntry, Path], tmp_path: Path, weights: Weights) -> None:
        from dtvit_deploy.artifacts.artifact import sha256_of
        from dtvit_deploy.export.coreml.int8 import compress_mlpackage

        for name in ("a", "b"):
            compress_mlpackage(shared[1], tmp_path / f"{name}.mlpackage", weights, 17)
            quantised(shared, tmp_path / f"{name}8.mlpackage", every(shared[0].nodes))
        assert sha256_of(tmp_path / "a.mlpackage") == sha256_of(tmp_path / "b.mlpackage")
        assert sha256_of(tmp_path / "a8.mlpackage") == sha256_of(tmp_path / "b8.mlpackage")

    def test_weights_of_a_package_that_is_not_built_are_refused(self, checkpoint: Path, tmp_path: Path) -> None:
        done = deploy("export", "-c", checkpoint, "-t", "coreml", "-p", "fp32", "--weights", "int8", "-o", tmp_path / "out", code=2)
        assert "add --precision fp16" in done.stderr
        assert not (tmp_path / "out").exists()

    def test_options_without_their_target_are_refused(self, checkpoint: Path, tmp_path: Path) -> None:
        done = deploy("export", "-c", checkpoint, "-t", "onnx", "--image-input", "-o", tmp_path / "out", code=2)
        assert "add --target coreml" in done.stderr
