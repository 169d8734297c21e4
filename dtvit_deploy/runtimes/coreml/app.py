"""The app that coremltools builds with Xcode, installs on an iPhone and speaks to by files that ``devicectl`` copies.

There is one for a device, however many sessions use it: another installation would end the one that runs.
https://apple.github.io/coremltools/docs-guides/source/mlmodel-utilities.html
"""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.coreml.devices import CONNECT
from dtvit_deploy.runtimes.coreml.package import EMULATE, first_line
from dtvit_deploy.runtimes.coreml.session import macos

Answer = TypeVar("Answer")


class Signing(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs the app: a development team, for which Xcode makes a provisioning profile; or one that exists, with its bundle."""

    team: str = ""
    profile: str | None = None
    bundle: str | None = None

    def __post_init__(self) -> None:
        if bool(self.profile) != bool(self.bundle):
            raise InputError("a provisioning profile is for a bundle identifier: give both or neither")
        for given in (self.team, self.profile or "", self.bundle or ""):
            _refuse_for_shell(given, "identifier")


class App:
    """The app on one device, and the event loop in which it is spoken to; so it cannot be used inside a running one.

    Attributes:
        found: the device, as coremltools knows it.
        device: the same with the app running on it.
    """

    _running: ClassVar[dict[str, App]] = {}
    """By the device's identifier."""

    def __init__(self, found: Any, signing: Signing, folder: Path | None) -> None:
        self.found, self.device = found, None
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop()
        self._temporary = tempfile.TemporaryDirectory(prefix="dtvit-deploy-") if folder is None else None
        try:
            place = Path(self._temporary.name if self._temporary else folder or "").resolve()
            _refuse_for_shell(str(place), "folder")
            place.mkdir(parents=True, exist_ok=True)
            self.device = self.wait(_prepared(found, signing, place), f"set up {found.name}")
        except BaseException:
            self._end()
            raise

    @classmethod
    def on(cls, found: Any, signing: Signing, folder: Path | None) -> App:
        """The one that runs there, or a new one; every user leaves it."""
        refuse_running_loop()
        app = cls._running.get(found.udid)
        if app is None:
            app = cls._running[found.udid] = cls(found, signing, folder)
        app._users += 1
        return app

    def wait(self, asked: Coroutine[Any, Any, Answer], what: str) -> Answer:
        """Let the loop run until it is done; what goes wrong is a class of its own for each kind of failure, or even none."""
        if self._loop is None:
            asked.close()
            raise RuntimeError("the app has ended")
        try:
            with quiet():
                return self._loop.run_until_complete(asked)
        except Exception as error:
            raise _failure(what, error) from error

    def leave(self) -> None:
        """Say that one user is done; with the last one the app ends."""
        self._users -= 1
        if not self._users:
            self._running.pop(self.found.udid, None)
            self._end()

    def _end(self) -> None:
        device, loop = self.device, self._loop
        self.device = self._loop = None
        if device is not None and device.session is not None:
            device.session.stop()
        if loop is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _refuse_for_shell(given: str, what: str) -> None:
    """Refuse what a shell would not take as one word: coremltools writes its commands as text, and quotes nothing in them."""
    if given and shlex.quote(given) != given:
        raise InputError(
            f"the {what} {given!r} cannot be used: coremltools hands it to a shell as it is", remedy="give one without such signs"
        )


def refuse_running_loop() -> None:
    """Refuse to be used in a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InputError("a device cannot be used inside a running event loop, as a notebook has", remedy="use it in a thread of its own")


async def _prepared(device: Any, signing: Signing, folder: Path) -> Any:
    """The device with the app running on it."""
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials

    credentials = AppSigningCredentials(
        development_team=signing.team, provisioning_profile_uuid=signing.profile, bundle_identifier=signing.bundle
    )
    return await device.prepare_for_model_debugging(credentials=credentials, working_directory=folder)


def _failure(what: str, error: Exception) -> DeployError:
    """What this Mac cannot compile and what the app refuses is the package's fault; all else is the way to the device.

    The app's refusals have negative codes, as JSON-RPC has them; those of ``devicectl`` are a process's, which are positive.
    """
    code = getattr(error, "error_code", None)
    told = getattr(error, "message", None) or first_line(error)
    text = (told.decode(errors="replace") if isinstance(told, bytes) else str(told)).strip().splitlines()
    reason = text[0] if text else type(error).__name__
    if isinstance(error, RuntimeError):  # of the compiled part of coremltools
        return InputError(f"Core ML of macOS {macos()} cannot {what}: {reason}", remedy=f"export it again, or {EMULATE}")
    if isinstance(code, int) and code < 0:
        return InputError(f"the device cannot {what}: {reason}", remedy=f"export it for the device's iOS, or {EMULATE}")
    return MissingError(f"the device did not {what}: {reason}", remedy=f"keep it unlocked; {CONNECT}; look at what Xcode says of it")
