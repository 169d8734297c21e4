"""What a device says of itself is asked before anything is copied, read strictly, and held against what a job takes."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.devices.needs import Needs, lacks, notes, of_any_use, release, require
from dtvit_deploy.devices.probe import Facts, probe, read_facts
from dtvit_deploy.devices.transport import LostError, Shell
from dtvit_deploy.errors import InputError, MissingError

NOW = 1_800_000_000
ORIN = b"""system Linux
release 5.15.148-tegra
architecture aarch64
distribution Ubuntu 22.04.5 LTS
user me
model NVIDIA Jetson AGX Orin Developer Kit
l4t # R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 04:36:44 UTC 2024
jetpack 6.1+b123
power_mode MAXN
gpu Orin
capability 8.7
cuda 12.6
memory_kib 28000000
cache /home/me/.cache
cache_writable yes
disk_kib 12000000
python /usr/bin/python3
python_version 3.10.12
package numpy 1.21.5
package tensorrt 10.3.0
clock 1800000003
end
"""
"""As an Orin with JetPack 6 would answer, by the documentation of its files: no Jetson was asked."""


def orin(**changes: object) -> Facts:
    return msgspec.structs.replace(read_facts("orin", ORIN, now=NOW), **changes)


def test_this_machine_tells_what_it_is(tmp_path: Path) -> None:
    found = probe(Shell(tmp_path), sys.executable, leases=())
    assert found.python_version == sys.version_info[:3]
    assert found.packages["numpy"] == np.__version__
    assert abs(found.clock) < 5
    assert found.system
    assert found.disk
    assert not found.holder


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_any_posix_shell_reads_the_questions(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}, which Debian has in a package of that name")
    script = Path(sys.modules[probe.__module__].__file__ or "").with_name("probe.sh")
    words = [program, *(["sh"] if shell == "busybox" else []), "-s", "--", sys.executable]
    done = Shell(tmp_path).run(words, stdin=script.read_bytes())
    assert done.stderr == b""
    assert read_facts(shell, done.stdout, now=NOW).python == sys.executable


def test_the_answer_of_a_jetson_is_read() -> None:
    found = orin()
    assert found.architecture == "aarch64"
    assert found.power_mode == "MAXN"
    assert release(found.l4t) == "36.4.0"
    assert found.memory == 28_000_000 << 10
    assert found.packages == {"numpy": "1.21.5", "tensorrt": "10.3.0"}
    assert found.clock == 3
    assert notes(found) == []
    require("orin", found, Needs(("tensorrt",), disk=1 << 30, memory=1 << 30))


def test_everything_that_is_missing_is_one_message_with_every_remedy() -> None:
    with pytest.raises(MissingError) as refused:
        require("orin", orin(), Needs(("onnxruntime", "openvino"), disk=1 << 40, memory=1 << 40))
    told = str(refused.value)
    for part in ("orin lacks", "onnxruntime", "openvino", "room: 1,048,576 MiB are needed in /home/me/.cache", "memory: 1,048,576 MiB"):
        assert part in told
    for remedy in ("/usr/bin/python3 -m pip install onnxruntime", "for this JetPack", "pip install openvino", "free some of its disk"):
        assert remedy in str(refused.value.remedy)


@pytest.mark.parametrize(
    ("changes", "told", "remedy"),
    [
        (
            {"python": "", "python_version": None, "packages": {}},
            "Python: no such program is in the PATH of me",
            "install Python 3.10 or later",
        ),
        ({"python_version": None, "packages": {}}, "a Python that runs: /usr/bin/python3 does not", "`python` in devices.toml"),
        ({"python_version": (3, 8, 10)}, "Python 3.10 or later: /usr/bin/python3 is 3.8.10", "install a later Python there beside it"),
        ({"python_version": (2, 7, 18)}, "/usr/bin/python3 is 2.7.18", "beside it"),
        ({"packages": {}}, "lacks what this needs: numpy", "/usr/bin/python3 -m pip install numpy"),
        ({"broken": {"numpy": "ImportError: libopenblas.so.0"}}, "a numpy that imports: ImportError: libopenblas.so.0", "install it anew"),
        ({"packages": {"numpy": "2.0"}}, "onnxruntime", "/usr/bin/python3 -m pip install onnxruntime"),
        ({"writable": False}, "/home/me/.cache cannot be written", "XDG_CACHE_HOME"),
    ],
)
def test_each_lack_has_its_words_and_its_remedy(changes: dict[str, object], told: str, remedy: str) -> None:
    with pytest.raises(MissingError) as refused:
        require("orin", orin(**changes), Needs(("onnxruntime",)))
    assert told in str(refused.value)
    assert remedy in str(refused.value.remedy)


def test_another_python_is_asked_for_before_its_packages() -> None:
    assert [each.what for each in lacks(orin(python_version=(3, 8, 10), packages={}), Needs(("onnxruntime",)))] == [
        "Python 3.10 or later: /usr/bin/python3 is 3.8.10"
    ]


BUILDS = Needs(("tensorrt",), gpu=True, releases={"tensorrt": (10, 11)})


@pytest.mark.parametrize(
    ("changes", "told", "remedy"),
    [
        ({"packages": {"numpy": "1.26"}}, "tensorrt", "sudo apt install nvidia-jetpack"),
        ({"packages": {"numpy": "1.26", "tensorrt": "8.5.2"}}, "tensorrt 10 or 11: it has 8.5.2", "JetPack 6 or later"),
        ({"packages": {"numpy": "1.26", "tensorrt": "100.1"}, "l4t": ""}, "it has 100.1", "pip install 'tensorrt==11.*'"),
        ({"gpu": "", "no_gpu": "the NVIDIA driver finds no GPU (CUDA error 100)"}, "CUDA error 100", "a machine with an NVIDIA GPU"),
        ({"gpu": ""}, "an NVIDIA GPU: it tells of none", "a machine with an NVIDIA GPU"),
    ],
)
def test_what_a_device_lacks_to_build_an_engine_is_told_with_the_way_to_it(changes: dict[str, object], told: str, remedy: str) -> None:
    require("orin", orin(), BUILDS)
    require("orin", orin(packages={"numpy": "1.26", "tensorrt": "11.1.0.106"}), BUILDS)
    with pytest.raises(MissingError, match="orin lacks") as refused:
        require("orin", orin(**changes), BUILDS)
    assert told in str(refused.value)
    assert remedy in str(refused.value.remedy)


def test_an_engine_is_run_by_bindings_that_fit_the_driver_and_a_package_by_a_mac() -> None:
    with pytest.raises(MissingError) as refused:
        require("orin", orin(), Needs(("tensorrt", "cuda.bindings"), gpu=True))
    assert "'cuda-bindings<13'" in str(refused.value.remedy)
    there = {"numpy": "1.26", "coremltools": "9.0"}
    with pytest.raises(MissingError, match="Core ML: its system is Linux"):
        require("orin", orin(packages=there), Needs(("coremltools",)))
    require("mini", orin(packages=there, system="Darwin"), Needs(("coremltools",)))


def test_a_device_without_any_runtime_is_of_no_use_and_one_is_enough() -> None:
    assert not of_any_use(orin())
    assert "none of onnxruntime, openvino, tensorrt" in of_any_use(orin(packages={"numpy": "1.26.4"}))[0].what


def test_a_clock_in_1970_an_emulator_and_a_holder_are_notes_and_no_failures() -> None:
    found = orin(clock=-56.9 * 365.25 * 86400, emulator="qemu-aarch64-static", holder="somebody since noon")
    require("orin", found, Needs())
    told = "; ".join(notes(found))
    assert "its clock is 57 years behind" in told
    assert "an emulated processor (qemu-aarch64-static)" in told
    assert "somebody since noon" in told


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"end\n", b""),
        (b"end\n", b"end\nmore\n"),
        (b"user me", b"user me\nuser you"),
        (b"user me", b"welcome to this machine"),
        (b"28000000", b"many"),
        (b"28000000", b"9" * 30),
        (b"3.10.12", b"3.10"),
        (b"3.10.12", b"three"),
        (b"numpy 1.21.5", b"numpy 1.21.5 $(x)"),
        (b"system Linux\n", b""),
        (b"cache_writable yes\n", b""),
        (b"user me", b"user " + b"x" * (64 << 10)),
        (b"user me\n", b"package x 1\n" * 2),
    ],
)
def test_an_answer_that_the_script_would_not_give_is_refused(was: bytes, becomes: bytes) -> None:
    assert was in ORIN
    with pytest.raises(InputError, match="orin does not say what it is as it should"):
        read_facts("orin", ORIN.replace(was, becomes), now=NOW)


def test_text_from_a_device_cannot_move_a_cursor_or_fill_a_screen() -> None:
    found = read_facts("orin", ORIN.replace(b"Jetson", b"\x1b[2J\xe2\x80\xae" + b"J" * 5000), now=NOW)
    assert found.model.isprintable()
    assert len(found.model) <= 300


@given(st.binary(max_size=40), st.integers(0, len(ORIN)), st.integers(0, 60))
def test_a_changed_answer_is_refused_or_read_and_never_a_defect(piece: bytes, at: int, cut: int) -> None:
    try:
        found = read_facts("orin", ORIN[:at] + piece + ORIN[at + cut :], now=NOW)
        texts = [found.model, found.user, found.holder, *found.packages, *found.broken.values()]
    except InputError as refused:
        texts = [str(refused)]
    assert all(text.isprintable() for text in texts)


def stand_in(folder: Path, script: str) -> str:
    """A program that behaves as some Python would: which old ones there are differs between machines."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("cat >&2; exit 1", "a Python that runs"),
        ("echo python_version 3.8.10", "Python 3.10 or later: .* is 3.8.10"),
        ("echo python_version 3.12.1; kill -SEGV $$", "a numpy that imports: Python ended with status 139"),
        ("echo python_version 3.12.1; echo broken numpy ImportError: no libopenblas", "a numpy that imports: ImportError: no libopenblas"),
    ],
)
def test_a_python_that_does_not_do_is_told_by_what_it_does(tmp_path: Path, script: str, told: str) -> None:
    with pytest.raises(MissingError, match=told):
        require("box", probe(Shell(tmp_path), stand_in(tmp_path, script)), Needs())


