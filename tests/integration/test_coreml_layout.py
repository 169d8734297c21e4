"""Packages in the Neural Engine's order: the same answers, tensors that are still found, and far fewer operators that only move data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from commandline import deploy, refused
from dtvit_deploy.artifacts.artifact import Artifact, Link, load_artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import Layout, views_of
from dtvit_deploy.formats.mlpackage.views import MOVES, View, flat, moves, sizes
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.mil.evaluate import Evaluator
from dtvit_deploy.runtimes.mil.load import load_program
from dtvit_deploy.runtimes.mil.runtime import MilRuntime
from dtvit_deploy.runtimes.torch.session import TorchRuntime
from packages import package as built

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow
SEEDED = Link(kind="seeded", sha256="0" * 64)
SHARE = 0.4
"""Of the transposes and reshapes of the default's, that may be left."""


def package(folder: Path, module: nn.Module, inputs: dict[str, Tensor], precision: Precision = Precision.FP32, **options: Any) -> Artifact:
    return built(program_of(folder / "program", module, inputs), folder, precision, **options)


def program_of(folder: Path, module: nn.Module, inputs: dict[str, Tensor]) -> ProgramEntry:
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    write_program(Reference(model="mine:net", module=module.eval(), inputs=inputs, weights=SEEDED, output_names=()), folder)
    return read_program_entry(folder)


def counts(artifact: Artifact) -> Counter[str]:
    return Counter(operation.type for operation in load_program(artifact.path).operations)


def moved(artifact: Artifact) -> int:
    return sum(counts(artifact)[kind] for kind in MOVES)


def notes(artifact: Artifact) -> str:
    return "\n".join(note for link in artifact.manifest.lineage for note in link.notes)


