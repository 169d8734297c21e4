"""A request to end is met while native code runs in the main thread; what was half written is gone, and so are the processes started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dtvit_deploy.process.child import child_command
from processes import lives

PREAMBLE = """
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.process.child import child_command
from dtvit_deploy.cli import failure
from dtvit_deploy.artifacts.staging import staged

def native():
    '''Wait in C for a lock that nobody gives back, as a compiler that does not come to an end.'''
    lock = ctypes.create_string_buffer(256)
    print("native", flush=True)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(lock)

failure.end_on_request()
"""
STAGED = """
with failure.told(), staged(Path(sys.argv[1]) / "new" / "out") as stage:
    (stage / "model.onnx").write_text("half")
    native()
"""
TWO = """
with failure.told(), staged(Path(sys.argv[1]) / "one") as one, staged(Path(sys.argv[1]) / "two" / "three") as two:
    (one / "folder").mkdir()
    (two / "model.onnx").write_text("half")
    native()
"""
CACHED = """
def build(folder):
    (folder / "part").write_text("half")
    native()

with failure.told():
    Cache(Path(sys.argv[1]) / "cache").entry("stage", 1, build)
"""
ASKED_WHILE_REMOVING = """
def ask(event, arguments):
    if event == "os.remove":
        os.kill(os.getpid(), signal.SIGTERM)

def fill(folder):
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")

cache = Cache(Path(sys.argv[1]) / "cache")
"""


def start(body: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(body), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_default)
    assert process.stdout is not None
    assert process.stdout.readline() == "native\n"
    time.sleep(0.3)  # it is in C by then
    return process


def _default() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever runs the tests may have them ignored
        signal.signal(number, signal.SIG_DFL)


def ended(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    return said


@pytest.mark.parametrize(
    ("body", "number"), [(STAGED, signal.SIGTERM), (STAGED, signal.SIGINT), (STAGED, signal.SIGHUP), (TWO, signal.SIGTERM)]
)
def test_output_that_is_half_written_goes_with_it(body: str, number: signal.Signals, tmp_path: Path) -> None:
    said = ended(start(body, str(tmp_path)), number)
    assert (said.count("\n"), said.endswith("; nothing was left half written\n")) == (1, True), said
    assert list(tmp_path.iterdir()) == []


def test_so_does_an_entry_of_the_cache(tmp_path: Path) -> None:
    ended(start(CACHED, str(tmp_path)), signal.SIGTERM)
    assert [path.name for path in tmp_path.rglob("*")] == ["cache"]


KNOWN, DAMAGED, FAILED = (
    """
    for _ in range(2):
        cache.entry_by_content("stage", fill, lambda folder: "the same each time")
        sys.addaudithook(ask)
    """,
    """
    (cache.entry("stage", 1, fill) / ".files").write_text("{")
    sys.addaudithook(ask)
    cache.entry("stage", 1, fill)
    """,
    """
    with staged(cache.root) as out:
        fill(out)
        sys.addaudithook(ask)
        raise failure.DeployError("no")
    """,
)


@pytest.mark.parametrize(
    "body", [KNOWN, DAMAGED, FAILED], ids=["an entry known already", "a damaged entry", "output of a block that failed"]
)
def test_a_request_that_comes_while_something_is_removed_waits_for_that(body: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"{PREAMBLE}{ASKED_WHILE_REMOVING}with failure.told():{body}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_default, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (143, "ended by SIGTERM; nothing was left half written\n")
    assert [path.name for path in tmp_path.rglob(".*") if path.name != ".files"] == []


def test_what_a_thread_that_nobody_can_stop_still_writes_goes_too(tmp_path: Path) -> None:
    body = """
        def write(stage):
            for number in range(2000):
                try:
                    (stage / str(number)).touch()
                except FileNotFoundError:  # its folder is gone
                    return

        with failure.told(), staged(Path(sys.argv[1]) / "out") as stage:
            for _ in range(4):
                threading.Thread(target=write, args=(stage,), daemon=True).start()
            native()
        """
    process = start(body, str(tmp_path))
    ended(process, signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_getting_their_names_are_left_to_it() -> None:
    """The end waits for them only so long, and then claims nothing of what it has left alone."""
    body = """
        from dtvit_deploy.process.ending import changing_names
        with failure.told(), changing_names:
            native()
        """
    assert ended(start(body), signal.SIGTERM) == "ended by SIGTERM\n"


def test_other_work_is_done_on_the_way_out_where_python_comes_to_it() -> None:
    body = """
        with failure.told():
            try:
                print("native", flush=True)
                time.sleep(60)
            finally:
                print("unwound", file=sys.stderr)
        """
    process = start(body)
    assert ended(process, signal.SIGTERM).splitlines() == ["unwound", "ended by SIGTERM; nothing was left half written"]


def test_the_last_word_is_said_once_however_slow_the_way_out_is() -> None:
    body = """
        try:
            with failure.told():
                print("native", flush=True)
                time.sleep(60)
        finally:
            time.sleep(4)  # on its way out, after it has said so
        """
    assert ended(start(body), signal.SIGTERM) == "ended by SIGTERM; nothing was left half written\n"


def test_a_signal_to_a_forked_process_does_not_end_the_one_that_forked_it() -> None:
    body = """
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            time.sleep(60)
        time.sleep(0.3)
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        print("native", flush=True)
        time.sleep(4)
        os._exit(7)
        """
    process = start(body)
    process.communicate(timeout=30)
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_processes_that_it_started_end_with_it(number: signal.Signals) -> None:
    body = """
        child = subprocess.Popen(child_command("import os, time; print(os.getpid(), flush=True); time.sleep(60)"), stdout=subprocess.PIPE)
        number = child.stdout.readline()
        sys.stderr.write(number.decode())
        sys.stderr.flush()
        with failure.told():
            native()
        """
    process = start(body)
    assert process.stderr is not None
    child = int(process.stderr.readline())
    process.send_signal(number)
    process.communicate(timeout=30)
    for _ in range(200):
        if not lives(child):
            break
        time.sleep(0.05)
    else:
        pytest.fail("it lives on")


def test_one_whose_parent_is_gone_before_it_could_be_told_ends_at_once() -> None:
    code = child_command("print('it runs')")
    code[code.index("-c") + 1] = code[code.index("-c") + 1].replace(f"end_with({os.getpid()})", "end_with(999999999)")
    done = subprocess.run(code, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, b"")
