"""A network of the user's own, with two inputs and two outputs, through every command as a person or a script runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commandline import DEPLOY, begun, deploy
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path
from dtvit_deploy.artifacts.target import Precision
from networks import PAIR

COMMANDS = ("models", "export", "verify", "evaluate", "profile", "run", "report", "compare", "doctor")
NETWORK = (
    PAIR
    + """
class Named(Pair):
    def forward(self, image, tokens):
        logits, pooled = super().forward(image, tokens)
        return {"logits": logits, "pooled": pooled}

def make():
    print("a factory may print")
    return Pair(), examples()

def named():
    return Named(), examples()
"""
)
RECIPE = """
[model]
name = "pair:make"
outputs = ["logits", "pooled"]
[data]
evaluation = "feeds.npz"
[gates.fp32]
max_abs = 1e-5
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder: a module, feeds and a recipe."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "pair.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    random = np.random.RandomState(0)
    image, tokens = random.standard_normal((6, 4, 8, 8)).astype(np.float32), random.randint(0, 10, (6, 5))
    np.savez(folder / "feeds.npz", image=image, tokens=tokens)
    return folder


@pytest.fixture(scope="module")
def exported(work: Path) -> list[dict[str, Any]]:
    """What `export --json` says of the network in FP32 and FP16, in the folder `out`."""
    names = ("--output", "logits", "--output", "pooled")
    done = deploy("export", "-m", "pair:make", "-p", "fp32", "-p", "fp16", *names, "-o", "out", "--json", cwd=work)
    assert begun(done.stderr)[0] == "trace"
    assert "a factory may print" in done.stderr  # and not between the JSON
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def files(work: Path, exported: list[dict[str, Any]]) -> list[Path]:
    return [work / one["file"] for one in exported]


class TestExport:
    def test_both_precisions_are_there_and_whole(self, files: list[Path]) -> None:
        assert [path.name for path in files] == ["pair.make.fp32.onnx", "pair.make.fp16.onnx"]
        assert [load_artifact(path).manifest.precision for path in files] == [Precision.FP32, Precision.FP16]
        assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(
            name for path in files for name in (path.name, manifest_path(path).name)
        )

    def test_inputs_stand_in_the_order_of_forward_and_outputs_have_their_names(self, exported: list[dict[str, Any]]) -> None:
        signature = exported[0]["manifest"]["signature"]
        assert [(spec["name"], spec["dtype"]) for spec in signature["inputs"]] == [("image", "float32"), ("tokens", "int64")]
        assert [(spec["name"], spec["shape"]) for spec in signature["outputs"]] == [("logits", [1, 3]), ("pooled", [1, 4])]

    def test_the_manifest_says_loudly_that_nothing_trained_these_weights(self, exported: list[dict[str, Any]]) -> None:
        for one in exported:
            (seeded,) = (link for link in one["manifest"]["lineage"] if link["kind"] == "seeded")
            assert "no checkpoint was given" in seeded["notes"][0]

    def test_the_keys_of_a_dict_are_the_names(self, work: Path, tmp_path: Path) -> None:
        (one,) = json.loads(deploy("export", "-m", "pair:named", "-o", tmp_path, "--no-cache", "--json", cwd=work).stdout)
        assert [spec["name"] for spec in one["manifest"]["signature"]["outputs"]] == ["logits", "pooled"]

    def test_a_person_sees_a_table_the_notes_and_what_to_do_next(self, work: Path, exported: list[dict[str, Any]]) -> None:
        said = deploy("export", "-m", "pair:make", "--output", "logits", "--output", "pooled", "-o", "out", cwd=work).stdout
        assert exported[0]["manifest"]["sha256"][:16] in said
        assert "note: no checkpoint was given" in said
        assert "dtvit-deploy verify out/pair.make.fp32.onnx" in said


