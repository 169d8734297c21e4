"""Judgements at the command line: networks that would end it, manifests that tell stories, images without labels, INT8 that cannot be."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import captured
from commandline import deploy, refused
from dtvit_deploy.artifacts.artifact import load_artifact, sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.origin import reference_of
from networks import IMAGES, WEIGHTS

NETWORKS = (
    IMAGES
    + """
import sys

class Ends(Net):
    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, image):
        self.left -= 1
        if self.left < 0:
            sys.exit(0)
        return super().forward(image)

class Loads(Net):
    def load_state_dict(self, *given, **named):
        sys.exit(0)

def net(): return Net(), image()
def leaves(): sys.exit(0)
def first(): return Ends(0), image()
def second(): return Ends(1), image()
def traced(): return Ends(3), image()
def loads(): return Loads(), image()
"""
)
ARTEFACT = "out/network.net.fp32.onnx"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, two checkpoints, and the export of the first."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "network.py").write_text(NETWORKS)
    (folder / "images").mkdir()
    for index in range(4):
        Image.radial_gradient("L").resize((16 + index, 16)).convert("RGB").save(folder / "images" / f"{index}.png")
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in WEIGHTS.items()}
    save_file(state, folder / "c1.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, folder / "c2.safetensors")
    save_file(state, folder / "again.safetensors", metadata={"written": "once more"})
    deploy("export", "-m", "network:net", "-c", "c1.safetensors", "-o", "out", cwd=folder)
    return folder


@pytest.mark.parametrize("factory", ["leaves", "first", "second", "traced"])
def test_a_network_that_would_end_the_command_does_not_end_it_well(factory: str, work: Path) -> None:
    said = refused("export", "-m", f"network:{factory}", cwd=work)
    assert f"network:{factory} " in said
    assert "SystemExit" in said


def test_nor_does_one_that_does_so_while_it_takes_its_weights(work: Path) -> None:
    assert "SystemExit" in refused("export", "-m", "network:loads", "-c", "c1.safetensors", cwd=work)


Edit = Callable[[dict[str, Any]], None]


def link(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = (one for one in manifest["lineage"] if one["kind"] == kind)
    return found  # type: ignore[no-any-return]


def edited(work: Path, name: str, edit: Edit) -> Path:
    """The artefact with a manifest that tells something else."""
    folder = work / name
    folder.mkdir()
    path = shutil.copy(work / ARTEFACT, folder)
    manifest = json.loads((work / f"{ARTEFACT}.json").read_text())
    edit(manifest)
    Path(f"{path}.json").write_text(json.dumps(manifest))
    return Path(path)


def origin(path: Path, checkpoint: Path | None = None) -> str:
    """Digest of the program that an artefact is judged by."""
    asked = Model(name="network:net" if checkpoint else None, checkpoint=checkpoint)
    found = reference_of([load_artifact(path)], Cache.default(), asked)
    return found.artifact.manifest.sha256


class TestLineage:
    def test_what_export_wrote_is_believed_with_the_checkpoint_and_without(self, work: Path) -> None:
        assert origin(work / ARTEFACT) == origin(work / ARTEFACT, work / "c1.safetensors")

    def test_a_manifest_that_names_another_checkpoint_does_not_make_it_that_ones(self, work: Path) -> None:
        def other(manifest: dict[str, Any]) -> None:
            link(manifest, "checkpoint")["sha256"] = sha256_of(work / "c2.safetensors")

        path = edited(work, "renamed", other)
        named = deploy("verify", path, "-m", "network:net", "-c", "c2.safetensors", cwd=work, code=2)
        assert "comparing them would mean nothing" in named.stderr
        with pytest.raises(InputError, match="is said to come from the checkpoint"):
            origin(path)

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda m: link(m, "checkpoint").update(kind="seeded", options={"seed": 0}), "is said to come from the seeded"),
            (lambda m: link(m, "onnx").update(sha256="0" * 64), "is said to come from the onnx 0000000000000000…"),
            (lambda m: m["lineage"].insert(3, {"kind": "simplified", "sha256": "1" * 64}), "more than one step simplified"),
            (lambda m: m["lineage"].pop(2), "simplified does not follow onnx"),
            (lambda m: m["lineage"].pop(0), "is said to come from the program"),
            (lambda m: m.update(model="network:traced"), "is said to be of network:traced"),
        ],
        ids=["seeded", "another graph", "two steps", "a step left out", "no checkpoint", "another model"],
    )
    def test_every_step_is_held_to_what_it_can_be(self, edit: Edit, said: str, work: Path, request: pytest.FixtureRequest) -> None:
        with pytest.raises(InputError, match=re.escape(said)):
            origin(edited(work, request.node.callspec.id.replace(" ", "-"), edit))

    def test_a_simplified_graph_that_nobody_made_of_this_program_is_none(self, work: Path) -> None:
        def foreign(manifest: dict[str, Any]) -> None:
            step = link(manifest, "simplified")
            manifest["lineage"].append({**step, "kind": "float16"})
            step["sha256"] = "2" * 64

        with pytest.raises(InputError, match="is said to come from the simplified 2222222222222222…"):
            origin(edited(work, "foreign", foreign))

    def test_two_files_with_the_same_weights_make_one_program_and_both_are_believed(
        self, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(work)  # where the factory is

        def again(manifest: dict[str, Any]) -> None:
            link(manifest, "checkpoint")["sha256"] = sha256_of(work / "again.safetensors")

        path = edited(work, "again", again)
        assert origin(path, work / "again.safetensors") == origin(work / ARTEFACT)


def test_images_without_labels_are_scored_in_agreement_only(work: Path) -> None:
    done = deploy("evaluate", ARTEFACT, "--data", "images", cwd=work)
    assert done.stdout.splitlines()[-1].startswith("AGREEMENT ONLY: ")
    assert "PASS" not in done.stdout
    assert "nothing is said of how many answers are right" in done.stdout


def test_a_profile_without_a_latency_to_believe_does_not_end_as_if_it_had_measured(work: Path) -> None:
    # A quiet machine takes enough for this network in a moment.
    never = "from dtvit_deploy.harness.latency import measurement; measurement.FEWEST_SAMPLES = 10**9"
    done = deploy("profile", ARTEFACT, "--samples", "8", "--seconds", "0.1", "-o", "profiled", cwd=work, code=1, before=never)
    assert done.stdout.splitlines()[-1] == "FAIL: 1 of 1 gates failed"
    assert "✗ a latency to believe: none of 1 measurement is VALID; ONNX FP32, network.net.fp32.onnx: INVALID (too few" in done.stdout
    assert "8 samples of each latency asked for (profile.samples): fewer than " in done.stderr
    compared = deploy("compare", "profiled", "profiled", cwd=work, code=1)  # which says something about the machine alone
    assert "✗ a latency to compare: of 1 artefact none has a VALID latency in both reports" in compared.stdout


def test_energy_that_is_asked_for_where_no_rail_is_says_so(work: Path, tmp_path: Path) -> None:
    """In the report, and so at the terminal; by default it is taken where there is a rail, and nothing is said where there is none."""
    bare = "import functools, pathlib; import dtvit_deploy.pipeline.timing as timing\n"
    bare += f"timing.watching = functools.partial(timing.watching, root=pathlib.Path({str(tmp_path)!r}))"
    few = ("profile", ARTEFACT, "--seconds", "0.1", "--samples", "64")
    done = deploy(*few, "--energy", "1", cwd=work, code=None, before=bare)
    assert "note: no energy: no rail, and no counter of energy, can be read" in " ".join(done.stdout.split())
    for others in ((), ("--energy", "0")):
        assert "no energy" not in deploy(*few, *others, cwd=work, code=None, before=bare).stdout


def test_of_what_can_never_be_int8_calibration_says_so_before_it_reads_an_image(work: Path) -> None:
    done = deploy("calibrate", "-m", "network:net", "--data", "images", "--samples", "4", "-o", "ranges.json", cwd=work)
    told = done.stderr.splitlines()
    first = next(index for index, line in enumerate(told) if "NOTHING IN network:net CAN BE INT8" in line)
    assert first < next(index for index, line in enumerate(told) if "reading the samples" in line)
    assert "are enough" not in done.stdout
    assert "of no use" in done.stdout


def test_an_artefact_is_not_slower_than_itself_in_five_processes_with_both(work: Path) -> None:
    few = ("--processes", "5", "--seconds", "0.1", "--samples", "64")
    done = deploy("ab", ARTEFACT, ARTEFACT, *few, "--band", "0.99", "--json", cwd=work)
    found = json.loads(done.stdout)
    assert found["outcome"]["found"] == "alike"  # within a band that no noise leaves
    assert len(found["outcome"]["processes"]) == len(found["measured"]) == 5
    assert found["names"] == ["network.net.fp32.onnx"] * 2
    assert found["invalid"] == []
    for pair in found["measured"]:
        one, other = (each["samples_ms"] for each in pair)
        assert len(one) == len(other) >= 64


def test_a_process_with_too_few_samples_makes_the_comparison_invalid_and_is_named(work: Path) -> None:
    cut = "import dtvit_deploy.pipeline.ab as ab, msgspec; real = ab.beside\n"
    cut += "def beside(*given, **more):\n    found = real(*given, **more); a, b = found.samples\n"
    cut += "    b = msgspec.structs.replace(b, samples_ms=b.samples_ms[:63], stamps_s=b.stamps_s[:63])\n"
    cut += "    return msgspec.structs.replace(found, samples=(a, b))\n"
    cut += "ab.beside = beside"
    few = ("--processes", "5", "--seconds", "0.1")
    found = json.loads(deploy("ab", ARTEFACT, ARTEFACT, *few, "--json", cwd=work, code=1, before=cut).stdout)
    assert [line.partition(" (in ")[0] for line in found["invalid"]] == [f"process {n}: B: too few samples: 63 of 64" for n in range(1, 6)]
    told = deploy("ab", ARTEFACT, ARTEFACT, *few, cwd=work, code=1, before=cut).stdout
    assert "B INVALID (too few samples" in told
    assert "INVALID, else " in told


def test_an_artefact_that_is_slower_by_more_than_the_band_is_exit_code_1(work: Path) -> None:
    slow = "import dtvit_deploy.pipeline.ab as ab, msgspec; real = ab.beside\n"
    slow += "def beside(*given, **more):\n    found = real(*given, **more); a, b = found.samples\n"
    slow += "    b = msgspec.structs.replace(b, samples_ms=tuple(9 * one for one in b.samples_ms))\n"
    slow += "    return msgspec.structs.replace(found, samples=(a, b))\n"
    slow += "ab.beside = beside"
    few = ("--processes", "5", "--seconds", "0.1", "--samples", "64")
    done = deploy("ab", ARTEFACT, ARTEFACT, *few, cwd=work, code=1, before=slow)
    assert "B is slower: +" in done.stdout


def test_two_artefacts_on_a_board_that_holds_itself_back_are_not_compared_as_if_it_had_not(work: Path, tmp_path: Path) -> None:
    made = captured.Tree(tmp_path / "board", captured.lines("raspberry-pi-4.tree"))  # of which the supply is too weak, now
    board = "import functools, pathlib; import dtvit_deploy.pipeline.ab as ab\n"
    board += f"ab.watching = functools.partial(ab.watching, root=pathlib.Path({str(made.root)!r}))"
    few = ("--processes", "5", "--seconds", "0.1", "--samples", "64", "--band", "0.99")
    done = deploy("ab", ARTEFACT, ARTEFACT, *few, "--json", cwd=work, code=1, before=board)
    found = json.loads(done.stdout)
    assert found["outcome"]["found"] == "alike"
    assert [line.partition(": throttled: ")[0] for line in found["invalid"]] == [f"process {n}" for n in range(1, 6) for _ in "ab"]
    assert {name for line in found["invalid"] for name in ("under-voltage now", "throttled now") if name in line} == {
        "under-voltage now",
        "throttled now",
    }
    for pair in found["measured"]:
        assert all(one["status"] == "INVALID" and one["state"]["before"]["model"].startswith("Raspberry Pi 4") for one in pair)
        times = pair[0]["state"]["times_s"]
        assert times[0] < 0 < pair[0]["state"]["sampled_s"]  # watched from before it was loaded, on the clock of its stamps
    made.close()


def test_figures_of_locked_clocks_are_not_those_of_clocks_as_shipped(work: Path, tmp_path: Path) -> None:
    made = captured.Tree(tmp_path / "board", captured.lines("raspberry-pi-5.tree"))
    policy = "/sys/devices/system/cpu/cpufreq/policy0"
    for name, value in (("scaling_governor", "ondemand"), ("scaling_min_freq", "1500000"), ("scaling_max_freq", "2400000")):
        made.put(f"{policy}/{name}", value)
    made.put(f"{policy}/cpuinfo_max_freq", "2400000")
    board = "import functools, pathlib; from dtvit_deploy.devices.clocks import locking\n"
    board += f"locking.locked = functools.partial(locking.locked, root=pathlib.Path({str(made.root)!r}))"
    few = ("profile", ARTEFACT, "--seconds", "0.2", "--samples", "64")
    deploy(*few, "-o", "shipped", cwd=work, code=None)
    deploy(*few, "--lock-clocks", "-o", "locked", cwd=work, code=None, before=board)
    latencies = [one["latency"] for one in json.loads((work / "locked/report.json").read_text())["subjects"] if one["latency"]]
    assert {one["conditions"]["clocks"] for one in latencies} == {"locked at 2400 MHz"}
    assert (made.root / policy[1:] / "scaling_governor").read_text().strip() == "ondemand"
    for name in ("shipped", "locked"):  # whether it was quiet enough here is another matter
        file = work / name / "report.json"
        report = json.loads(file.read_text())
        for subject in report["subjects"]:
            subject["latency"] |= {"status": "VALID", "reasons": []}
        file.write_text(json.dumps(report))
    told = deploy("compare", "shipped", "locked", cwd=work, code=None)
    assert "clocks was not recorded and is locked at 2400 MHz" in told.stdout
    made.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((ARTEFACT, "none.onnx"), "there is no artefact at none.onnx"),
        ((ARTEFACT, ARTEFACT, "--processes", "4"), "Invalid value for '--processes'"),
        ((ARTEFACT, ARTEFACT, "--band", "inf"), "cannot be none"),
        ((ARTEFACT, ARTEFACT, "--band", "20"), "a difference of 20, which is 2000 %, cannot be none"),
        ((ARTEFACT, ARTEFACT, "--samples", "1"), "1 sample asked for in each process; fewer than 64 are INVALID"),
        ((ARTEFACT, "."), ". is a folder, and ab takes one artefact"),
    ],
)
def test_what_cannot_be_set_side_by_side_is_refused_before_anything_is_measured(given: tuple[str, ...], said: str, work: Path) -> None:
    done = deploy("ab", *given, cwd=work, code=2)
    assert said in done.stderr
    assert "side by side" not in done.stderr


def test_compare_takes_folders_and_names_what_is_missing_in_one(work: Path) -> None:
    deploy("verify", ARTEFACT, "-o", "verified", cwd=work)
    deploy("compare", "verified", "verified/report.json", cwd=work)
    done = deploy("compare", "verified", "images", cwd=work, code=2)
    assert "the folder images has no report.json" in done.stderr
