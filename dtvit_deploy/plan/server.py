"""A process of this one's that does stages, one after the other, and ends with it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable

import msgspec

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.worker import Said
from dtvit_deploy.process.child import child_command

_SERVE = "from dtvit_deploy.plan.worker import serve; serve()"


class EndedError(DeployError):
    """The process that did a stage has ended over it."""


class Server:
    """It is started by the thread that makes it, and must not outlive that (`dtvit_deploy.process.child`)."""

    def __init__(self) -> None:
        self._elsewhere = False
        self._popen = subprocess.Popen(child_command(_SERVE), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def lives(self) -> bool:
        return self._popen.poll() is None

    def perform(self, order: Order, say: Callable[[str], None]) -> str:
        """Have a stage done, and return the folder of its result.

        Raises:
            DeployError: what the stage raised.
            EndedError: the process has ended over it.
            RuntimeError: the fault is this program's; the message is the traceback there.
        """
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        answer, self._elsewhere = None, bool(order.stage.cost.device)
        try:
            self._popen.stdin.write(msgspec.json.encode(order) + b"\n")
            self._popen.stdin.flush()
            for line in self._popen.stdout:
                said = msgspec.json.decode(line, type=Said)
                if not said.step:
                    answer = said
                    break
                say(said.step)
        except BrokenPipeError:
            pass
        except BaseException:
            self._popen.kill()  # what it says next would be taken for the answer to the next order
            raise
        if answer is not None:
            self._elsewhere = False
            return _result(answer)
        self._popen.kill()
        status = self._popen.wait()
        raise EndedError(
            f"the process that did {order.stage.name} has ended ({f'signal {-status}' if status < 0 else f'exit status {status}'})",
            remedy="the system may have killed it for its memory: --workers 1 takes least, and with --debug shows where it fails",
        )

    def ask_to_end(self) -> None:
        """Have what it has begun on a device ended there, where it has: that would go on without this machine."""
        if self._elsewhere:
            self._popen.terminate()

    def end(self, until: float = 0.0) -> None:
        """Kill it, whatever it does; one that was asked to end has until that moment, of the monotonic clock."""
        if self._elsewhere:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(max(0.0, until - time.monotonic()))
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # something was still on its way
                pipe.close()


def _result(said: Said) -> str:
    """Where a result is; what a worker raised is raised as it would have been here."""
    if said.defect:
        raise RuntimeError(said.defect)
    if said.error:
        raise {"input": InputError, "missing": MissingError}.get(said.kind, DeployError)(said.error, remedy=said.remedy)
    return said.result