class TestVerify:
    def test_without_data_it_is_fed_with_noise_and_says_so(self, work: Path, files: list[Path]) -> None:
        found = json.loads(deploy("verify", *files, "--json", cwd=work).stdout)
        assert found["verdict"]["passed"] is True
        assert any("seeded noise, not with real images" in note for note in found["notes"])
        assert {one["feeds"] for one in found["subjects"][1]["parity"]} >= {"noise", "zeros", "saturated"}

    def test_with_feeds_of_ones_own_nothing_is_called_noise_but_noise(self, work: Path, files: list[Path]) -> None:
        found = json.loads(deploy("verify", *files, "--data", "feeds.npz", "--json", "-o", "report", cwd=work).stdout)
        assert found["verdict"]["passed"] is True
        assert not any("noise" in note for note in found["notes"])
        assert found["data"]["source"] == "the feeds in feeds.npz"
        outputs = {(one["output"], one["samples"]) for one in found["subjects"][1]["parity"] if one["feeds"] == "feeds"}
        assert outputs == {("logits", 6), ("pooled", 6)}
        assert json.loads((work / "report" / "report.json").read_text()) == found

    def test_on_another_machine_a_module_is_not_imported_on_the_word_of_a_file(self, work: Path, files: list[Path], tmp_path: Path) -> None:
        elsewhere = {"DTVIT_DEPLOY_CACHE": str(tmp_path)}
        said = deploy("verify", files[0], cwd=work, code=2, **elsewhere).stderr
        assert "making it again runs pair:make" in said
        assert "if you trust that, give --model pair:make" in said
        assert "a factory may print" not in said

    def test_there_the_reference_is_made_again_with_its_names(self, work: Path, files: list[Path], tmp_path: Path) -> None:
        elsewhere = {"DTVIT_DEPLOY_CACHE": str(tmp_path)}
        found = json.loads(deploy("verify", files[0], "--model", "pair:make", "--json", cwd=work, **elsewhere).stdout)
        assert {one["output"] for one in found["subjects"][1]["parity"]} == {"logits", "pooled"}

    @pytest.mark.slow
    def test_inputs_that_were_described_are_described_again_by_the_manifest(self, work: Path, tmp_path: Path) -> None:
        described = ("--input", "image=1x4x6x6", "--input", "tokens=1x7:int64")
        deploy("export", "-m", "pair:Pair", *described, "-o", tmp_path, cwd=work)
        file = tmp_path / "pair.Pair.fp32.onnx"
        elsewhere = {"DTVIT_DEPLOY_CACHE": str(tmp_path / "cache")}
        found = json.loads(deploy("verify", file, "--model", "pair:Pair", "--json", cwd=work, **elsewhere).stdout)
        assert found["verdict"]["passed"] is True

    @pytest.mark.slow
    def test_one_program_under_two_sets_of_names(self, work: Path, files: list[Path], tmp_path: Path) -> None:
        deploy("export", "-m", "pair:make", "-o", tmp_path, cwd=work)
        other = tmp_path / "pair.make.fp32.onnx"
        for file in (files[0], other):  # each is compared under its own, whichever the cache holds
            deploy("verify", file, cwd=work)
        said = deploy("verify", files[0], other, cwd=work, code=2).stderr
        assert "2 artefacts have different inputs or outputs" in said


@pytest.fixture
def spoilt(files: list[Path], tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]) -> Path:
    """The FP32 artefact with one weight changed and a manifest that vouches for it: what only a comparison can find."""
    import onnx

    path = tmp_path / files[0].name
    model = onnx.load(files[0])
    weight = next(tensor for tensor in model.graph.initializer if onnx.numpy_helper.to_array(tensor).size == 12)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    return vouch(path, load_artifact(files[0]).manifest).path


