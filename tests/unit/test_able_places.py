"""Devices are held against what is asked of them before any of it is made: no sample is read for a device that cannot do its part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.probe import Facts
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.beforehand import require_able
from dtvit_deploy.pipeline.elsewhere import moved, runs_on
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.recipe.tables import Data, Recipe, Run
from dtvit_deploy.recipe.tables import Device as On
from dtvit_deploy.remote.place import Place

SIGNATURE = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 3)),))
RECIPE = Recipe(device=(On(name="ssh://box"),), data=Data(samples=4))
EVERYTHING = Figures(parity=True, accuracy=True, latency=True)


class Unread(Material):
    """Samples that must not be made."""

    def __len__(self) -> int:
        return 10

    def feeds(self) -> Iterator[object]:  # type: ignore[override]
        raise AssertionError("a sample was made before the devices were looked at")


MATERIAL = Unread(SIGNATURE, None, None, (), "nothing", real=False)


def artifact(folder: Path, kind: str = "onnx") -> Artifact:
    path = folder / f"net.{kind}"
    path.write_bytes(b"x" * 1000)
    link = Link(kind=kind, sha256="a" * 64)
    return Artifact(path, Manifest(format=kind, precision=Precision.FP32, model="m", sha256="a" * 64, signature=SIGNATURE, lineage=(link,)))


def place(name: str = "box", **facts: object) -> Place:
    found = Place(Device(name=name, address=None), lambda text: None)
    known = Facts(
        system="Linux",
        release="6.1",
        architecture="x86_64",
        cache="/c",
        writable=True,
        clock=0.0,
        python="/p",
        python_version=(3, 12, 1),
        packages={"numpy": "2", "onnxruntime": "1"},
    )
    found.facts = msgspec.structs.replace(known, **facts)
    return found


@pytest.mark.parametrize(
    ("kind", "facts", "error", "told"),
    [
        ("onnx", {"packages": {"numpy": "2"}}, MissingError, "box lacks what this needs: onnxruntime"),
        ("openvino", {}, MissingError, "box lacks what this needs: openvino"),
        ("onnx", {"python_version": (3, 8, 10)}, MissingError, r"Python 3\.10 or later"),
        ("onnx", {"memory": 1 << 20}, MissingError, "memory: 200 MiB are needed, 1 MiB are free"),
        ("onnx", {"disk": 1 << 20, "kept": 0}, MissingError, "room: 256 MiB are needed in /c"),
        ("onnx", {"writable": False}, MissingError, "/c cannot be written"),
        ("program", {}, InputError, "cannot be run on box"),
    ],
)
def test_what_one_of_several_cannot_do_is_told_before_a_sample_is_made(
    tmp_path: Path, kind: str, facts: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        require_able([place("other"), place(**facts)][kind != "onnx" :], [artifact(tmp_path, kind)], MATERIAL, RECIPE, EVERYTHING)
    require_able([place()], [artifact(tmp_path)], MATERIAL, RECIPE, EVERYTHING)


def test_an_emulated_processor_is_told_where_nothing_but_a_latency_is_wanted(tmp_path: Path) -> None:
    nets, emulated = [artifact(tmp_path)], place(emulator="qemu-aarch64")
    with pytest.raises(MissingError, match=r"latency of net\.onnx on box cannot be measured here: .*the processor of box"):
        require_able([emulated], nets, MATERIAL, RECIPE, Figures(latency=True))
    require_able([emulated], nets, MATERIAL, RECIPE, EVERYTHING)  # it answers
    require_able([emulated, place("real")], nets, MATERIAL, RECIPE, Figures(latency=True))
    here = msgspec.structs.replace(RECIPE, device=(On(name="local"), *RECIPE.device))
    require_able([emulated], nets, MATERIAL, here, Figures(latency=True))


@pytest.mark.parametrize("runtime", ["coreml", "openvino"])
def test_a_runtime_that_was_asked_for_and_is_not_there_is_not_replaced(tmp_path: Path, runtime: str) -> None:
    asked = msgspec.structs.replace(RECIPE, run=Run(runtimes=(runtime,)))
    with pytest.raises(InputError, match=f"the runtime {runtime} loads none of net.onnx on box"):
        require_able([place()], [artifact(tmp_path)], MATERIAL, asked, EVERYTHING)
    both = msgspec.structs.replace(RECIPE, device=(On(name="local"), *RECIPE.device), run=Run(runtimes=(runtime,)))
    require_able([place()], [artifact(tmp_path)], MATERIAL, both, EVERYTHING)  # it may be meant for this machine


def test_what_is_moved_follows_from_shapes_and_counts(tmp_path: Path) -> None:
    one, answer = 3 * 8 * 8 * 4 + 512, 3 * 4 + 512
    assert moved(MATERIAL, RECIPE, Figures(latency=True)) == (one, answer)
    assert moved(MATERIAL, RECIPE, Figures(accuracy=True)) == (10 * one, 10 * answer)
    assert moved(MATERIAL, RECIPE, Figures(parity=True)) == (9 * one, 9 * answer)  # four samples, five adversarial ones
    assert moved(MATERIAL, RECIPE, Figures(parity=True)).at_once(2) == 9 * one + 18 * answer


def test_no_device_needs_nothing(tmp_path: Path) -> None:
    require_able([], [artifact(tmp_path)], MATERIAL, Recipe(), EVERYTHING)


@pytest.mark.parametrize(
    ("kind", "facts", "runs"),
    [
        ("onnx", {}, True),
        ("openvino", {}, True),  # which the device lacks, and could have
        ("mlpackage", {}, False),
        ("mlpackage", {"system": "Darwin"}, True),
        ("trt", {}, False),
        ("rtx", {"gpu": "Orin"}, False),
        ("trtjob", {"gpu": "Orin"}, False),
        ("program", {}, False),
    ],
)
def test_what_belongs_to_another_vendors_machines_is_passed_over_in_a_whole_run(
    tmp_path: Path, kind: str, facts: dict[str, object], runs: bool
) -> None:
    assert runs_on(artifact(tmp_path, kind), place(**facts)) is runs
