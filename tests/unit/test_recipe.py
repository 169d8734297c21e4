from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.artifacts.toml_file import LARGEST
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.judging import Gates
from dtvit_deploy.recipe.reading import load_recipe
from dtvit_deploy.recipe.tables import PreprocessingChanges, Recipe

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(textwrap.dedent(text))
        return path

    return to_file


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "digits").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_recipes(path: Path) -> None:
    assert load_recipe(path).model.checkpoint == path.parent / "digits.safetensors"


WHOLE = """
    [model]
    name = "my.package:network"
    checkpoint = "weights/net.safetensors"
    input_size = [512, 384]
    num_classes = 10
    inputs = [{ name = "image", shape = [1, 3, 512, 384] }, { name = "pose", shape = [1, 6], dtype = "float64" }]
    outputs = ["logits", "depth"]
    seed = 7

    [data]
    evaluation = "images/held-out"
    calibration = "/data/calibration"
    samples = 128

    [preprocessing]
    crop = [512, 384]
    interpolation = "bilinear"

    [export]
    targets = ["onnx"]
    precisions = ["fp32", "fp16"]
    keep_fp32 = ["stages.2.0.norm1"]

    [run]
    threads = 2

    [gates]
    fp32 = { max_abs = 1e-5, cosine = 0.999999 }
    fp16 = { agreement = 1, top1_drop = 0.004, p50_ms = 40 }
"""


def test_a_whole_recipe(write: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write(WHOLE))
    assert recipe.model.checkpoint == tmp_path / "weights/net.safetensors"
    assert recipe.model.inputs[1] == TensorSpec("pose", (1, 6), "float64")
    assert recipe.model.outputs == ("logits", "depth")
    assert recipe.model.input_size == (512, 384)
    assert recipe.data.evaluation == tmp_path / "images/held-out"
    assert recipe.data.calibration == Path("/data/calibration")
    assert recipe.export.targets == (Target.ONNX,)
    assert recipe.export.precisions == (Precision.FP32, Precision.FP16)
    assert recipe.run.threads == 2
    assert recipe.gates.fp16.p50_ms == 40


def test_a_checkpoint_is_enough(write: Write) -> None:
    recipe = load_recipe(write('model.checkpoint = "net.safetensors"'))
    assert recipe.model.name is None
    assert recipe.export.precisions == (Precision.FP32,)
    assert recipe.data.samples == 64


def test_paths_follow_the_recipe_and_not_the_current_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('model.checkpoint = "net.safetensors"')
    monkeypatch.chdir(path.parent.parent)
    beside = Path(path.parent.name) / path.name
    assert load_recipe(beside).model.checkpoint == Path(path.parent.name) / "net.safetensors"


def test_agreement_is_asked_for_even_where_the_recipe_is_silent(write: Write) -> None:
    gates = load_recipe(write(WHOLE)).gates
    assert (gates.of(Precision.FP32).agreement, gates.of(Precision.FP32).max_abs) == (1.0, 1e-5)
    assert gates.of(Precision.FP16).agreement == 1
    assert Gates().of(Precision.FP16).agreement == 0.998


def test_every_precision_has_its_gates() -> None:
    assert {gate.name for gate in msgspec.structs.fields(Gates)} == {precision.value for precision in Precision}
    assert all(Gates().of(precision).agreement is not None for precision in Precision)


class TestPreprocessing:
    def test_changes_are_laid_over_what_the_model_says(self, write: Write) -> None:
        base = Preprocessing.for_input(512, 384)
        made = load_recipe(write(WHOLE)).preprocessing.of(base)
        assert (made.crop, made.interpolation, made.resize) == ((512, 384), "bilinear", base.resize)
        assert Recipe(model=load_recipe(write(WHOLE)).model).preprocessing.of(base) == base

    def test_changes_that_make_no_sense_together_are_refused(self) -> None:
        with pytest.raises(InputError, match="less than the crop"):
            PreprocessingChanges(crop=(512, 512)).of(Preprocessing())

    def test_all_of_it_can_be_changed_and_nothing_else(self) -> None:
        fields, changes = get_type_hints(Preprocessing), get_type_hints(PreprocessingChanges)
        assert {name: kind | None for name, kind in fields.items()} == changes


@pytest.mark.parametrize(
    ("text", "key", "known"),
    [
        ("modle = 1", "modle is", "model, data, preprocessing, export, int8, tensorrt, coreml, run, device, parity, profile, gates"),
        ("model.nmae = 'x'", "model.nmae is", "name, checkpoint, input_size"),
        ("gates.fp16.agrement = 1", "gates.fp16.agrement is", "agreement, max_abs, cosine, top1_drop, p50_ms"),
        ("gates.fp8.agreement = 1", "gates.fp8 is", "fp32, fp16, bf16, int8"),
        ("model.inputs = [{name='a', shape=[1]}, {name='b', size=[1]}]", "model.inputs[1].size is", "name, shape, dtype"),
        ("export.precisions = ['fp32', 'fp8']", "export.precisions[1] = 'fp8' is", "fp32, fp16"),
        ("export.targets = ['tensorflow']", "export.targets[0] = 'tensorflow' is", "onnx"),
        ("preprocessing.channels = 'grb'", "preprocessing.channels = 'grb' is", "bgr, rgb"),
    ],
)
def test_an_unknown_key_or_choice_is_refused_with_the_known_ones(write: Write, text: str, key: str, known: str) -> None:
    with pytest.raises(InputError) as refused:
        load_recipe(write(text))
    assert "recipe.toml: " in str(refused.value)
    assert f"{key} not known; known there: {known}" in str(refused.value)