def test_a_driver_that_ends_its_process_is_not_numpys_fault(tmp_path: Path) -> None:
    script = "echo python_version 3.12.1; echo package numpy 2.0; kill -SEGV $$"
    found = probe(Shell(tmp_path), stand_in(tmp_path, script))
    require("box", found, Needs())
    with pytest.raises(MissingError, match="the NVIDIA driver ended Python with status 139"):
        require("box", found, Needs(gpu=True))


def test_a_python_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtvit_deploy.devices.probe._PATIENCE", 0.5)
    with pytest.raises(LostError, match="has not answered"):
        probe(Shell(tmp_path), stand_in(tmp_path, "sleep 5"))


def test_a_python_without_numpy_is_told_as_that(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    found = probe(Shell(tmp_path), "bare/bin/python")
    assert found.python_version == sys.version_info[:3]
    assert "numpy" not in found.packages
    assert lacks(found, Needs())[0].remedy == f"{tmp_path}/bare/bin/python -m pip install numpy"


def test_files_in_the_folder_are_not_taken_for_packages(tmp_path: Path) -> None:
    for name in ("numpy", "os", "fcntl", "importlib"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert probe(Shell(tmp_path), sys.executable).packages["numpy"] == np.__version__
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lease"
    with path.open("w") as held:
        held.write("me@bench, 2026-11-30 17:00\x1b[2J\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        yield path


def test_who_holds_the_lease_is_told_and_a_dead_holders_word_is_not(tmp_path: Path, lease: Path) -> None:
    assert probe(Shell(tmp_path), sys.executable, [str(lease)]).holder == "me@bench, 2026-11-30 17:00 [2J"
    link = tmp_path / "link"
    link.symlink_to(lease)
    assert probe(Shell(tmp_path), sys.executable, [str(link), str(tmp_path / "none")]).holder == ""
    free = tmp_path / "free"
    free.write_text("somebody who is gone")
    assert probe(Shell(tmp_path), sys.executable, [str(free)]).holder == ""


def test_what_a_device_sets_for_itself_is_heeded(tmp_path: Path, lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTVIT_DEPLOY_LEASE", str(lease))
    monkeypatch.setenv("DTVIT_DEPLOY_EMULATED", "a simulator of ours")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = probe(Shell(tmp_path), sys.executable)
    assert found.holder.startswith("me@bench")
    assert found.emulator == "a simulator of ours"
    assert found.cache == f"{tmp_path}/.cache"


def test_a_cache_that_cannot_be_is_told_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    found = probe(Shell(tmp_path), sys.executable)
    with pytest.raises(MissingError, match="cannot be written"):
        require("box", found, Needs())
