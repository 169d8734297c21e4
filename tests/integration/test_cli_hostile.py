"""Manifests, reports and caches that somebody else wrote: refused by the field that is wrong, before anything is made of them."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from commandline import deploy, refused
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path
from networks import IMAGES

pytestmark = pytest.mark.slow  # what all are made from takes ten seconds
NETWORK = IMAGES + "\ndef make(): return Net(), image()\n"
RECIPE = '[model]\nname = "tiny:make"\n[data]\nevaluation = "images"\n'
ARTEFACT = "out/tiny.make.fp32.onnx"
Place = tuple[str | int, ...]


def edited(path: Path, place: Place, value: object) -> None:
    """Put a value into a JSON file; as it is written in ``value`` where that is bytes, for what Python would not write."""
    data: Any = json.loads(path.read_text())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "HERE" if isinstance(value, bytes) else value
    text = json.dumps(data)
    path.write_text(text.replace('"HERE"', value.decode()) if isinstance(value, bytes) else text)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, images in class folders, and all that `run` makes of them: an artefact, and a report with every kind of figure."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "tiny.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    random = np.random.RandomState(0)
    for name in "abc":
        (folder / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(folder / "images" / name / f"{index}.png")
    done = deploy("run", "recipe.toml", "-o", "out", cwd=folder, code=None)
    assert (folder / "out" / "report.json").is_file(), done.stderr
    return folder


@pytest.fixture
def work(given: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to spoil."""
    return Path(shutil.copytree(given, tmp_path / "work"))


class TestManifests:
    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            (("signature", "inputs", 0, "shape", 1), -3, "Expected `int` >= 1 - at `$.signature.inputs[0].shape[1]`"),
            (("signature", "inputs", 0, "shape", 0), 0, "Expected `int` >= 1 - at `$.signature.inputs[0].shape[0]`"),
            (("signature", "outputs", 0, "shape", 1), 2**40, "Expected `int` <= 268435456 - at `$.signature.outputs[0].shape[1]`"),
            (
                ("signature", "inputs", 0, "shape"),
                [1, 3, 10**5, 10**5],
                "at most 268,435,456 values in all shapes, got 30,000,000,000",
            ),
            (("signature", "inputs", 0, "shape"), [1] * 1000, "Expected `array` of length <= 32 - at `$.signature.inputs[0].shape`"),
            (("signature", "inputs", 0, "shape", 0), 1.5, "Expected `int`, got `float` - at `$.signature.inputs[0].shape[0]`"),
            (("signature", "inputs", 0, "shape", 0), b"NaN", "JSON is malformed"),
            (("signature", "inputs", 0, "dtype"), "(2,", "Expected `str` matching regex '^\\\\w+$' - at `$.signature.inputs[0].dtype`"),
            (("lineage",), [], "Expected `array` of length >= 1 - at `$.lineage`"),
        ],
    )
    def test_a_field_that_makes_no_sense_is_named(self, place: Place, value: object, said: str, work: Path) -> None:
        edited(manifest_path(work / ARTEFACT), place, value)
        told = refused("verify", ARTEFACT, cwd=work)
        assert f"{ARTEFACT}.json is not a manifest: " in told
        assert said in told

    def test_shapes_that_are_large_only_together_are_refused(self, work: Path) -> None:
        path = manifest_path(work / ARTEFACT)
        one = json.loads(path.read_text())["signature"]["inputs"][0]
        edited(path, ("signature", "inputs"), [one | {"name": f"i{index}", "shape": [1 << 24]} for index in range(17)])
        assert "got 285,212,672 - at `$.signature.inputs`" in refused("verify", ARTEFACT, cwd=work)

    def test_a_lineage_that_ends_elsewhere_is_refused(self, work: Path) -> None:
        edited(manifest_path(work / ARTEFACT), ("lineage", -1, "sha256"), "0" * 64)
        said = refused("verify", ARTEFACT, cwd=work)
        assert "its last step, simplified, made SHA-256 0000000000000000…, not " in said

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"seed": "x"}, "Expected `int | null`, got `str` - at `$.seed`"),
            ({"seed": -1}, "seed -1 asked for"),
            ({"input_size": [10**6, 10**6]}, "at most 268,435,456"),
            ({"input_size": "ab"}, "at `$.input_size`"),
            ({"num_classes": 10**9}, "1,000,000,000 classes asked for; there must be from 1 to 1,048,576"),
        ],
    )
    def test_what_a_reference_is_made_again_from_is_checked_as_options_are(
        self, options: dict[str, object], said: str, work: Path, tmp_path: Path
    ) -> None:
        edited(manifest_path(work / ARTEFACT), ("lineage", 0, "options"), options)
        elsewhere = {"DTVIT_DEPLOY_CACHE": str(tmp_path / "empty")}
        assert said in refused("verify", ARTEFACT, "--model", "tiny:make", cwd=work, **elsewhere)

    def test_a_program_from_elsewhere_is_not_loaded_since_that_would_run_it(
        self, work: Path, tmp_path: Path, cache_folder: Path, vouch: Callable[[Path, Manifest], Artifact]
    ) -> None:
        """A whole program, with a trap where torch unpickles, and a manifest under which it would be the reference's equal."""
        marker, trap = tmp_path / "it-ran", tmp_path / "trap.pt2"
        wanted = load_artifact(work / ARTEFACT).manifest.parent("program")
        programs = [load_artifact(path) for path in cache_folder.glob("program-*/program.pt2")]
        program = next(one for one in programs if wanted is not None and one.manifest.sha256 == wanted.sha256)

        class Command:
            def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
                return os.system, (f"touch {marker}",)

        with zipfile.ZipFile(program.path) as source, zipfile.ZipFile(trap, "w") as target:
            for record in source.infolist():
                if record.filename.endswith("sample_inputs/model.pt"):
                    torch.save(Command(), tmp_path / "inputs.pt")
                    target.write(tmp_path / "inputs.pt", record.filename)
                else:
                    target.writestr(record, source.read(record))
        assert wanted is not None
        vouch(trap, msgspec.structs.replace(program.manifest, lineage=(wanted, *program.manifest.lineage)))
        said = refused("verify", trap, cwd=work)
        assert "trap.pt2 is an exported program; loading one runs what it says" in said
        assert not marker.exists()
        with pytest.raises(Exception, match=r".*"):
            torch.export.load(trap)
        assert marker.exists()  # the trap is real


