"""Artefacts, manifests, reports and recipes of garbage: one clear message with a way out, no traceback, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from commandline import deploy, refused
from dtvit_deploy.artifacts.artifact import manifest_path, sha256_of
from dtvit_deploy.report.schema import SCHEMA


class TestArtefacts:
    @pytest.mark.parametrize("command", ["verify", "evaluate", "profile"])
    def test_one_whose_bytes_were_changed_is_not_taken_for_what_was_exported(self, command: str, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        said = refused(command, path, "--data", "images", cwd=work)
        assert f"{path} was changed after export: its SHA-256 is {sha256_of(path)[:16]}…" in said
        assert "try: export it again" in said

    def test_one_without_its_manifest_is_refused(self, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        manifest_path(path).unlink()
        said = refused("verify", path, cwd=work)
        assert f"{path.name} has no manifest: {manifest_path(path)} does not exist" in said

    @pytest.mark.parametrize("content", ["", "{}", "[1", "null", "\x00\xff", '{"model": 3}', "[" * 100_000])
    def test_a_manifest_of_garbage_is_refused(self, content: str, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        manifest_path(path).write_text(content)
        assert f"{manifest_path(path)} is not a manifest" in refused("verify", path, cwd=work)

    def test_a_graph_of_garbage_that_its_manifest_vouches_for_is_refused(self, work: Path) -> None:
        path = work / "net" / "networks.net.fp32.onnx"
        old = sha256_of(path)
        path.write_bytes(b"garbage" * 100)
        manifest_path(path).write_text(manifest_path(path).read_text().replace(old, sha256_of(path)))
        said = refused("verify", path, cwd=work)
        assert path.name in said
        assert "try: export it again" in said

    def test_artefacts_of_two_exports_are_not_judged_together(self, work: Path) -> None:
        said = refused("verify", "net/networks.net.fp32.onnx", "colours/colours.make.fp32.onnx", cwd=work)
        assert "2 artefacts have 2 different references; one reference judges all" in said

    @pytest.mark.parametrize("name", ["nowhere.onnx", "/dev/null"])
    def test_what_is_no_artefact_is_refused(self, name: str, work: Path) -> None:
        assert f"there is no artefact at {name}" in refused("verify", name, cwd=work)

    @pytest.mark.parametrize("name", [".", "/"])
    def test_a_folder_without_any_is_refused(self, name: str, work: Path) -> None:
        assert f"the folder {name} holds no artefacts" in refused("verify", name, cwd=work)

    def test_a_folder_that_is_no_artefact_is_refused(self, work: Path) -> None:
        (work / "plain").mkdir()
        (work / "plain" / "model.onnx").write_bytes(b"of somebody else")
        assert "the folder plain holds no artefacts" in refused("verify", "plain", cwd=work)


class TestReportsAndRecipes:
    @pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe\x00", b'{"schema": "x"}', b"{" * 100_000])
    def test_a_report_of_garbage_is_refused(self, content: bytes, work: Path) -> None:
        (work / "report.json").write_bytes(content)
        for arguments in (("report", "report.json"), ("compare", "report.json", "report.json")):
            said = refused(*arguments, cwd=work, out=False)
            assert "report.json is not a report" in said
            assert "try: " in said

    def test_a_report_of_another_version_is_refused(self, work: Path) -> None:
        empty: dict[str, object] = {"data": {}, "device": {}, "versions": {}, "subjects": [], "lineage": []}
        report = empty | {"command": "verify", "model": "m", "created": "", "schema": 99}
        (work / "report.json").write_text(json.dumps(report))
        assert f"has schema 99; this version reads schema {SCHEMA}" in refused("report", "report.json", cwd=work, out=False)

    def test_a_report_with_nothing_in_it_does_no_harm(self, work: Path) -> None:
        empty: dict[str, object] = {"data": {}, "device": {}, "versions": {}, "subjects": [], "lineage": []}
        report = empty | {"command": "[/x]", "model": "[/x]", "created": "", "notes": ["[/x]"], "schema": SCHEMA}
        (work / "report.json").write_text(json.dumps(report))
        done = deploy("report", "report.json", cwd=work)
        assert (done.returncode, done.stderr) == (0, "")
        assert "have no subject in common" in refused("compare", "report.json", "report.json", cwd=work, out=False)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\xff\xfe", "is not a recipe"),
            (b"model = ", "is not a recipe"),
            (b"modle = 1", "modle is not known; known there: model, data"),
            (b'[model]\nname = "nope"', "there is no model 'nope'"),
            (b'[model]\nname = "networks:net"\ninputs = [{name = "image", shape = [99999999, 99999999]}]', "at most 268,435,456"),
            (b'[model]\nname = "networks:net"\n[data]\nevaluation = "nowhere"', "nowhere does not exist"),
            (b'[model]\nname = "networks:net"\n[gates.fp16]\nagreement = 2', "agreement"),
        ],
    )
    def test_a_recipe_of_garbage_is_refused(self, content: bytes, reason: str, work: Path) -> None:
        (work / "recipe.toml").write_bytes(content)
        assert reason in refused("run", "recipe.toml", cwd=work)

    def test_no_recipe(self, work: Path) -> None:
        assert "there is no recipe at nowhere.toml" in refused("run", "nowhere.toml", cwd=work)

    def test_an_image_that_is_found_broken_when_all_is_built_leaves_nothing(self, work: Path) -> None:
        folder = work / "many"
        folder.mkdir()
        for index in range(60):
            Image.new("RGB", (16, 16), (index * 4, 0, 0)).save(folder / f"{index:02}.png")
        (folder / "59.png").write_bytes((folder / "59.png").read_bytes()[:-30])
        (work / "recipe.toml").write_text('[model]\nname = "networks:net"\n[data]\nevaluation = "many"\n')
        assert "59.png cannot be read as an image" in refused("run", "recipe.toml", cwd=work)
        deploy("export", "-m", "networks:net", "--data", "many", "-o", "built", cwd=work)  # does not look at that image


def test_a_file_in_the_working_folder_is_not_taken_for_the_runtime(work: Path) -> None:
    (work / "onnxruntime.py").write_text("open('was-run', 'w')")
    done = deploy("profile", "net/networks.net.fp32.onnx", "--seconds", "0.1", "--samples", "64", cwd=work, code=None)
    assert done.returncode in (0, 1), done.stderr  # 1 where the machine was too busy for a latency to believe
    examined = deploy("doctor", "--json", cwd=work)
    assert json.loads(examined.stdout)["targets"][0]["reach"] == "executed", examined.stdout
    assert not (work / "was-run").exists()
