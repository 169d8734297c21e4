"""What no device can be asked at once is told by the bound that it is beyond, before anything is made for it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.probe import Facts
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.job import MOST_TASKS, MOST_TIMED
from dtvit_deploy.remote import limits
from dtvit_deploy.remote.asking import Asking
from dtvit_deploy.remote.following import asking_user
from dtvit_deploy.remote.limits import filling_up, require_askable, require_room_here
from dtvit_deploy.remote.needed import require_root
from dtvit_deploy.remote.place import Place

MIB = 1 << 20


def artifact(path: Path, *outputs: TensorSpec) -> Artifact:
    signature = Signature((TensorSpec("image", (1, 3, 4, 4)),), outputs or (TensorSpec("logits", (1, 3)),))
    link = Link(kind="onnx", sha256="a" * 64)
    return Artifact(
        path, Manifest(format="onnx", precision=Precision.FP32, model="m", sha256="a" * 64, signature=signature, lineage=(link,))
    )


@pytest.mark.parametrize("name", ["a\\b.onnx", "a\nb.onnx", "a\x7f.onnx", "\udc80.onnx", "a" * 256])
def test_a_file_whose_name_no_device_takes_is_told_by_its_name_and_what_to_do(name: str) -> None:
    with pytest.raises(InputError, match="is no name for a file on a device") as refused:
        require_askable([artifact(Path("/x") / name)], timed=False, threads=1)
    assert repr(name)[:100] in str(refused.value)
    assert "plain name" in str(refused.value.remedy)


def test_a_folder_with_such_a_file_is_told_too(tmp_path: Path) -> None:
    folder = tmp_path / "net.mlpackage"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "c:\\weights").write_text("x")
    with pytest.raises(InputError, match=r"weights' in net\.mlpackage is no name"):
        require_askable([artifact(folder)], timed=False, threads=1)


def test_more_than_are_timed_side_by_side_are_told_by_their_number() -> None:
    several = [artifact(Path("net.onnx"))] * (MOST_TIMED + 1)
    with pytest.raises(InputError, match=r"a latency of 65 artefacts.*64 side by side") as refused:
        require_askable(several, timed=True, threads=1)
    assert refused.value.remedy == "give fewer at once"
    require_askable(several, timed=False, threads=1)
    require_askable(several[1:], timed=True, threads=1)


def test_more_than_a_job_has_tasks_and_more_threads_are_told_by_their_number() -> None:
    with pytest.raises(InputError, match=r"1,001 artefacts.* \(1,000\)"):
        require_askable([artifact(Path("net.onnx"))] * (MOST_TASKS + 1), timed=False, threads=1)
    with pytest.raises(InputError, match="4,096 threads at most"):
        require_askable([artifact(Path("net.onnx"))], timed=False, threads=5000)


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([TensorSpec(f"o{index}", (1,)) for index in range(65)], "65 outputs, and 64 are sent at once"),
        ([TensorSpec("deep", (1,) * 9)], "with 8 axes"),
        ([TensorSpec("odd", (1,), "complex64")], "its output odd 1 complex64 is not among what is sent"),
        ([TensorSpec("n" * 1001, (1,))], "1,000 letters at most"),
        ([TensorSpec("wide", (1, 1 << 24))], "67,108,864 bytes, and 64 MiB are sent at once"),
    ],
)
def test_answers_that_no_frame_can_hold_are_told_by_what_is_too_much(outputs: list[TensorSpec], why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        require_askable([artifact(Path("net.onnx"), *outputs)], timed=False, threads=1)
    assert refused.value.remedy == "measure it on this machine"


def test_whatever_else_is_too_much_is_no_question_of_versions(tmp_path: Path) -> None:
    asking = Asking(tmp_path, token="t" * 101)
    asking.state()
    with pytest.raises(InputError, match=r"no device takes this at once: .*length <= 100") as refused:
        _ = asking.asked
    assert "version" not in str(refused.value.remedy)


class _Disk(NamedTuple):
    total: int
    used: int
    free: int


def test_samples_for_which_this_machine_has_no_room_are_told_before_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: _Disk(10_000 * MIB, 9_000 * MIB, 1_000 * MIB))
    require_room_here(900 * MIB, "the samples")
    with pytest.raises(MissingError, match=r"the samples take 1,275 MB of .*, and 1,049 MB are free there") as refused:
        require_room_here(1_200 * MIB, "the samples")
    assert "TMPDIR" in str(refused.value.remedy)
    assert "fewer samples" in str(refused.value.remedy)


def test_a_disk_that_fills_up_all_the_same_is_told_as_that_and_other_failures_as_themselves() -> None:
    with pytest.raises(MissingError, match="do not fit into"), filling_up("the samples"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), filling_up("the samples"):
        raise PermissionError(errno.EACCES, "no")
    assert limits.MOST_TIMED == MOST_TIMED


class TestADeviceIsHeldAgainstWhatIsNeeded:
    @pytest.fixture
    def net(self, tmp_path: Path) -> Artifact:
        with (tmp_path / "net.onnx").open("wb") as file:
            file.truncate(100 * MIB)
        return artifact(tmp_path / "net.onnx")

    def place(self, *, wait: bool = True, **facts: object) -> Place:
        found = Place(Device(name="box", address=None), lambda text: None, wait=wait)
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

    def test_memory_is_twice_the_weights_and_a_runtime_where_it_is_known(self, net: Artifact) -> None:
        subjects = [(net, "onnxruntime")]
        self.place(memory=400 * MIB).require(subjects, fed=0, answered=0, timed=False, threads=1)
        self.place().require(subjects, fed=0, answered=0, timed=False, threads=1)
        with pytest.raises(MissingError, match="box lacks what this needs: memory: 400 MiB are needed, 399 MiB are free"):
            self.place(memory=399 * MIB).require(subjects, fed=0, answered=0, timed=False, threads=1)

    def test_disk_is_what_is_sent_less_what_may_be_there_already(self, net: Artifact) -> None:
        subjects = [(net, "onnxruntime")]
        self.place(disk=400 * MIB, kept=0).require(subjects, fed=44 * MIB, answered=0, timed=False, threads=1)
        self.place(disk=300 * MIB, kept=600 * MIB).require(subjects, fed=500 * MIB, answered=0, timed=False, threads=1)
        self.place(disk=300 * MIB).require(subjects, fed=500 * MIB, answered=0, timed=False, threads=1)  # nothing counted what is there
        with pytest.raises(MissingError, match="room: 401 MiB are needed in /c, 400 MiB are free") as refused:
            self.place(disk=400 * MIB, kept=0).require(subjects, fed=45 * MIB, answered=0, timed=False, threads=1)
        assert "fewer samples" in str(refused.value.remedy)

    def test_a_holder_is_told_to_who_does_not_wait_unless_it_is_their_own_job(self, net: Artifact) -> None:
        subjects = [(net, "onnxruntime")]
        self.place(holder="you@there since noon").require(subjects, fed=0, answered=0, timed=False, threads=1)
        self.place(wait=False, holder=f"{asking_user()} since noon").require(subjects, fed=0, answered=0, timed=False, threads=1)
        with pytest.raises(MissingError, match="box: somebody has the device, who says to be you@there since noon"):
            self.place(wait=False, holder="you@there since noon").require(subjects, fed=0, answered=0, timed=False, threads=1)

    def test_a_runtime_that_is_not_there_is_told(self, net: Artifact) -> None:
        with pytest.raises(MissingError, match="box lacks what this needs: openvino"):
            self.place().require([(net, "openvino")], fed=0, answered=0, timed=False, threads=1)


def test_a_full_disk_is_told_while_the_samples_are_written(tmp_path: Path) -> None:
    class Feeds(dict[str, np.ndarray]):
        def items(self) -> object:  # type: ignore[override]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MissingError, match="do not fit"):
        Asking(tmp_path)._written(iter([Feeds()]))


def test_clocks_are_not_asked_to_be_locked_where_the_user_is_not_root_and_the_remedy_is_by_hand() -> None:
    silent = Facts(system="Linux", release="6.1", architecture="aarch64", cache="/c", writable=True, clock=0.0)
    me, root = (msgspec.structs.replace(silent, user=name) for name in ("me", "root"))
    with pytest.raises(MissingError, match=r"^orin: clocks are locked by root alone, and the user there is me$") as refused:
        require_root("orin", me)
    assert "log in as root" in str(refused.value.remedy)
    assert "sudo jetson_clocks" in str(refused.value.remedy)
    assert "sudo nvidia-smi -lgc MIN,MAX" in str(refused.value.remedy)
    for able in (root, msgspec.structs.replace(me, emulator="qemu"), silent):  # where nothing is timed, and where the agent will say
        require_root("orin", able)