class TestAFailedGate:
    def test_it_is_exit_code_1_with_the_reason_and_the_report_is_kept(self, work: Path, spoilt: Path, tmp_path: Path) -> None:
        done = deploy("verify", spoilt, "--data", "feeds.npz", "--layers", "-o", tmp_path / "report", cwd=work, code=1)
        assert done.stdout.splitlines()[-1].startswith("FAIL: ")
        assert "✗ pair.make.fp32.onnx: parity of 'logits' on feeds" in done.stdout
        assert "← arises here" in done.stdout
        written = sorted(path.name for path in (tmp_path / "report").iterdir())
        assert written == ["report.html", "report.json", "report.md"]
        again = deploy("report", tmp_path / "report" / "report.json", cwd=work, code=1)
        assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]

    def test_a_reader_who_stops_at_the_first_line_does_not_make_it_pass(self, work: Path, spoilt: Path) -> None:
        script = '"$0" verify "$1" | head -n 1; exit "${PIPESTATUS[0]}"'
        done = subprocess.run(["bash", "-c", script, DEPLOY, str(spoilt)], cwd=work, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 1
        assert "Traceback" not in done.stderr
        assert "Broken pipe" not in done.stderr


class TestScripts:
    @pytest.mark.parametrize("streams", ["", "2>&1"])
    def test_an_export_whose_reader_goes_away_is_finished(self, streams: str, work: Path, tmp_path: Path) -> None:
        script = f'"$0" export -m pair:make -o "$1" {streams} | head -n 1; exit "${{PIPESTATUS[0]}}"'
        done = subprocess.run(["bash", "-c", script, DEPLOY, str(tmp_path)], cwd=work, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "Traceback" not in done.stdout + done.stderr
        assert load_artifact(tmp_path / "pair.make.fp32.onnx")

    @pytest.mark.slow
    def test_every_command_prints_json_and_nothing_else(self, work: Path, files: list[Path], tmp_path: Path) -> None:
        runs: dict[str, tuple[object, ...]] = {
            "models": (),
            "evaluate": (files[0], "--data", "feeds.npz"),
            "profile": (files[0], "--seconds", 0.1, "--samples", 2),
            "run": ("recipe.toml", "-o", tmp_path, "--no-layers"),
            "report": (tmp_path / "report.json",),
            "compare": (tmp_path / "report.json", tmp_path / "report.json"),
            "doctor": (),
        }
        for command, arguments in runs.items():
            # A tenth of a second may be no latency to believe, which fails the one gate of `profile`; figures are printed all the same.
            done = deploy(command, *arguments, "--json", cwd=work, code=None)
            assert done.returncode == 0 or (command, done.returncode) == ("profile", 1)
            assert json.loads(done.stdout), command
            assert "{" not in done.stderr, command
        assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["pair.make.fp32.onnx"]

    def test_every_command_explains_itself(self, work: Path) -> None:
        listed = deploy("--help", cwd=work).stdout
        assert "Exit codes: 0 done and every gate passed; 1 a gate failed" in " ".join(listed.split())
        for command in COMMANDS:
            assert f"\n  {command} " in listed
            assert f"Usage: dtvit-deploy {command}" in deploy(command, "--help", cwd=work).stdout

    def test_debug_shows_where_it_failed(self, work: Path) -> None:
        done = deploy("--debug", "export", "-m", "nope", cwd=work, code=2)
        assert done.stderr.index("Traceback") < done.stderr.index("error: there is no model 'nope'")
        assert not (work / "nope").exists()

    def test_two_exports_at_once_both_succeed(self, work: Path, tmp_path: Path) -> None:
        command = [DEPLOY, "export", "-m", "pair:named", "-o", str(tmp_path / "out")]
        env = os.environ | {"DTVIT_DEPLOY_CACHE": str(tmp_path / "cache")}
        running = [subprocess.Popen(command, cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in "ab"]
        said = [process.communicate(timeout=900)[0].decode() for process in running]
        assert [process.returncode for process in running] == [0, 0], said
        assert load_artifact(tmp_path / "out" / "pair.named.fp32.onnx")
        assert not list(tmp_path.glob("*/.*-*"))


def test_nothing_is_left_in_the_users_folder(work: Path, files: list[Path]) -> None:
    """Runs last: the artefacts that were asked for, the report, and Python's own cache of the user's module."""
    shutil.rmtree(work / "__pycache__", ignore_errors=True)
    assert {path.name for path in work.iterdir()} <= {"pair.py", "recipe.toml", "feeds.npz", "out", "report"}
    assert not list(work.rglob(".*"))