class TestReports:
    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            (("parity", 0, "samples"), 0, "Expected `int` >= 1 - at `$.subjects[1].parity[0].samples`"),
            (("parity", 0, "max_abs"), -1e-6, "Expected `float` >= 0.0 - at `$.subjects[1].parity[0].max_abs`"),
            (("parity", 0, "cosine"), 2, "Expected `float` <= 1.0 - at `$.subjects[1].parity[0].cosine`"),
            (("parity", 0, "agreement"), -0.5, "at `$.subjects[1].parity[0].agreement`"),
            (("parity", 0, "near_ties"), 10**30, "at `$.subjects[1].parity[0].near_ties`"),
            (("accuracy", "samples"), 0, "Expected `int` >= 1 - at `$.subjects[1].accuracy.samples`"),
            (("accuracy", "interval", 1), 1.5, "Expected `float` <= 1.0 - at `$.subjects[1].accuracy.interval[1]`"),
            (("latency", "samples_ms"), [], "Expected `array` of length >= 1 - at `$.subjects[1].latency.samples_ms`"),
            (("latency", "samples_ms", 3), -0.1, "Expected `float` >= 0.0 - at `$.subjects[1].latency.samples_ms[3]`"),
            (("latency", "p50"), -1, "Expected `float` >= 0.0 - at `$.subjects[1].latency.p50`"),
            (("latency", "p99"), 1e300, "at `$.subjects[1].latency.p99`"),
            (("latency", "starts", "steady_peak_mib"), -5, "at `$.subjects[1].latency.starts.steady_peak_mib`"),
            (("latency", "mean"), None, "Expected `float`, got `null` - at `$.subjects[1].latency.mean`"),
            (("latency", "mean"), b"NaN", "JSON is malformed"),
            (("latency", "mean"), b"-Infinity", "JSON is malformed"),
            (("latency", "mean"), b"1e999", "Number out of range"),
            (("layers", "modules", 0, "error"), -1, "Expected `float` >= 0.0 - at `$.subjects[1].layers.modules[0].error`"),
            (("bytes",), -1, "Expected `int` >= 0 - at `$.subjects[1].bytes`"),
        ],
    )
    def test_a_figure_that_nothing_measures_is_refused_by_its_place(self, place: Place, value: object, said: str, work: Path) -> None:
        good, hostile = work / "out" / "report.json", work / "hostile.json"
        shutil.copyfile(good, hostile)
        edited(hostile, ("subjects", 1, *place), value)
        for command in (("report", hostile, "-o", "new"), ("compare", good, hostile), ("compare", hostile, good)):
            told = refused(*command, cwd=work, out=False)
            assert f"{hostile} is not a report: " in told
            assert said in told
        assert not (work / "new").exists()

    def test_what_was_measured_is_read_again(self, work: Path) -> None:
        assert deploy("report", "out/report.json", "-o", "new", cwd=work, code=None).returncode in (0, 1)
        assert (work / "new" / "report.json").read_bytes() == (work / "out" / "report.json").read_bytes()


class TestTheCache:
    def test_one_that_others_can_write_is_refused_and_left_as_it_is(self, work: Path, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        for command in (("verify", ARTEFACT), ("export", "-m", "tiny:make", "-o", "new")):
            said = refused(*command, cwd=work, out=False, DTVIT_DEPLOY_CACHE=str(shared))
            assert f"the cache {shared} can be written by others (mode 777); programs are loaded from it" in said
            assert f"chmod go-w {shared}" in said
        assert list(shared.iterdir()) == []
        assert not (work / "new").exists()