class TestViews:
    @given(st.data())
    def test_moves_make_what_numpy_makes(self, data: st.DataObject) -> None:
        shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
        array = np.arange(np.prod(shape)).reshape(shape)
        view, shown = View.plain(None, shape), array
        for _ in range(data.draw(st.integers(1, 4))):
            if data.draw(st.booleans()):
                order = data.draw(st.permutations(range(shown.ndim)))
                view, shown = view.transposed(order), shown.transpose(order)
            else:
                size = data.draw(st.sampled_from([each for each in (1, 2, 3, 4, 6, 12) if shown.size % each == 0]))
                other = view.reshaped([size, shown.size // size])
                if other is None:
                    continue
                view, shown = other, shown.reshape(size, -1)
        held = array
        steps = list(moves(view.held, view.shown))
        for step in steps:
            held = held.reshape(step.arguments) if step.kind == "reshape" else held.transpose(step.arguments)
            assert held.shape == sizes(step.groups)
        np.testing.assert_array_equal(held, shown)
        assert len(steps) <= 3
        assert sorted(map(id, flat(view.held))) == sorted(map(id, flat(view.shown)))


class Drawn:
    """A network of random operators on a few tensors, written in MIL itself."""

    def __init__(self, data: st.DataObject) -> None:
        from coremltools.converters.mil.mil import Builder

        self.mb, self.draw, self.tensors = Builder, data.draw, list[Any]()
        self.rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def constant(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def step(self) -> None:
        kind = self.draw(st.sampled_from(sorted(name for name in dir(self) if name.startswith("a_"))))
        found = getattr(self, kind)(self.draw(st.sampled_from(self.tensors)))
        self.tensors += [var for var in found if var is not None and 1 <= np.prod(var.shape) <= 4096 and 1 <= len(var.shape) <= 5]

    def a_transpose(self, x: Any) -> list[Any]:
        return [self.mb.transpose(x=x, perm=self.draw(st.permutations(range(len(x.shape)))))]

    def a_reshape(self, x: Any) -> list[Any]:
        total, shape = int(np.prod(x.shape)), list[int]()
        for _ in range(self.draw(st.integers(1, 3))):
            shape.append(self.draw(st.sampled_from([each for each in range(1, total + 1) if total % each == 0])))
            total //= shape[-1]
        return [self.mb.reshape(x=x, shape=[*shape, total])]

    def a_squeeze(self, x: Any) -> list[Any]:
        axis = self.draw(st.integers(0, len(x.shape)))
        return [self.mb.expand_dims(x=x, axes=[axis])] if len(x.shape) < 5 else []

    def a_gelu(self, x: Any) -> list[Any]:
        return [self.mb.gelu(x=x, mode="EXACT")]

    def a_scale(self, x: Any) -> list[Any]:
        return [self.mb.mul(x=np.float32(0.7), y=x)]

    def a_bias(self, x: Any) -> list[Any]:
        shape = [size if self.draw(st.booleans()) else 1 for size in x.shape]
        return [self.mb.add(x=x, y=self.constant(*shape[self.draw(st.integers(0, len(shape) - 1)) :]))]

    def a_linear(self, x: Any) -> list[Any]:
        made = self.draw(st.sampled_from([1, 4, 6]))
        return [self.mb.linear(x=x, weight=self.constant(made, x.shape[-1]) * 0.3, bias=self.constant(made))] if len(x.shape) > 1 else []

    def a_norm(self, x: Any) -> list[Any]:
        axes = sorted(self.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1, max_size=2)))
        shape = [x.shape[axis] for axis in axes]
        return [self.mb.layer_norm(x=x, axes=axes, gamma=self.constant(*shape), beta=self.constant(*shape), epsilon=np.float32(0.1))]

    def a_softmax(self, x: Any) -> list[Any]:
        return [self.mb.softmax(x=x, axis=self.draw(st.integers(-len(x.shape), len(x.shape) - 1)))]

    def a_mean(self, x: Any) -> list[Any]:
        axes = sorted(self.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1, max_size=2)))
        keep = len(axes) == len(x.shape) or self.draw(st.booleans())
        return [self.mb.reduce_mean(x=x, axes=axes, keep_dims=keep)]

    def a_split(self, x: Any) -> list[Any]:
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        size = x.shape[axis]
        return list(self.mb.split(x=x, split_sizes=[size // 2, size - size // 2], axis=axis)) if size > 1 else []

    def a_heads(self, x: Any) -> list[Any]:
        """Queries, keys and values of one linear, in heads of two channels."""
        if len(x.shape) != 3:
            return []
        batch, tokens, channels = x.shape
        parts = self.mb.split(
            x=self.mb.linear(x=x, weight=self.constant(12, channels) * 0.3, bias=self.constant(12)), num_splits=3, axis=-1
        )
        q, k, v = (self.mb.transpose(x=self.mb.reshape(x=part, shape=[batch, tokens, 2, 2]), perm=[0, 2, 1, 3]) for part in parts)
        scores = self.mb.softmax(x=self.mb.matmul(x=q, y=k, transpose_y=True), axis=-1)
        mixed = self.mb.transpose(x=self.mb.matmul(x=scores, y=v), perm=[0, 2, 1, 3])
        return [self.mb.reshape(x=mixed, shape=[batch, tokens, 4]), scores]

    def a_concat(self, x: Any) -> list[Any]:
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        return [self.mb.concat(values=[x, self.mb.relu(x=x)], axis=axis)]

    def a_tile(self, x: Any) -> list[Any]:
        return [self.mb.tile(x=x, reps=[self.draw(st.sampled_from([1, 3])) if size == 1 else 1 for size in x.shape])]

    def a_sum(self, x: Any) -> list[Any]:
        others = [
            y for y in self.tensors if all(1 in pair or pair[0] == pair[1] for pair in zip(x.shape[::-1], y.shape[::-1], strict=False))
        ]
        return [self.mb.sub(x=x, y=self.draw(st.sampled_from(others)))]

    def a_product(self, x: Any) -> list[Any]:
        if len(x.shape) < 3:
            return []
        y = self.mb.tanh(x=x)
        first = self.draw(st.booleans())
        return [self.mb.matmul(x=x, y=y, transpose_x=first, transpose_y=not first)]

    def a_convolution(self, x: Any) -> list[Any]:
        return [self.mb.conv(x=x, weight=self.constant(4, x.shape[1], 1, 1) * 0.3)] if len(x.shape) == 4 else []


def answers(path: Path, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    program = load_program(path)
    return Evaluator(program, program.outputs).run(feeds)


class TestAnyProgram:
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(data=st.data())
    def test_of_random_operators_answers_the_same(self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder, Function, Program

        from dtvit_deploy.export.coreml.interface import model_of_mil
        from dtvit_deploy.export.coreml.layout.relay import relay_mlpackage
        from dtvit_deploy.export.coreml.saved import write_mlpackage
        from dtvit_deploy.process.quiet import quiet

        shape = data.draw(st.sampled_from([(1, 6, 4), (2, 6, 4), (1, 4, 2, 3), (2, 4, 3, 3), (1, 4, 1, 6)]))
        folder = tmp_path_factory.mktemp("drawn")
        with quiet():
            with Function({"x": Builder.placeholder(shape, name="x")}, opset_version=ct.target.iOS17) as function:
                drawn = Drawn(data)
                drawn.tensors.append(Builder.relu(x=function.inputs["x"]))
                for _ in range(data.draw(st.integers(2, 10))):
                    drawn.step()
                function.set_outputs([Builder.identity(x=var, name=f"y{index}") for index, var in enumerate(drawn.tensors[-3:])])
            program = Program()
            program.add_function("main", function)
            write_mlpackage(model_of_mil(program, 17), folder / "as-it-is.mlpackage")
        try:
            relay_mlpackage(folder / "as-it-is.mlpackage", folder / "relaid.mlpackage", 17)
        except InputError as error:  # which an export takes back, and says so
            assert "Core ML has at most 5" in str(error)  # noqa: PT017 most of what is drawn has no such tensor
            return
        feeds = {"x": torch.tensor(np.random.default_rng(0).normal(size=shape), dtype=torch.float32)}
        expected, found = (answers(folder / name, feeds) for name in ("as-it-is.mlpackage", "relaid.mlpackage"))
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}")


class Block(nn.Module):
    """A picture in patches, an attention of two heads over them, a mixer of tokens, and a picture again, once with its channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)
        nn.init.normal_(self.norm.weight)
        self.qkv, self.project, self.tokens = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(16, 16)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, image: Tensor) -> Any:
        x = self.norm(self.patches(image).flatten(2).transpose(1, 2))
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        mixed = (q @ k.transpose(2, 3) * 0.5).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        x = self.last(x.transpose(1, 2).unflatten(2, (4, 4)))
        x = (x.permute(0, 2, 3, 1) * self.scale).sigmoid().permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.manual_seed(0)
    return program_of(tmp_path_factory.mktemp("block") / "program", Block(), {"image": torch.randn(1, 3, 16, 16)})


IMAGE = {"image": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}


class TestBlock:
    @pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
    def test_linears_become_convolutions_and_hardly_anything_moves(self, block: ProgramEntry, tmp_path: Path, precision: Precision) -> None:
        default, relaid = built(block, tmp_path, precision), built(block, tmp_path, precision, layout=Layout.ANE)
        assert counts(relaid)["conv"] == counts(default)["conv"] + 2  # qkv, project
        assert counts(relaid)["linear"] == 2  # over tokens, and of one row
        assert counts(relaid)["transpose"] == 0
        assert moved(relaid) <= SHARE * moved(default)
        link = relaid.manifest.parent("layout")
        assert link is not None
        assert (link.options["moves_before"], link.options["moves_after"]) == (moved(default), moved(relaid))
        assert f"transposes + reshapes: {moved(default)} → {moved(relaid)}" in notes(relaid)
        with MilRuntime().load(default, SessionOptions()) as one, MilRuntime().load(relaid, SessionOptions()) as other:
            tolerance = 1e-5 if precision is Precision.FP32 else 1e-2
            np.testing.assert_allclose(other.run(IMAGE)["output"], one.run(IMAGE)["output"], atol=tolerance, rtol=0)

    def test_inner_tensors_are_given_as_the_network_has_them(self, block: ProgramEntry, tmp_path: Path) -> None:
        default, relaid = built(block, tmp_path), built(block, tmp_path, layout=Layout.ANE)
        taps = tuple(name for name in MilRuntime().tensors(relaid) if name in TorchRuntime().tensors(block.artifact))
        assert set(taps) >= {"linear", "softmax", "layer_norm", "matmul_1", "sigmoid"}
        assert set(taps) & views_of(relaid.manifest).keys()
        assert "sigmoid" in views_of(default.manifest)  # coremltools had turned it already
        with (
            MilRuntime().load(relaid, SessionOptions(taps=taps)) as one,
            TorchRuntime().load(block.artifact, SessionOptions(taps=taps)) as two,
        ):
            found, expected = one.run(IMAGE), two.run(IMAGE)
        for name in taps:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)

    def test_a_tensor_whose_order_is_not_told_is_not_offered(self, block: ProgramEntry, tmp_path: Path) -> None:
        relaid = built(block, tmp_path, layout=Layout.ANE)
        manifest = relaid.manifest
        without = msgspec.structs.replace(
            manifest, lineage=tuple(link for link in manifest.lineage if link.kind not in ("coreml", "layout"))
        )
        left = MilRuntime().tensors(msgspec.structs.replace(relaid, manifest=without))
        assert set(left) == set(MilRuntime().tensors(relaid)) - views_of(manifest).keys()

    def test_a_layout_that_makes_no_sense_is_refused(self, block: ProgramEntry, tmp_path: Path) -> None:
        relaid = built(block, tmp_path, layout=Layout.ANE)
        (link,) = (link for link in relaid.manifest.lineage if link.kind == "layout")
        for view in ([[2], [1], [2]], [[2], [0], [-2]], "x"):
            wrong = msgspec.structs.replace(link, options=link.options | {"views": {"linear": view}})
            with pytest.raises(InputError, match="makes no sense"):
                views_of(msgspec.structs.replace(relaid.manifest, lineage=(wrong,)))

    def test_one_that_answers_otherwise_is_rolled_back(self, block: ProgramEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dtvit_deploy.export.coreml.layout import ops as coreml_layout_ops

        right = coreml_layout_ops.arranged
        monkeypatch.setattr(coreml_layout_ops, "arranged", lambda value, like: right(value, like)[::-1])
        default, relaid = built(block, tmp_path), built(block, tmp_path, layout=Layout.ANE)
        assert "layout for the Neural Engine rolled back: output moved:" in notes(relaid)
        assert relaid.manifest.sha256 == default.manifest.sha256
        assert views_of(relaid.manifest) == views_of(default.manifest)

    def test_one_that_fails_is_rolled_back_with_its_reason(
        self, block: ProgramEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dtvit_deploy.export.coreml.layout import rewriting as coreml_layout

        monkeypatch.setattr(coreml_layout, "MOST_AXES", 2)
        relaid = built(block, tmp_path, layout=Layout.ANE)
        assert "rolled back: InputError:" in notes(relaid)
        assert moved(relaid) == moved(built(block, tmp_path))


def test_pixels_and_class_labels_are_kept(tmp_path: Path) -> None:
    how = {"resize": 16, "crop": [16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    facts: dict[str, Any] = {"classes": ("cat", "dog", "owl"), "preprocessing": how, "output_names": ("logits",)}
    (tmp_path / "program").mkdir()
    reference = Reference(model="mine:net", module=Block().eval(), inputs={"image": torch.randn(1, 3, 16, 16)}, weights=SEEDED, **facts)
    write_program(reference, tmp_path / "program")
    relaid = built(read_program_entry(tmp_path / "program"), tmp_path, layout=Layout.ANE, image=True, classifier=True)
    assert "rolled back" not in notes(relaid)
    assert counts(relaid)["transpose"] == 0
    assert counts(relaid)["classify"] == 1


@pytest.mark.thorough
def test_of_the_digits_less_than_half_of_the_moves_are_left(checkpoint: Path, digits: Path, tmp_path: Path) -> None:
    """Of S (mix) too, as benchmarks/coreml_layout.py shows."""
    asked = ("-c", checkpoint, "--data", digits / "held-out")
    deploy("export", *asked, "-t", "coreml", "-p", "fp32", "-o", tmp_path / "default")
    deploy("export", *asked, "-t", "coreml", "-p", "fp32", "--layout", "ane", "-o", tmp_path / "ane")
    default, relaid = (load_artifact(next((tmp_path / name).glob("*.mlpackage"))) for name in ("default", "ane"))
    assert moved(default) > 300
    assert moved(relaid) <= SHARE * moved(default)
    report = json.loads(deploy("verify", relaid.path, "--samples", 4, *asked[2:], "--json").stdout)
    (subject,) = report["subjects"][1:]
    assert max(one["max_abs"] for one in subject["parity"]) <= 1e-4


@pytest.mark.thorough
def test_int8_finds_the_ranges_of_tensors_in_another_order(checkpoint: Path, digits: Path, tmp_path: Path) -> None:
    deploy("calibrate", "-c", checkpoint, "--data", digits / "train", "--samples", 16, "-o", tmp_path / "ranges.json")
    asked = ("-c", checkpoint, "-t", "coreml", "-p", "int8", "--ranges", tmp_path / "ranges.json")
    deploy("export", *asked, "-o", tmp_path / "default")
    deploy("export", *asked, "--layout", "ane", "-o", tmp_path / "ane")
    default, relaid = (load_artifact(next((tmp_path / name).glob("*.mlpackage"))) for name in ("default", "ane"))
    one, other = default.manifest.parent("int8"), relaid.manifest.parent("int8")
    assert one is not None
    assert other is not None
    assert other.options["products"] == one.options["products"] > 150
    assert (counts(relaid)["linear"] + counts(relaid)["conv"]) == (counts(default)["linear"] + counts(default)["conv"])
    assert moved(relaid) <= SHARE * moved(default)


def test_an_order_that_is_not_known_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    assert "ane" in refused("export", "-c", checkpoint, "-t", "coreml", "--layout", "nhwc", cwd=tmp_path)
