"""Packages of a torch network in the units of a Mac and on an iPhone, from the command's side: all that only these have is a stand-in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools")

import torch
from PIL import Image
from torch import Tensor, nn

from checking import checked as taken
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.cli import show
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency.starts import Start, Starts, Taken, starts_of
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline import timing
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.report import as_data
from dtvit_deploy.report.content import content
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Report
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.coreml.session import CoreMlRuntime
from dtvit_deploy.runtimes.mil.runtime import MilRuntime
from dtvit_deploy.runtimes.pairing import Pairing, pairings
from packages import package as built

PROFILE = Figures(latency=True)
PARITY = Figures(parity=True)
HOW = {"resize": 8, "crop": [8, 8], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "channels": "bgr"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.stem(image).flatten(2).mean(2)))
        return answer


def traced(folder: Path, stem: float = 1.0) -> ProgramEntry:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, inputs = Net().eval(), {"image": torch.randn(1, 3, 8, 8)}
    net.stem.weight.data *= stem
    link = Link(kind="seeded", sha256="0" * 64)
    folder.mkdir()
    write_program(Reference(model="mine:net", module=net, inputs=inputs, output_names=("logits",), weights=link, preprocessing=HOW), folder)
    return read_program_entry(folder)


def packaged(program: ProgramEntry, folder: Path) -> Callable[..., Artifact]:
    return lambda **options: built(program, folder, **options)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    return traced(tmp_path_factory.mktemp("program") / "right")


@pytest.fixture(scope="module")
def package(program: ProgramEntry, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    return packaged(program, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def checked(program: ProgramEntry, package: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """A check of the plain package; what a process of its own would find, which has no stand-ins, is made up."""

    def starts(pairing: Pairing, options: SessionOptions) -> Starts:
        assert pairing.runtime.name != "coreml-iphone", "the device tells its own"
        return starts_of(Taken(first=(Start(load_ms=7.0, first_ms=3.0, load_mib=99.0, first_mib=99.0, steady_mib=99.0),)))

    monkeypatch.setattr(timing, "probe", starts)
    plain = package()

    def report(
        command: str, figures: Figures, *runtimes: str, artifacts: Sequence[Artifact] = (plain,), data: Path | None = None
    ) -> Report:
        material = open_material(data, program.artifact.manifest)
        return taken(program, artifacts, material, figures, command=command, samples=2, runtimes=runtimes)

    return report


class TestUnits:
    @pytest.mark.usefixtures("mac")
    def test_one_report_has_the_package_in_every_unit_that_was_asked_for(self, checked: Callable[..., Report], mac: Any) -> None:
        found = checked("profile", PROFILE, "coreml-cpu", "coreml-ne", "coreml")
        assert [one.name for one in found.subjects] == [
            "torch FP32",
            *(f"Core ML FP32 in coreml{which}" for which in ("-cpu", "-ne", "")),
        ]
        assert {"coremltools", "torch", "numpy"} <= found.versions.keys()  # what made it, and what it is compared with
        for one, provider in zip(found.subjects[1:], ("CPU", "CPU and Neural Engine", "CPU, GPU and Neural Engine"), strict=True):
            assert one.latency is not None
            assert one.latency.conditions["measured"] == "interleaved with 3 others"
            assert one.conditions["provider"] == provider
            assert one.rung is Rung.EXECUTED
        assert len([units for _, units in mac.proxy.asked if units]) == 3  # once each: to load a package is to compile it

    @pytest.mark.usefixtures("mac")
    def test_its_plans_are_in_the_report_with_the_modules(self, checked: Callable[..., Report], capsys: pytest.CaptureFixture[str]) -> None:
        found = checked("profile", PROFILE, "coreml-cpu", "coreml-ne")
        cpu, engine = (one.plan for one in found.subjects[1:])
        assert cpu is not None
        assert engine is not None
        assert (cpu.crossings, cpu.elsewhere) == (0, ())
        assert {one.module for one in engine.operations if one.operator.endswith(".conv")} == {"stem"}
        assert "norm" in {one.module for one in engine.elsewhere}
        told = (
            f"Neural Engine 75%, CPU 0% of the estimated cost, {engine.crossings} crossings between units; allowed: CPU and Neural Engine"
        )
        assert told in render_markdown(found)
        show.report(found)
        assert told in capsys.readouterr().out
        (section,) = (one for one in content(found).sections if one.key == "plan")
        assert [table.long for table in section.tables] == [True]  # nothing leaves the CPU where it is alone
        written = as_data(found)["subjects"][2]["plan"]
        assert (written["crossings"], written["shares"]) == (engine.crossings, {"CPU": 0.0, "Neural Engine": 0.75})
        assert msgspec.convert(as_data(found), Report).subjects[2].plan == engine

    def test_a_system_that_does_not_tell_its_plan_is_noted(
        self, checked: Callable[..., Report], mac: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform.mac_ver", lambda: ("14.3", ("", "", ""), "arm64"))
        _, subject = checked("profile", PROFILE).subjects
        assert subject.plan is None
        assert subject.latency is not None
        assert "no compute plan: macOS 14.3 does not tell Core ML's compute plan" in subject.notes

    @pytest.mark.usefixtures("mac")
    def test_layers_are_walked_where_tensors_are_to_be_had(
        self, checked: Callable[..., Report], capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = checked("verify", Figures(parity=True, layers=True), "coreml-cpu", "coreml")
        one, other = (subject.layers for subject in found.subjects[1:])
        assert one is other is not None
        assert {layer.module for layer in one.layers} >= {"stem", "norm"}
        assert one.rung is Rung.EMULATED
        assert one.conditions["package"] == "not executed: emulation was asked for"
        assert all(subject.rung is Rung.EXECUTED for subject in found.subjects)
        show.report(found)
        assert f"program tensors, in {one.conditions['runtime']})" in capsys.readouterr().out

    @pytest.mark.usefixtures("mac")
    def test_a_wrong_package_is_looked_into_unasked_and_one_that_is_right_is_not(
        self, checked: Callable[..., Report], package: Callable[..., Artifact], tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]
    ) -> None:
        plain = package()
        wrong = vouch(
            shutil.copytree(packaged(traced(tmp_path / "other", stem=1.5), tmp_path / "cache")().path, tmp_path / "wrong.mlpackage"),
            plain.manifest,
        )
        found = checked("verify", PARITY, "coreml", artifacts=(plain, wrong))
        assert [subject.layers is None for subject in found.subjects] == [True, True, False]
        assert found.subjects[2].layers is not None
        assert found.subjects[2].layers.first == "stem"
        assert "wrong.mlpackage in coreml: parity of 'logits' on noise" in [gate.name for gate in found.verdict.failed]  # type: ignore[union-attr]
        silent = checked("verify", Figures(parity=True, layers=False), "coreml", artifacts=(wrong,))
        assert silent.subjects[1].layers is None


class TestPictures:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        for index in range(4):
            path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        return tmp_path / "images"

    @pytest.mark.usefixtures("mac")
    def test_images_arrive_as_the_pixels_that_they_are(self, program: ProgramEntry, package: Callable[..., Artifact], images: Path) -> None:
        made = package(image=True)
        for feed in open_material(images, program.artifact.manifest).feeds():
            with CoreMlRuntime().load(made, SessionOptions()) as mac, MilRuntime().load(made, SessionOptions()) as mil:
                np.testing.assert_allclose(mac.run(feed)["logits"], mil.run(feed)["logits"], atol=1e-6)

    @pytest.mark.usefixtures("mac")
    def test_what_is_no_picture_is_refused_with_who_takes_it(
        self, checked: Callable[..., Report], package: Callable[..., Artifact]
    ) -> None:
        with pytest.raises(InputError, match="takes pictures of 8-bit pixels, and what image was fed is none") as caught:
            checked("verify", PARITY, artifacts=(package(image=True),))
        assert "--runtime mil" in str(caught.value.remedy)
        report = checked("verify", PARITY, "mil", artifacts=(package(image=True),))
        assert report.subjects[1].parity
        assert report.subjects[1].conditions["package"] == "not executed: emulation was asked for"


class TestIPhone:
    def test_its_own_clock_is_what_is_reported_beside_torchs(self, checked: Callable[..., Report], phone: Any) -> None:
        found = checked("profile", PROFILE, "coreml-iphone")
        _, subject = found.subjects
        assert subject.rung is Rung.ON_DEVICE
        measured = subject.latency
        assert measured is not None
        assert measured.starts is not None
        told = measured.starts.first_load.median_ms, measured.starts.first_inference.median_ms, measured.starts.peak_mib
        assert (measured.p50, *told) == (1.5, 250.0, 9.0, None)
        assert measured.conditions["device"] == "My iPhone (iphone)"
        assert subject.plan is not None
        assert phone._builds == 1


@pytest.mark.skipif("sys.platform == 'darwin'")
def test_where_there_is_no_mac_the_reason_is_given(checked: Callable[..., Report], package: Callable[..., Artifact]) -> None:
    with pytest.raises(MissingError, match="was asked for in coreml-ne, which is not usable here: Core ML runs on macOS alone"):
        checked("profile", PROFILE, "coreml-ne")
    assert [one.name for one in pairings((package(),))] == [package().name]
