"""Memory that ran out is told as that, whatever a library made of it: no defect, and nothing to install."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from dtvit_deploy.cli.failure import told
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.process import memory


def caused(error: Exception, by: BaseException | None) -> Exception:
    error.__cause__ = by
    return error


NO_MAP = ImportError("libtorch_cpu.so: failed to map segment from shared object")
RAN_OUT = {
    "a library that cannot be mapped": (NO_MAP, 3),
    "… which the loader tells": (OSError("libgomp.so.1: failed to map segment from shared object"), 3),
    "… which was taken for one that is missing": (caused(MissingError("torch is missing", remedy="pip install torch"), NO_MAP), 3),
    "torch": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 36864 bytes."), 2),
    "NumPy": (MemoryError("Unable to allocate 2.00 GiB for an array with shape (1, 2)"), 2),
    "C++": (RuntimeError("std::bad_alloc"), 2),
    "ONNX Runtime": (
        caused(
            InputError("ONNX Runtime refuses net.onnx: Failed to allocate", remedy="export it again"),
            RuntimeError("Failed to allocate memory for requested buffer"),
        ),
        2,
    ),
    "the C library": (OSError(errno.ENOMEM, "Cannot allocate memory", "net.onnx"), 2),
    "oneDNN": (RuntimeError("could not create a primitive"), 2),
    "another process": (caused(InputError("net.onnx could not be loaded"), ChildProcessError("std::bad_alloc")), 2),
    "a thread": (RuntimeError("can't start new thread"), 2),
}
NAMED_SO = "/data/Out of memory/net.pt"
OTHERS = [
    KeyError("memory"),
    ImportError("No module named 'torch'"),
    ValueError("allocation of names"),
    OSError(2, "No such file"),
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    RuntimeError("could not create a memory descriptor"),
    InputError(f"{NAMED_SO} does not exist"),
    MissingError("nothing is installed in /opt/bad_alloc"),
    FileNotFoundError(2, "No such file or directory", NAMED_SO),
    caused(InputError(f"{NAMED_SO} cannot be read"), PermissionError(13, "Permission denied", NAMED_SO)),
    caused(InputError("it does not fit"), None),
]
OTHERS[-1].__context__ = MemoryError()  # somebody said `from None`: what came before was dealt with


@pytest.mark.parametrize(("error", "code"), RAN_OUT.values(), ids=RAN_OUT)
def test_it_is_one_message_that_says_what_to_do(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, told():
        raise error
    said = capsys.readouterr().err
    assert caught.value.code == code
    assert said.startswith("error: out of memory: ")
    assert said.count("\n") == 2
    assert "ulimit -v" in said
    assert "pip install" not in said


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_what_only_sounds_like_it_is_not(error: Exception) -> None:
    assert not memory.ran_out(error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds addresses")
def test_a_real_limit_gives_one_message_and_no_defect(tmp_path: Path) -> None:
    deploy = Path(sys.executable).with_name("dtvit-deploy")
    command = f"ulimit -v 60000; exec {deploy} verify {tmp_path}/none.onnx"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: out of memory: ")
    assert (done.stderr.count("\n"), "pip install" in done.stderr) == (2, False)
