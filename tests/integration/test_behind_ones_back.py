"""No command opens a socket, starts a process that is not ours, writes outside its folders or leaves anything, however it ends.

A few commands; `make audit` takes them all.
"""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")
for module in ("onnx", "onnxruntime", "openvino", "coremltools", "matplotlib"):
    pytest.importorskip(module, reason="needs every vendor that might report home")

from quiet_place import Place, quiet_place  # noqa: E402
from tracing import Traced, traced, why_not  # noqa: E402

WHY_NOT = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
EVERYTHING = ("export", "-m", "mine:make", *(word for target in ("onnx", "openvino", "coreml") for word in ("-t", target)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Traced]:
    """A place in which three targets were exported, and what that did."""
    place = quiet_place(tmp_path_factory.mktemp("quiet") / "place")
    return place, place.run(*EVERYTHING, "-p", "fp32", "-p", "fp16", "-o", "out")


def require_quiet(place: Place, found: Traced) -> None:
    assert found.sockets == []
    assert found.forks == []
    assert place.outside(found) == []
    assert place.left(found) == []


def test_an_export_to_three_vendors_formats(exported: tuple[Place, Traced]) -> None:
    place, found = exported
    assert found.code == 0, found.said
    require_quiet(place, found)


def test_a_check_with_sessions_a_process_of_its_own_and_a_report_with_pictures(exported: tuple[Place, Traced]) -> None:
    place, _ = exported
    artefacts = [f"out/mine.make.fp32.{suffix}" for suffix in ("onnx", "openvino", "mlpackage")]
    found = place.run("profile", *artefacts, "--seconds", 0.1, "--samples", 8, "-o", "out/report")
    assert found.code in (0, 1), found.said  # a tenth of a second may be too short for a measurement, and need not
    assert (place.work / "out" / "report" / "report.html").exists()
    require_quiet(place, found)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)], ids=lambda number: number.name
)
def test_a_core_ml_export_that_is_ended_after_its_first_package(number: signal.Signals, tmp_path: Path) -> None:
    place = quiet_place(tmp_path / "place")
    eighth = 8  # of ten, so that something was built; what follows is there to be cut short, however late the signal comes
    targets = ("-t", "coreml", "-t", "onnx", "-t", "openvino")
    found = place.run("export", "-m", "mine:make", *targets, "-p", "fp32", "-p", "fp16", "-o", "out", at=eighth, number=number)
    assert found.code == 128 + number, found.said
    require_quiet(place, found)


def test_one_that_fails(tmp_path: Path) -> None:
    place = quiet_place(tmp_path / "place")
    found = place.run("export", "-m", "mine:odd", "-t", "coreml", "-p", "fp32", "-o", "out")
    assert found.code == 2, found.said
    require_quiet(place, found)


def test_whatever_is_done_behind_ones_back_is_seen(tmp_path: Path) -> None:
    """The audit itself: a socket of native code, a forked copy, a program of others, and files by every call that makes one."""
    code = """
        import ctypes, os, subprocess
        ctypes.CDLL(None).socket(1, 1, 0)
        if os.fork() == 0:
            os.mkdir("made-by-a-child")
            os._exit(0)
        os.wait()
        subprocess.run(["true"], check=True)
        open("opened", "w").close()
        os.rename("opened", "renamed")
        os.symlink("nowhere", "link")
        os.close(os.open("there", os.O_RDONLY | os.O_CREAT))
        open("/dev/null", "w").close()
        """
    found = traced(
        [sys.executable, "-c", textwrap.dedent(code)], tmp_path, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, tmp_path / "log"
    )
    assert (found.code, len(found.sockets)) == (0, 1), found.said
    assert [fork.partition(",")[0] for fork in found.forks] == ["a copy of the command itself", '"/usr/bin/true"']
    names = ["link", "made-by-a-child", "opened", "renamed", "there"]
    assert found.outside() == [tmp_path / name for name in names]
    assert found.outside(tmp_path) == []
