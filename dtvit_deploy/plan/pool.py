"""Who does stages on this machine: this process, one after the other, or processes of its own, side by side."""

from __future__ import annotations

import queue
import subprocess
import threading
from typing import NamedTuple, Protocol

import msgspec

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.performing import Order, perform
from dtvit_deploy.plan.worker import Said
from dtvit_deploy.process.child import child_command

_SERVE = "from dtvit_deploy.plan.worker import serve; serve()"


class Over(NamedTuple):
    """A stage that is over.

    Attributes:
        result: the folder; None where it failed.
        error: why it failed.
    """

    name: str
    result: str | None
    error: Exception | None


class Pool(Protocol):
    """Does stages."""

    size: int

    def begin(self, order: Order) -> None:
        """Have a stage done; no more than `size` at a time."""
        ...

    def next(self) -> Over:
        """The next one that is over; waits for it."""
        ...


class Here:
    """This process."""

    size = 1

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._over: list[Over] = []

    def begin(self, order: Order) -> None:
        name = order.stage.name
        try:
            self._over.append(Over(name, str(perform(order, self._progress)), None))
        except (InputError, MissingError) as error:
            self._over.append(Over(name, None, error))

    def next(self) -> Over:
        return self._over.pop()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Processes:
    """Processes of this one's, each started by its first stage, which end with it."""

    def __init__(self, size: int, progress: Progress) -> None:
        self.size = size
        self._progress = progress
        self._over: queue.SimpleQueue[tuple[_Process, Over]] = queue.SimpleQueue()
        self._free: list[_Process] = []
        self._every: list[_Process] = []

    def begin(self, order: Order) -> None:
        self._free = [process for process in self._free if process.lives]  # one that idled may have been killed for its memory
        if not self._free:
            self._free.append(_Process(self._over, self._progress))
            self._every.append(self._free[-1])
        self._free.pop().begin(order)

    def next(self) -> Over:
        process, over = self._over.get()
        self._free.append(process)
        return over

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._every:
            process.end()


class _Process:
    """One of them, with a thread that listens to it."""

    def __init__(self, over: queue.SimpleQueue[tuple[_Process, Over]], progress: Progress) -> None:
        self._popen = subprocess.Popen(child_command(_SERVE), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._over, self._progress = over, progress
        self._name, self._telling = "", threading.Lock()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    @property
    def lives(self) -> bool:
        return self._popen.poll() is None

    def begin(self, order: Order) -> None:
        assert self._popen.stdin is not None
        self._name = order.stage.name
        try:
            self._popen.stdin.write(msgspec.json.encode(order) + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            self._lost()

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        try:
            for line in self._popen.stdout:
                said = msgspec.json.decode(line, type=Said)
                if said.step:
                    self._progress.step(f"{self._name}: {said.step}")
                else:
                    name, self._name = self._name, ""
                    self._over.put((self, Over(name, said.result or None, _raised(said))))
        finally:
            self._lost()

    def _lost(self) -> None:
        """Tell that the process has ended over a stage, once, if it was doing one."""
        with self._telling:
            name, self._name = self._name, ""
        if not name:
            return
        self._popen.kill()
        status = self._popen.wait()
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        remedy = "the system may have killed it for its memory: --workers 1 takes least, and with --debug shows where it fails"
        self._over.put((self, Over(name, None, DeployError(f"the process that did {name} has ended ({ended})", remedy=remedy))))

    def end(self) -> None:
        self._name = ""
        self._popen.kill()
        self._popen.wait()


def _raised(said: Said) -> Exception | None:
    """What a worker raised, as it would have been raised here."""
    if said.defect:
        return RuntimeError(said.defect)
    if not said.error:
        return None
    kind = {"input": InputError, "missing": MissingError}.get(said.kind, DeployError)
    return kind(said.error, remedy=said.remedy)
