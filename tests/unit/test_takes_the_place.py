"""An export that replaces an artefact of another origin says so, since a name has neither seed nor checkpoint nor options in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, manifest_path, write_json
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.plan.placing import takes_the_place


def made(checkpoint: str, graph: str) -> Manifest:
    lineage = (Link(kind="checkpoint", sha256=checkpoint * 64), Link(kind="onnx", sha256=graph * 64))
    return Manifest(model="net", format="onnx", precision=Precision.FP32, sha256=graph * 64, signature=Signature((), ()), lineage=lineage)


NEW = Artifact(Path("hidden/net.fp32.onnx"), made("1", "2"))


@pytest.mark.parametrize(("earlier", "step"), [(made("3", "4"), "checkpoint"), (made("1", "4"), "onnx")])
def test_the_step_from_which_they_differ_is_named(earlier: Manifest, step: str, tmp_path: Path) -> None:
    write_json(manifest_path(tmp_path / NEW.name), earlier)
    said = takes_the_place(NEW, tmp_path)
    assert said == f"net.fp32.onnx takes the place of another of that name in {tmp_path}: they differ from the step {step!r} on"


def test_of_the_same_artefact_and_of_none_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert takes_the_place(NEW, tmp_path) == ""
    write_json(manifest_path(tmp_path / NEW.name), msgspec.structs.replace(NEW.manifest, model="renamed"))
    assert takes_the_place(NEW, tmp_path) == ""
    manifest_path(tmp_path / NEW.name).write_text("no manifest")
    assert takes_the_place(NEW, tmp_path) == ""
