"""Core ML on a Mac, whose compiled part is a stand-in; and what is said where there is no Mac."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.compute_plan import ComputePlan
from dtvit_deploy.runtimes.coreml.plan import _operations
from dtvit_deploy.runtimes.coreml.session import CoreMlRuntime, Units
from dtvit_deploy.runtimes.registry import RUNTIMES, runtime_for

with quiet():
    import coremltools as ct
    from coremltools.models import model, utils

Feed = dict[str, Any]
OPTIONS = SessionOptions()
Check = Callable[[ComputePlan, str], None]


class TestElsewhere:
    @pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
    @pytest.mark.parametrize("name", ["coreml", "coreml-cpu", "coreml-gpu", "coreml-ne", "coreml-iphone"])
    def test_it_says_that_this_is_no_mac(self, name: str, artifact: Artifact) -> None:
        runtime = RUNTIMES[name]()
        assert runtime.name == name
        for found in (runtime.available(), runtime.available(artifact)):
            assert found.version is None
            assert found.missing == "Core ML runs on macOS alone, and this is Linux"
            assert found.remedy == "use a Mac"
        with pytest.raises(MissingError, match=rf"net\.fp32\.mlpackage needs {name}, which is not usable here: Core ML runs on macOS"):
            runtime.load(artifact, OPTIONS)

    @pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
    def test_the_evaluator_is_chosen(self, artifact: Artifact) -> None:
        assert runtime_for(artifact).name == "mil"


@pytest.mark.usefixtures("mac")
class TestMac:
    def test_core_ml_is_chosen_where_it_is(self, artifact: Artifact) -> None:
        assert runtime_for(artifact).name == "coreml"
        assert runtime_for(artifact).rung is Rung.EXECUTED

    def test_a_package_too_new_for_this_macos_is_evaluated(self, mac: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mac.proxy, "newest", 7)
        found = CoreMlRuntime().available(artifact)
        assert found.missing == "net.fp32.mlpackage has specification version 8, and this macOS 15.1 reads 7 at most"
        assert runtime_for(artifact).name == "mil"

    @pytest.mark.parametrize("units", Units)
    def test_it_answers_as_the_package_does(
        self, mac: Any, artifact: Artifact, feeds: list[Feed], expected: list[Feed], units: Units
    ) -> None:
        with CoreMlRuntime(units).load(artifact, OPTIONS) as session:
            answers = [session.run(feed) for feed in feeds]
        assert mac.proxy.asked == [(str(artifact.path), units.name)]
        for answer, wanted in zip(answers, expected, strict=True):
            assert [(name, values.shape, values.dtype.name) for name, values in answer.items()] == [
                (spec.name, spec.shape, spec.dtype) for spec in artifact.manifest.signature.outputs
            ]
            for name, values in answer.items():
                np.testing.assert_array_equal(values, wanted[name])

    def test_the_units_have_the_names_that_coremltools_has(self) -> None:
        assert {one.name for one in Units} == {one.name for one in ct.ComputeUnit}

    def test_a_figure_says_what_ran_where(self, artifact: Artifact) -> None:
        with CoreMlRuntime(Units.CPU_AND_NE).load(artifact, SessionOptions(threads=2)) as session:
            told = session.conditions
        assert told["runtime"] == f"coreml-ne {ct.__version__}"
        assert (told["provider"], told["chip"], told["system"]) == ("CPU and Neural Engine", "Apple M2 Pro", "macOS 15.1")
        assert told["threads"] == "2"
        assert told["compiled"] == f"net.fp32.mlpackage, SHA-256 {artifact.manifest.sha256[:12]}, specification version 8"

    def test_any_view_of_memory_is_a_feed_and_feeds_are_left_as_they_are(self, artifact: Artifact, feeds: list[Feed]) -> None:
        views = {"image": feeds[0]["image"][..., ::-1], "position": feeds[1]["position"]}
        before = {name: values.copy() for name, values in views.items()}
        with CoreMlRuntime().load(artifact, OPTIONS) as session:
            one, other = session.run(views), session.run(before)
        np.testing.assert_array_equal(one["logits"], other["logits"])
        assert {name: values.dtype for name, values in views.items()} == {"image": np.float32, "position": np.int64}

    def test_a_number_that_int32_cannot_hold_is_refused(self, artifact: Artifact, feeds: list[Feed]) -> None:
        with (
            CoreMlRuntime().load(artifact, OPTIONS) as session,
            pytest.raises(InputError, match=r"position has values that int32, which net\.fp32\.mlpackage takes, cannot hold"),
        ):
            session.run(feeds[0] | {"position": np.array([1 << 32], np.int64)})

    def test_what_core_ml_says_of_feeds_is_said(self, artifact: Artifact, feeds: list[Feed]) -> None:
        with (
            CoreMlRuntime().load(artifact, OPTIONS) as session,
            pytest.raises(InputError, match=r"Core ML cannot run net\.fp32\.mlpackage on such feeds: Error: not a number"),
        ):
            session.run(feeds[0] | {"image": np.full_like(feeds[0]["image"], np.nan)})

    def test_what_core_ml_says_of_a_package_is_said_once(
        self, mac: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(mac.proxy, "refuses", "unknown opset")
        with pytest.raises(InputError) as caught:
            CoreMlRuntime().load(artifact, OPTIONS)
        assert str(caught.value) == "Core ML of macOS 15.1 refuses net.fp32.mlpackage: Error compiling model: unknown opset"
        assert capfd.readouterr() == ("", "")

    def test_inner_tensors_are_refused_with_who_gives_them(self, artifact: Artifact) -> None:
        assert CoreMlRuntime().tensors(artifact) == ()
        with pytest.raises(InputError, match=r"Core ML hands out no inner tensor .* stem was asked for") as caught:
            CoreMlRuntime().load(artifact, SessionOptions(taps=("stem",)))
        assert "--runtime mil" in str(caught.value.remedy)

    @pytest.mark.parametrize("ends", ["inputs", "outputs"])
    def test_a_package_with_other_ends_than_its_manifest_says_is_refused(self, artifact: Artifact, ends: str) -> None:
        signature = artifact.manifest.signature
        more = (*getattr(signature, ends), TensorSpec("mask", (1,)))
        other = msgspec.structs.replace(artifact.manifest, signature=msgspec.structs.replace(signature, **{ends: more}))
        with pytest.raises(InputError, match="is not the package that its manifest describes: its inputs are image 1×3×8×8, position 1, "):
            CoreMlRuntime().load(Artifact(artifact.path, other), OPTIONS)

    def test_a_package_that_takes_pictures_where_its_manifest_says_nothing_of_them_is_refused(
        self, artifact: Artifact, tmp_path: Path
    ) -> None:
        path = shutil.copytree(artifact.path, tmp_path / "pictures.mlpackage")
        specification = utils.load_spec(str(path))
        picture = specification.description.input[0].type.imageType
        picture.width = picture.height = 8
        (file,) = path.rglob("*.mlmodel")
        file.write_bytes(specification.SerializeToString())
        with pytest.raises(InputError, match=r"pictures\.mlpackage takes pictures of 8-bit pixels \(image\), which cannot be fed here"):
            CoreMlRuntime().load(Artifact(path, artifact.manifest), OPTIONS)

    @pytest.mark.parametrize("content", [b"", b"not a model\n" * 100, None], ids=["empty", "text", "lost"])
    def test_garbage_is_refused(self, artifact: Artifact, tmp_path: Path, content: bytes | None) -> None:
        path = shutil.copytree(artifact.path, tmp_path / "net.mlpackage")
        (file,) = path.rglob("*.mlmodel")
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(InputError) as caught:
            CoreMlRuntime().load(Artifact(path, artifact.manifest), OPTIONS)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_session_that_was_left_does_nothing(self, artifact: Artifact, feeds: list[Feed]) -> None:
        with CoreMlRuntime().load(artifact, OPTIONS) as session:
            pass
        for use in (lambda: session.run(feeds[0]), session.compute_plan):
            with pytest.raises(RuntimeError, match="the session was left"):
                use()

    @pytest.mark.parametrize(
        ("version", "units", "missing"),
        [("11.7", Units.ALL, "it needs macOS 12; this is 11.7"), ("12.6", Units.CPU_AND_NE, "it needs macOS 13; this is 12.6")],
    )
    def test_an_old_macos_is_named(self, monkeypatch: pytest.MonkeyPatch, version: str, units: Units, missing: str) -> None:
        monkeypatch.setattr(platform, "mac_ver", lambda: (version, ("", "", ""), "arm64"))
        assert CoreMlRuntime(units).available().missing == missing

    def test_coremltools_without_its_compiled_part_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model, "_MLModelProxy", None)
        assert CoreMlRuntime().available().missing == "coremltools lacks its part for macOS"

    def test_a_chip_that_is_not_told_is_unknown(self, artifact: Artifact, mac: Any) -> None:
        mac.program("sysctl", "exit 1")
        with CoreMlRuntime().load(artifact, OPTIONS) as session:
            assert session.conditions["chip"] == "unknown"


class TestPlan:
    def test_each_operation_has_its_unit_and_its_cost(self, is_right: Check, mac: Any, artifact: Artifact) -> None:
        with CoreMlRuntime().load(artifact, OPTIONS) as session:
            plan = session.compute_plan()
        is_right(plan, "CPU, GPU and Neural Engine")

    def test_it_is_of_the_units_that_are_allowed(self, mac: Any, artifact: Artifact) -> None:
        with CoreMlRuntime(Units.CPU_ONLY).load(artifact, OPTIONS) as session:
            plan = session.compute_plan()
        assert (plan.units, plan.shares, plan.crossings) == ("CPU", {"CPU": 0.75}, 0)

    def test_it_is_data(self, mac: Any, artifact: Artifact) -> None:
        with CoreMlRuntime().load(artifact, OPTIONS) as session:
            plan = session.compute_plan()
        written = msgspec.json.encode(plan)
        assert msgspec.json.decode(written, type=ComputePlan) == plan
        assert json.loads(written)["operations"][0]["preferred"] == "Neural Engine"

    def test_an_old_macos_does_not_tell(self, mac: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "mac_ver", lambda: ("14.3.1", ("", "", ""), "arm64"))
        with CoreMlRuntime().load(artifact, OPTIONS) as session, pytest.raises(MissingError, match=r"macOS 14\.3\.1 does not tell"):
            session.compute_plan()

    def test_nested_blocks_are_read_in_their_order(self) -> None:
        def operation(name: str, *blocks: Any) -> Any:
            return types.SimpleNamespace(name=name, blocks=blocks)

        def block(*operations: Any) -> Any:
            return types.SimpleNamespace(operations=operations)

        main = block(
            operation("a"), operation("cond", block(operation("then"), operation("then 2")), block(operation("else"))), operation("z")
        )
        found = [one.name for one in _operations([main])]
        assert found == ["a", "cond", "then", "then 2", "else", "z"]
