"""Bad checkpoints, networks and options: one clear message with a way out, no traceback, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from commandline import refused


class TestCheckpoints:
    def export(self, work: Path, checkpoint: str) -> str:
        return refused("export", "-m", "networks:net", "-c", checkpoint, cwd=work)

    def test_other_keys_are_listed_by_kind(self, work: Path) -> None:
        state = load_file(work / "good.safetensors")
        state["neck.weight"] = state.pop("head.weight")
        state["conv.bias"] = torch.zeros(5)
        save_file(state, work / "other.safetensors")
        said = self.export(work, "other.safetensors")
        assert "1 missing: head.weight; 1 unexpected: neck.weight; 1 of another shape: conv.bias (5 in the file, 4 in the network)" in said
        assert "try: give the model" in said

    def test_a_truncated_file_is_refused(self, work: Path) -> None:
        content = (work / "good.safetensors").read_bytes()
        (work / "short.safetensors").write_bytes(content[:-20])
        said = self.export(work, "short.safetensors")
        assert "short.safetensors cannot be read as safetensors" in said
        assert "try: it is truncated or of another kind: copy or save it again" in said

    @pytest.mark.parametrize("new", [True, False])
    def test_a_pickle_that_would_run_code_does_not_run_it(self, new: bool, work: Path, tmp_path: Path) -> None:
        marker = tmp_path / "it-ran"

        class Command:
            def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
                return os.system, (f"touch {marker}",)

        torch.save({"head.weight": Command()}, work / "evil.pt", _use_new_zipfile_serialization=new)
        said = self.export(work, "evil.pt")
        assert not marker.exists()
        assert "posix.system" in said or "nothing in it was run" in said
        assert "try: " in said

    def test_weights_that_are_no_numbers_are_named_and_counted(self, work: Path) -> None:
        state = load_file(work / "good.safetensors")
        state["head.weight"][0, :2] = float("nan")
        save_file(state, work / "nan.safetensors")
        assert "2 weights that are NaN or infinite, in 1 tensors: head.weight (2 NaN, 0 infinite of 12)" in self.export(
            work, "nan.safetensors"
        )

    @pytest.mark.parametrize("name", ["nowhere.safetensors", "images", "networks.py"])
    def test_what_is_no_checkpoint_is_refused_with_what_would_be(self, name: str, work: Path) -> None:
        assert ".safetensors" in self.export(work, name)


class TestModels:
    @pytest.mark.parametrize(
        ("model", "near"),
        [("dualtoken-vit-s-mxi", "did you mean dualtoken-vit-s-mix?"), ("resnet50", "try: give one of dualtoken-vit-t-mix, ")],
    )
    def test_an_unknown_name_comes_back_with_those_that_exist(self, model: str, near: str, work: Path) -> None:
        said = refused("export", "-m", model, cwd=work)
        assert f"there is no model {model!r}" in said
        assert near in said

    def test_no_model_at_all(self, work: Path) -> None:
        assert "no model was given" in refused("export", cwd=work)

    def test_a_branch_on_data_is_refused_with_its_line(self, work: Path) -> None:
        said = refused("export", "-m", "networks:branches", cwd=work)
        assert "networks:branches cannot be exported as a static program" in said
        assert "if logits.sum() > 0:" in said
        assert "try: a branch, an index or a shape that depends on the data must go" in said

    def test_one_that_answers_otherwise_each_time_is_refused(self, work: Path) -> None:
        said = refused("export", "-m", "networks:rolls", cwd=work)
        assert "networks:rolls is not deterministic in eval: two runs of the same input differ by up to" in said
        assert "try: remove what is random" in said

    @pytest.mark.parametrize(
        ("model", "reason", "code"),
        [
            ("networks:fails", "ValueError: not today", 2),
            ("needy:net", "imports a_module_of_nobodys, which is not installed", 3),
        ],
    )
    def test_a_factory_that_does_not_work_is_refused_with_the_reason(self, model: str, reason: str, code: int, work: Path) -> None:
        (work / "needy.py").write_text("import a_module_of_nobodys")
        assert reason in refused("export", "-m", model, cwd=work, code=code)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "asked", "exists"),
        [
            (("--target", "tensorflow"), "tensorflow", "onnx"),
            (("--precision", "int4"), "int4", "fp32"),
            (("--input", "image=1x"), "image=1x", "image=1x3x224x224"),
            (("--input", "image=99999999x99999999"), "99999999×99999999", "at most 268,435,456"),
            (("--input-size", "16a"), "16a", "HEIGHTxWIDTH"),
            (("--input-size", "0x16"), "0×16", "at least 1 pixel"),
            (("--input-size", "99999x99999"), "99999×99999", "at most 268,435,456"),
            (("--num-classes", "0"), "--num-classes", "1"),
            (("--seed", "1" + "0" * 30), "0" * 30, "2⁶³"),
            (("--precison", "fp16"), "--precison", "--precision"),
        ],
    )
    def test_what_cannot_be_meant_is_refused_with_what_can(self, options: tuple[str, ...], asked: str, exists: str, work: Path) -> None:
        said = refused("export", "-m", "networks:net", *options, cwd=work)
        assert asked in said
        assert exists in said

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--output", "a", "--output", "b"), "2 output names were given (a, b), but networks:net returns 1"),
            (("--precision", "fp16", "--keep-fp32", "neck"), "no node comes from a module 'neck'"),
        ],
    )
    def test_what_does_not_fit_this_network_is_refused(self, options: tuple[str, ...], reason: str, work: Path) -> None:
        assert reason in refused("export", "-m", "networks:net", *options, cwd=work)
