"""How a shape and a size are written on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.cli.options import (
    ChannelOrder,
    Filter,
    model_options,
    parse_input,
    parse_target,
    preprocessing_changes,
    say_if_crowded,
    tolerances,
)
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.reference import ModelOptions
from dtvit_deploy.recipe import PreprocessingChanges

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
SHAPES = st.lists(st.integers(0, 999_999_999), min_size=1, max_size=6).map(tuple)


def options(*, inputs: list[str] | None = None, outputs: list[str] | None = None, size: str | None = None) -> ModelOptions:
    return model_options(None, inputs, outputs, size, None, 0)


@given(NAMES, SHAPES, st.sampled_from(["float32", "int64", "bool"]), st.sampled_from("x×"))
def test_an_input_is_read_as_it_is_written(name: str, shape: tuple[int, ...], dtype: str, times: str) -> None:
    written = f"{name}={times.join(map(str, shape))}"
    assert parse_input(f"{written}:{dtype}") == TensorSpec(name, shape, dtype)
    assert parse_input(written) == TensorSpec(name, shape, "float32")


@given(st.text(max_size=40).filter(lambda text: "=" not in text))
def test_any_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(text))) as caught:
        parse_input(text)
    assert caught.value.remedy == "write it like image=1x3x224x224 or ids=1x16:int64"


@pytest.mark.parametrize(
    "text", ["image=", "=1x3", "image=1x", "image=x3", "image=1,3", "image=-1x3", "1image=1x3", "im age=1x3", "image=1x3:", "a=b=1"]
)
def test_what_is_nearly_an_input_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape("is not NAME=SHAPE[:TYPE]")):
        parse_input(text)


@pytest.mark.parametrize("text", ["image=" + "9" * 5000, "image=1x" + "9" * 10])
def test_a_number_that_no_array_has_is_refused_and_not_computed_with(text: str) -> None:
    with pytest.raises(InputError):
        parse_input(text)


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224, 224)), ("224x192", (224, 192)), ("800×1280", (800, 1280)), ("1", (1, 1)), (None, None)]
)
def test_a_size_is_height_and_width_or_a_square(text: str | None, size: tuple[int, int] | None) -> None:
    assert options(size=text).input_size == size


@pytest.mark.parametrize("text", ["", "x", "224x", "x224", "22a", "224x224x3", "-224", "2.5", "224 224", "9" * 5000])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not HEIGHTxWIDTH") as caught:
        options(size=text)
    assert caught.value.remedy == "write it like 224x224"


@pytest.mark.parametrize("text", ["0", "0x224", "224x0"])
def test_a_size_without_pixels_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="at least 1 pixel"):
        options(size=text)


def test_everything_reaches_the_model_in_order() -> None:
    found = model_options(Path("w.safetensors"), ["b=1x2:int64", "a=1x3"], ["second", "first"], "64x32", 7, 5)
    assert found == ModelOptions(
        checkpoint=Path("w.safetensors"),
        input_size=(64, 32),
        num_classes=7,
        inputs=(TensorSpec("b", (1, 2), "int64"), TensorSpec("a", (1, 3))),
        outputs=("second", "first"),
        seed=5,
    )


def test_what_is_not_given_is_not_asked_for() -> None:
    assert options() == ModelOptions()


def changes(**given: Any) -> PreprocessingChanges:
    every = dict.fromkeys(("resize", "crop", "mean", "std", "interpolation", "channels")) | given
    return preprocessing_changes(**every)


def test_nothing_given_changes_nothing() -> None:
    assert changes() == PreprocessingChanges()


def test_every_change_is_read_as_it_is_written() -> None:
    found = changes(resize=256, crop="224x192", mean="0.5,0.25,0", std="1, 2,3", interpolation=Filter.LANCZOS, channels=ChannelOrder.BGR)
    assert found == PreprocessingChanges(
        resize=256, crop=(224, 192), mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 3.0), interpolation="lanczos", channels="bgr"
    )


@pytest.mark.parametrize("text", ["", "0.5", "0.5,0.5", "0.5,0.5,0.5,0.5", "a,b,c", "0.5;0.5;0.5", "0.5,,0.5"])
@pytest.mark.parametrize("option", ["mean", "std"])
def test_what_is_not_three_numbers_is_refused(option: str, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--{option} {text!r} is not three numbers")):
        changes(**{option: text})


def test_what_is_no_crop_is_refused_by_its_own_name() -> None:
    with pytest.raises(InputError, match="--crop 'big' is not HEIGHTxWIDTH"):
        changes(crop="big")


def test_the_choices_are_those_that_preprocessing_knows() -> None:
    kinds = {field.name: field.type for field in msgspec.structs.fields(Preprocessing)}
    assert get_args(kinds["interpolation"]) == tuple(one.value for one in Filter)
    assert get_args(kinds["channels"]) == tuple(one.value for one in ChannelOrder)


def test_more_threads_than_can_run_at_once_are_taken_and_told_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dtvit_deploy.devices.local.cores", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    assert say_if_crowded(3) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert " ".join(said.err.split()).startswith("· 3 threads, and ")
    assert say_if_crowded(1) == 1
    assert capsys.readouterr().err == ""


class TestTolerances:
    def test_one_for_each_output_whatever_its_name(self) -> None:
        assert tolerances(["boxes=0.5", "a=b=1e-3", "labels=0"]) == {"boxes": 0.5, "a=b": 1e-3, "labels": 0.0}
        assert tolerances(None) == {}

    @pytest.mark.parametrize("text", ["boxes", "=1", "boxes=", "boxes=wide", "boxes=-1", "boxes=nan", "boxes=inf"])
    def test_what_is_no_tolerance_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(InputError) as refused:
            tolerances([text])
        assert "boxes=0.5" in str(refused.value.remedy)

    def test_two_for_one_output_are_refused(self) -> None:
        with pytest.raises(InputError, match="two tolerances"):
            tolerances(["boxes=1", "boxes=2"])


@pytest.mark.parametrize(("name", "target"), [("trt", Target.TRT), ("tensorrt", Target.TRT), ("coreml", Target.COREML)])
def test_a_target_has_the_names_that_people_call_it(name: str, target: Target) -> None:
    assert parse_target(name) is target


@pytest.mark.parametrize("name", ["tensorflow", "TRT", ""])
def test_any_other_name_is_answered_with_all_of_them(name: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is not one of 'onnx', 'openvino', 'trt', 'coreml' \(and 'tensorrt' for 'trt'\)"):
        parse_target(name)


def test_more_threads_than_a_machine_can_start_are_refused() -> None:
    with pytest.raises(InputError, match="100000 threads were asked for, of at most ") as caught:
        say_if_crowded(100000)
    assert "give a thread to each" in (caught.value.remedy or "")