def test_all_unknown_keys_are_named_at_once(write: Write) -> None:
    with pytest.raises(InputError, match=r"modle is not known.*gates\.fp16\.max is not known"):
        load_recipe(write("modle = 1\ngates.fp16.max = 2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model: expected a `name` or a `checkpoint`"),
        ("model.seed = 3", "model: expected a `name` or a `checkpoint`"),
        ("model.name = ''", "model.name: expected text of length at least 1"),
        ("model = {name = 'x', seed = '3'}", "model.seed: expected a whole number, got text"),
        ("model = {name = 'x', seed = -1}", "model.seed: expected a whole number of at least 0"),
        ("model = {name = 'x', seed = 99999999999999999999}", "model.seed: expected a whole number of at most "),
        ("model = {name = 'x', input_size = [224]}", "model.input_size: expected a list of length 2"),
        ("model = {name = 'x', input_size = [224, 0]}", "model.input_size[1]: expected a whole number of at least 1"),
        ("model = {name = 'x', inputs = [{name = 'a', shape = [-1]}]}", "model.inputs[0].shape[0]: expected a whole number of at least 1"),
        ("model = {name = 'x', outputs = ['a', 'a']}", "model: expected each output once, got a again"),
        ("model.checkpoint = ''", "model.checkpoint: expected a path"),
        ("model.checkpoint = 'a\\u0000b'".replace("'", '"'), "model.checkpoint: expected a path"),
        ("model.checkpoint = 3", "model.checkpoint: expected a path, got a whole number"),
        ("model.name = 'x'\nexport.precisions = []", "export.precisions: expected a list of length at least 1"),
        ("model.name = 'x'\nexport.precisions = ['fp16', 'fp16']", "export: expected each precision once, got fp16 again"),
        ("model.name = 'x'\nrun.runtimes = ['mil', 'coreml-npu']", "run: expected runtimes among coreml, coreml-cpu, "),
        ("model.name = 'x'\nrun.runtimes = ['mil', 'mil']", "run: expected each runtime once, got mil again"),
        ("model.name = 'x'\nrun.threads = 0", "run.threads: expected a whole number of at least 1"),
        ("model.name = 'x'\ndata.samples = 0", "data.samples: expected a whole number of at least 1"),
        ("model.name = 'x'\ngates.fp16.agreement = 99.8", "gates.fp16.agreement: expected a number of at most 1"),
        ("model.name = 'x'\ngates.fp16.max_abs = nan", "gates.fp16"),
        ("model.name = 'x'\ngates.fp16.p50_ms = inf", "gates.fp16: expected a number for `p50_ms`, got inf"),
        ("model.name = 'x'\ngates.fp16 = 3", "gates.fp16: expected a table, got a whole number"),
        ("model.name = 1979-05-27", "model.name: expected text, got a date"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        load_recipe(write(text))
    assert "recipe.toml: " in str(refused.value)
    assert message in str(refused.value)
    assert refused.value.remedy


class TestFile:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[profile]\nsamples = 3\nsamples = 4\n", "the key samples is there twice"),
            ("[profile]\nsamples = 3\nsamples = [\n4,\n5]", "the key samples is there twice"),
            ("model = { name = 'a', name = 'b' }", "the key name is there twice in one table"),
            ("[profile]\nsamples = 3\n[profile]\nseconds = 4\n", "[profile] is there twice"),
            ("[gates.fp16]\n[gates.fp16]\n", "[gates.fp16] is there twice"),
            ("model.name = 'x'\n[model]\nseed = 4\n", "[model] is there twice, or beside keys of it that were written elsewhere"),
            ("device = 3\n[[device]]\nname = 'x'", "[[device]] is a table, and has a value already"),
        ],
    )
    def test_what_it_says_twice_is_named(self, write: Write, text: str, said: str) -> None:
        with pytest.raises(InputError) as refused:
            load_recipe(write(text))
        assert f"recipe.toml: {said}" in str(refused.value)
        assert "UTF-8" not in (refused.value.remedy or "")

    @pytest.mark.parametrize("content", [b"a =", b"\xff\xfe", b"a = " + b"[" * 100_000, b"\x00"])
    def test_what_is_no_toml_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "recipe.toml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"recipe\.toml is not a recipe"):
            load_recipe(path)

    def test_what_is_not_there_or_no_file_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
        for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(InputError, match="there is no recipe at"):
                load_recipe(path)

    def test_what_is_too_large_is_refused_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "recipe.toml"
        with path.open("wb") as file:
            file.truncate(1 << 36)  # sparse: reading it whole would fill the memory
        with pytest.raises(InputError, match=f"larger than {LARGEST:,} bytes"):
            load_recipe(path)

    @given(st.text(max_size=200))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    def test_no_text_does_worse_than_be_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "recipe.toml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(InputError):
            load_recipe(path)


class TestParity:
    def test_tolerances_and_adversarial_feeds_are_the_users_to_set(self, write: Write) -> None:
        asked = load_recipe(write('model.name = "x"\n[parity]\nadversarial = false\n[parity.tolerance]\nboxes = 0.5\n"a.b" = 0'))
        assert (asked.parity.adversarial, asked.parity.tolerance) == (False, {"boxes": 0.5, "a.b": 0.0})
        assert (load_recipe(write('model.name = "x"')).parity.adversarial, load_recipe(write('model.name = "x"')).parity.tolerance) == (
            True,
            {},
        )

    @pytest.mark.parametrize("limit", ["-1", "nan", "inf", "'wide'"])
    def test_what_is_no_tolerance_is_refused_with_its_key(self, write: Write, limit: str) -> None:
        with pytest.raises(InputError, match="tolerance"):
            load_recipe(write(f'model.name = "x"\n[parity.tolerance]\nboxes = {limit}'))
