"""Commands in processes that were forked from one that has imported the frameworks: seconds less for each, of which the suite has hundreds.

Each is a process of its own, with its own arguments, folder, environment and streams, and runs the same `main`; what it does not do is to
start Python and to import torch. What is about just that (`before`, `limit`, variables that Python or a framework reads as it starts) gets
a process from nothing: see `commandline.deploy`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    *("torch", "torch.export._trace", "torch._export.serde.serialize"),
    *("onnx", "onnxscript", "onnxscript.function_libs.torch_lib.ops", "onnxruntime", "onnxsim", "PIL.ImageFile"),
)
"""Frameworks, and the parts of them that a command would import in a second or more. Nothing of this package beyond its `__init__`."""
_ENOUGH = 1 << 20
"""Bytes of a request."""


_OF_A_TEST = {"DTVIT_DEPLOY_CACHE", "PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
"""Variables that neither Python nor a framework reads as it starts; torch sets the last in whichever process traces."""


class Begun:
    """A command that was begun, as `subprocess.Popen` has it."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self.pid = self._number()
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """How it ended.

        Raises:
            TimeoutError: it has not, in so many seconds.
        """
        if self.returncode is None:
            self._told.settimeout(timeout)
            self.returncode = self._number()
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """How it ended, if it has."""
        if self.returncode is None and not select.select([self._told], [], [], 0)[0]:
            return None
        return self.wait()

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _number(self) -> int:
        told = self._told.recv(16)
        assert told, "the process that commands are forked from has ended"
        return int(told)


class WarmStart:
    """A process that waits with everything imported, and the way to it; it is started by the first command."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._way: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._asking = threading.Lock()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a process that started with this environment would be as one that is forked from here."""
        self._open()
        return {name for name, _ in self._environment.items() ^ environment.items()} <= _OF_A_TEST

    def run(self, words: list[str], cwd: Path | None, environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
        """A command to its end, as `subprocess.run` gives it.

        Raises:
            TimeoutError: it takes longer than that.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = self.begin(words, cwd, environment, out.fileno(), err.fileno()).wait(seconds)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
        return subprocess.CompletedProcess(words, status, *texts)

    def begin(self, words: list[str], cwd: Path | None, environment: Mapping[str, str], out: int, err: int) -> Begun:
        """Begin a command, whose streams are these."""
        request = json.dumps({"words": words, "cwd": str(cwd or Path.cwd()), "environment": dict(environment)}).encode()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there, self._asking:
            socket.send_fds(self._open(), [request], [there.fileno(), out, err])
        return Begun(here)

    def _open(self) -> socket.socket:
        if self._way is None:
            self._way, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-c", "import sys, warm; warm.serve(int(sys.argv[1]))", str(there.fileno())]
            self._environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
            environment = self._environment | {"PYTHONPATH": str(Path(__file__).parent)}
            nothing = subprocess.DEVNULL
            self._server = subprocess.Popen(command, env=environment, pass_fds=[there.fileno()], stdin=nothing, stdout=nothing)
            there.close()
            atexit.register(self.close)
        return self._way

    def close(self) -> None:
        """End it, once the commands that it forked have ended."""
        if self._way is not None and self._server is not None:
            self._way.close()
            self._server.wait(60)


def threads() -> int | None:
    """Of this process; None where the system does not say."""
    tasks = Path("/proc/self/task")
    return sum(1 for _ in tasks.iterdir()) if tasks.is_dir() else None


def serve(number: int) -> None:
    """Fork a command for each request until nobody is left to ask; runs in the process that waits."""
    import dtvit_deploy  # noqa: F401 first, as in a command: it keeps the vendors quiet

    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what is there by now is garbage in no command, and stays shared
    assert threads() in (1, None), "a fork would lose the others"
    with socket.socket(fileno=number) as way:
        while True:
            request, descriptors, _, _ = socket.recv_fds(way, _ENOUGH, 3)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not request:
                return
            if os.fork() == 0:
                way.close()
                _see_to(json.loads(request), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _see_to(request: dict[str, object], reply: int, out: int, err: int) -> NoReturn:
    """Run the command in a process of its own, and tell how it ended as `subprocess` does."""
    command = os.fork()
    if command == 0:
        os.close(reply)
        _become(request, out, err)
    os.write(reply, str(command).encode())
    _, status = os.waitpid(command, 0)
    os.write(reply, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, object], out: int, err: int) -> NoReturn:
    from commandline import DEPLOY, answering

    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    for number, descriptor in ((1, out), (2, err)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    answering()
    words: list[str] = request["words"]  # type: ignore[assignment]
    sys.argv = [DEPLOY, *words]
    sys.path[0] = str(Path(DEPLOY).parent)  # as for any script; it was the tests' folder
    sys.path.remove(str(Path(__file__).parent))
    from dtvit_deploy.__main__ import main

    main()
    os._exit(99)  # a command ends within
