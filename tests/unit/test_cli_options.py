"""What is typed on the command line becomes a request: how values are written, and that every flag says what its key of a recipe says."""

from __future__ import annotations

import enum
import re
import shutil
import tempfile
from operator import attrgetter
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.cli import flags, spelling
from dtvit_deploy.cli.app import app
from dtvit_deploy.cli.keys import keys_of
from dtvit_deploy.cli.options import say_if_crowded
from dtvit_deploy.cli.spelling import ChannelOrder, Filter, parse_input, parse_target, tolerances
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.recipe.reading import request
from dtvit_deploy.recipe.tables import Export, PreprocessingChanges, Recipe

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
SHAPES = st.lists(st.integers(0, 999_999_999), min_size=1, max_size=6).map(tuple)


def asked(*given: str) -> Recipe:
    """The request that an export with these words would carry out, by way of the command line itself."""
    done = CliRunner().invoke(app, ["export", *given, "--as-recipe"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    path = Path(tempfile.mkdtemp()) / "recipe.toml"
    try:
        path.write_text(done.output)
        return request(path, {}, {})
    finally:
        shutil.rmtree(path.parent)


def size(text: str) -> tuple[int, int] | None:
    return request(None, {"model.input_size": spelling.size("--input-size", text)}, {}).model.input_size


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


@pytest.mark.parametrize("text", ["image=-1x3x64x64", "image=Nx3x64x64", "image=batchx3x64x64", "image=1x3x?x?", "ids=Bx16:int64"])
def test_a_size_that_is_no_number_is_told_that_shapes_are_static(text: str) -> None:
    with pytest.raises(InputError, match="every size is a number, the batch's too: shapes are static"):
        parse_input(text)


@pytest.mark.parametrize("name", ["tensorflow", "torch"])
def test_the_runtimes_that_a_message_lists_are_those_of_the_help(name: str) -> None:
    asked = CliRunner().invoke(app, ["profile", "x.onnx", "--runtime", name, "--as-recipe"])
    told = " ".join(asked.output.split())
    listed = told.partition("expected runtimes among ")[2].partition(f", got {name}")[0]
    assert "onnxruntime" in listed
    shown = "".join(CliRunner().invoke(app, ["profile", "--help"], terminal_width=200).output.split())
    assert listed.replace(" ", "") in shown


@pytest.mark.parametrize("text", ["image=" + "9" * 5000, "image=1x" + "9" * 10])
def test_a_number_that_no_array_has_is_refused_and_not_computed_with(text: str) -> None:
    with pytest.raises(InputError):
        parse_input(text)


@pytest.mark.parametrize(("text", "found"), [("224", (224, 224)), ("224x192", (224, 192)), ("800×1280", (800, 1280)), ("1", (1, 1))])
def test_a_size_is_height_and_width_or_a_square(text: str, found: tuple[int, int]) -> None:
    assert size(text) == found


@pytest.mark.parametrize("text", ["", "x", "224x", "x224", "22a", "224x224x3", "-224", "2.5", "224 224", "9" * 5000])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not HEIGHTxWIDTH") as caught:
        size(text)
    assert caught.value.remedy == "write it like 224x224"


@pytest.mark.parametrize("text", ["0", "0x224", "224x0"])
def test_a_size_without_pixels_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="at least 1 pixel"):
        size(text)


WORDS_OF_A_MODEL = """-m x:y -c /w.safetensors --input b=1x2:int64 --input a=1x3 --output second --output first
    --input-size 64x32 --num-classes 7 --seed 5"""


def test_everything_reaches_the_model_in_order() -> None:
    found = asked(*WORDS_OF_A_MODEL.split())
    assert found.model == Model(
        name="x:y",
        checkpoint=Path("/w.safetensors"),
        input_size=(64, 32),
        num_classes=7,
        inputs=(TensorSpec("b", (1, 2), "int64"), TensorSpec("a", (1, 3))),
        outputs=("second", "first"),
        seed=5,
    )


def test_what_is_not_given_is_not_asked_for() -> None:
    assert asked() == Recipe()


def test_every_change_is_read_as_it_is_written() -> None:
    words = "--resize 256 --crop 224x192 --mean 0.5,0.25,0 --std 1,2,3 --interpolation lanczos --channels bgr"
    assert asked(*words.split()).preprocessing == PreprocessingChanges(
        resize=256, crop=(224, 192), mean=(0.5, 0.25, 0.0), std=(1.0, 2.0, 3.0), interpolation="lanczos", channels="bgr"
    )


@pytest.mark.parametrize("text", ["", "0.5", "0.5,0.5", "0.5,0.5,0.5,0.5", "a,b,c", "0.5;0.5;0.5", "0.5,,0.5"])
def test_what_is_not_three_numbers_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--std {text!r} is not three numbers")):
        spelling.triple("--std", text)


COMMANDS = {"export": (), "calibrate": (), "verify": ("out",), "evaluate": ("out",), "profile": ("out",)}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_prints_as_a_recipe_is_what_its_flags_ask_for(command: str, tmp_path: Path) -> None:
    """Every flag of every command, one by one: given, printed, and read again it is the same request, which no flag left as it was."""
    for flag in taken_by(command):
        words = [*COMMANDS[command], *example_of(flag)]
        done = CliRunner().invoke(app, [command, *words, "--as-recipe"], catch_exceptions=False)
        assert done.exit_code == 0, (words, done.output)
        (tmp_path / "recipe.toml").write_text(done.output)
        found = request(tmp_path / "recipe.toml", {}, {})
        assert found != Recipe(), words
        again = CliRunner().invoke(app, [command, *COMMANDS[command], "-r", str(tmp_path / "recipe.toml"), "--as-recipe"])
        # A path is relative to the recipe's folder, which is another here, and names of devices are looked up in that.
        if flag.kind is not Path and flag.key != "device":
            assert again.output == done.output


def taken_by(command: str) -> list[flags.Flag]:
    groups = [value if isinstance(value, tuple) else (value,) for value in vars(flags).values()]
    every = [one for group in groups for one in group if isinstance(one, flags.Flag)]
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    options = {name for parameter in parameters for name in parameter.opts}
    found = {one.key: one for one in every if one.name in options and (one.key, command) not in ELSEWHERE}
    assert len(found) > 3
    return list(found.values())


ELSEWHERE = {
    *(("data.calibration", name) for name in ("verify", "evaluate", "profile")),
    *(("data.checks", name) for name in ("verify", "evaluate", "profile", "calibrate")),
    *((key, name) for key in ("int8.samples", "profile.samples") for name in ("verify",)),
    *((key, "profile") for key in ("int8.samples", "data.samples")),
    *((key, "calibrate") for key in ("profile.samples", "data.samples")),
}
"""Keys that another command calls by a word which means another key here: ``--data``, ``--samples``."""
WORDS = {
    "model.inputs": "x=1x3",
    "model.input_size": "64x32",
    "preprocessing.crop": "64",
    "preprocessing.mean": "0,0,0",
    "preprocessing.std": "1,1,1",
    "parity.tolerance": "boxes=0.5",
    "parity.class_scores": "none",
    "run.runtimes": "onnxruntime",
    "export.targets": "openvino",
    "export.precisions": "fp16",
    "coreml.ios": "16",
    "int8.quantizer": "nncf",
    "tensorrt.flavours": "rtx",
    "tensorrt.build.capabilities": "8.9",
    "int8.percentile": "99",
    "profile.seconds": "1",
    "profile.sustained": "90",
    "profile.energy": "1",
}
NEEDS = {"int8.smooth_quant": ("--quantizer", "nncf"), "int8.bias_correction": ("--quantizer", "nncf")}


def example_of(flag: flags.Flag) -> tuple[str, ...]:
    """The flag with a value that is no default."""
    if flag.kind is bool:
        off = flag.typed[0].partition("/")[2]
        usual = attrgetter(flag.key)(Recipe())
        return (off if usual is True else flag.name, *NEEDS.get(flag.key, ()))
    if flag.key in WORDS:
        return flag.name, WORDS[flag.key]
    if isinstance(flag.kind, type) and issubclass(flag.kind, enum.Enum):
        usual = attrgetter(flag.key)(Recipe())
        return flag.name, next(str(one.value) for one in flag.kind if one is not usual and one.value != usual)
    return flag.name, "text" if flag.kind is not int else "1" if flag.most == 1 else "77" if flag.most != 5 else "2"


class TestAFileAndFlags:
    def test_flags_change_what_the_file_says_and_nothing_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text('model.name = "a:b"\n[data]\nevaluation = "held-out"\nsamples = 3\n')
        found = request(tmp_path / "r.toml", {"data.samples": 5, "model.name": "c:d"}, {})
        assert (found.model.name, found.data.samples, found.data.evaluation) == ("c:d", 5, tmp_path / "held-out")

    def test_what_the_file_says_of_targets_that_are_not_asked_for_now_is_left_aside(self, tmp_path: Path) -> None:
        (tmp_path / "r.toml").write_text(
            'model.name = "a:b"\nexport = { targets = ["onnx", "coreml"], precisions = ["fp32", "int8"], cpu = "arm64" }\n'
            "coreml.ios = 16\nint8.samples = 9\ngates.int8.p50_ms = 3\n"
        )
        found = request(tmp_path / "r.toml", {"export.targets": ["openvino"], "export.precisions": ["fp32"]}, {})
        assert found == Recipe(model=Model(name="a:b"), export=Export(targets=(Target.OPENVINO,)))

    def test_a_file_of_the_usual_name_in_the_working_folder_is_the_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("dtvit-deploy.toml").write_text('model.checkpoint = "net.safetensors"\n')
        done = CliRunner().invoke(app, ["export", "--target", "trt", "--as-recipe"], catch_exceptions=False)
        assert done.output == '[model]\ncheckpoint = "net.safetensors"\n\n[export]\ntargets = ["trt"]\n\n'

    def test_a_limit_is_told_in_words(self) -> None:
        with pytest.raises(InputError, match=r"--seconds 2000000000\.0: expected a number of at most 1,000,000,000$"):
            request(None, {"profile.seconds": 2e9}, {"profile.seconds": "--seconds"})
        assert "0<=x<=600" in CliRunner().invoke(app, ["profile", "--help"]).output

    def test_a_wrong_flag_is_named_as_it_was_typed(self) -> None:
        with pytest.raises(InputError, match="--capability ten: expected text matching regex"):
            request(None, {"tensorrt.build.capabilities": ["ten"]}, {"tensorrt.build.capabilities": "--capability"})


class TestFlagsInAMessageToWhoWroteARecipe:
    """They typed none of them."""

    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            ("leave --arm64 out", "--arm64 is export.cpu"),
            ("leave --no-arm64 out", "--no-arm64 is export.cpu"),
            (
                "use --ios 17, or --precision fp16 --weights int8",
                "--ios is coreml.ios; --precision is export.precisions; --weights is coreml.weights",
            ),
            ("leave --capability out, or --capability 8.9", "--capability is tensorrt.build.capabilities"),
            ("give --data a folder", "--data is data.evaluation or data.checks or data.calibration"),
            ("leave --arm64 (in a recipe: export.cpu) out", ""),
            ("--debug shows where; --workers 1", ""),
            ("a--arm64 and ---arm64", ""),
        ],
    )
    def test_have_their_keys(self, text: str, keys: str) -> None:
        assert keys_of(text) == keys

    def test_where_the_request_is_a_file_and_only_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("r.toml").write_text(
            'model.name = "a:b"\nexport.precisions = ["int8"]\nexport.targets = ["openvino"]\nint8.smooth_quant = true\n'
        )
        words = ["export", "-m", "a:b", "-t", "openvino", "-p", "int8", "--smooth-quant"]
        for command, told in ((["run", "r.toml"], True), (["export", "-r", "r.toml"], True), (words, False)):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 2
            assert "try: add --quantizer nncf" in done.output, command
            assert ("in a recipe: --quantizer is int8.quantizer" in done.output) is told, command
        Path("r.toml").rename("dtvit-deploy.toml")
        assert "in a recipe: --quantizer is int8.quantizer" in CliRunner().invoke(app, ["export"]).output


def test_the_choices_are_those_that_preprocessing_knows() -> None:
    kinds = {field.name: field.type for field in msgspec.structs.fields(Preprocessing)}
    assert get_args(kinds["interpolation"]) == tuple(one.value for one in Filter)
    assert get_args(kinds["channels"]) == tuple(one.value for one in ChannelOrder)


def test_more_threads_than_can_run_at_once_are_taken_and_told_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dtvit_deploy.devices.local.cores", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    say_if_crowded(3)
    said = capsys.readouterr()
    assert said.out == ""
    assert " ".join(said.err.split()).startswith("· 3 threads, and ")
    say_if_crowded(1)
    assert capsys.readouterr().err == ""


class TestTolerances:
    def test_one_for_each_output_whatever_its_name(self) -> None:
        assert tolerances(["boxes=0.5", "a=b=1e-3", "labels=0"]) == {"boxes": 0.5, "a=b": 1e-3, "labels": 0.0}
        assert tolerances([]) == {}

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
