"""Core ML on an iPhone that is connected to this Mac, through the remote device of coremltools.

coremltools builds a small app with Xcode, installs and starts it on the device, and speaks to it by files that ``devicectl`` copies. So a
run takes seconds on this Mac, and says nothing of the network: what it takes on the device the app itself measures, around Core ML's own
call, and that is what ``device_ms`` gives. https://apple.github.io/coremltools/docs-guides/source/mlmodel-utilities.html

Nothing here has run on hardware yet: it is written against coremltools 9, whose module it is part of is called experimental, and tested
with a stand-in for ``devicectl`` and for the app.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import statistics
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dtvit_deploy.artifact import Artifact
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.evidence import Rung
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.coreml import OLDEST_WITH_PLAN, Units, chip, macos, missing_macos
from dtvit_deploy.runtimes.coreml_package import EMULATE, Ports, compiled, first_line, model_description, refuse_taps, unheard
from dtvit_deploy.runtimes.coreml_plan import ComputePlan, plan_of
from dtvit_deploy.runtimes.mil.proto import coremltools_version

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.signature import Feeds, Outputs

Answer = TypeVar("Answer")
TEAM, DEVICE = "DTVIT_DEPLOY_APPLE_TEAM", "DTVIT_DEPLOY_IPHONE"
"""Variables of the environment: the development team that signs the app, and the device's name where several are connected."""
TOOLS = ("xcodebuild", "devicectl")
"""What coremltools calls; both come with Xcode."""
CONNECT = "connect one by cable, unlock it, trust this Mac on it, and turn its developer mode on"
NANOSECONDS = 1e6
"""Of one millisecond."""


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


class DeviceLatency(msgspec.Struct, frozen=True, kw_only=True):
    """What the app measured on the device, in milliseconds.

    Attributes:
        load_ms: loading the compiled package. What the Neural Engine compiles of it is kept by iOS: a second loading is faster.
        first_ms: the first prediction after that.
        samples_ms: the predictions that followed, in order.
        conditions: of the session.
    """

    load_ms: float
    first_ms: float
    samples_ms: tuple[float, ...]
    conditions: dict[str, str]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)


class IPhoneRuntime:
    """Loads ``mlpackage`` artefacts on the one device that is connected, or on the one of that name.

    Attributes:
        units: the compute units that Core ML may choose from.
        device: name of the device, as its settings show it; None takes the only one.
        signing: who signs the app; None takes the development team that the environment names.
        folder: where the app is built, and built faster the next time; None builds it anew for each session.
    """

    name = "coreml-iphone"
    formats = ("mlpackage",)
    rung = Rung.ON_DEVICE

    def __init__(
        self, units: Units = Units.ALL, *, device: str | None = None, signing: Signing | None = None, folder: Path | None = None
    ) -> None:
        self.units, self.folder = units, folder
        self.device = device or os.environ.get(DEVICE) or None
        self.signing = signing or Signing(team=os.environ.get(TEAM, ""))

    def available(self, artifact: Artifact | None = None) -> Availability:
        found = missing_macos(OLDEST_WITH_PLAN)
        if found.version is None:
            return found
        if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
            return Availability(version=None, missing=f"{' and '.join(absent)} is not here", remedy="install Xcode")
        if not (self.signing.team or self.signing.profile):
            return Availability(
                version=None, missing="nobody is named to sign the app", remedy=f"set {TEAM} to the identifier of your development team"
            )
        try:
            self.connected()
        except MissingError as error:
            return Availability(version=None, missing=str(error), remedy=error.remedy or "")
        return found

    def connected(self) -> Any:
        """The device, as coremltools knows it: name, operating system, state.

        Raises:
            MissingError: none is connected, none has that name, or one would have to be chosen.
        """
        with unheard():
            from coremltools.models.ml_program.experimental.remote_device import Device, DeviceType

            try:
                devices = Device.get_connected_devices(DeviceType.IPHONE)
            except Exception as error:
                raise MissingError(f"devicectl does not tell what is connected: {first_line(error)}", remedy=CONNECT) from error
        fitting = [device for device in devices if self.device in (None, device.name)]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(sorted(device.name for device in devices))
        if not devices:
            raise MissingError("no iPhone is connected", remedy=CONNECT)
        if not fitting:
            raise MissingError(f"no iPhone called {self.device!r} is connected, but {names}", remedy=f"set {DEVICE} to its name")
        raise MissingError(f"{len(fitting)} iPhones are connected: {names}", remedy=f"set {DEVICE} to the name of one")

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """None: Core ML hands out a package's outputs and nothing else."""
        return ()

    def load(self, artifact: Artifact, options: SessionOptions) -> IPhoneSession:
        """Build and start the app on the device, compile the package on this Mac, and load it there.

        Raises:
            InputError: Core ML refuses the package, it is not as its manifest says, or inner tensors are asked for.
            MissingError: what is needed is not installed, or the device cannot be reached.
        """
        found = self.available()
        if found.version is None:
            raise MissingError(f"{artifact.name} needs {self.name}, which is not usable here: {found.missing}", remedy=found.remedy)
        refuse_taps(artifact, options)
        _refuse_running_loop()
        return IPhoneSession(self, artifact, options)


class IPhoneSession:
    """One package, loaded on the device. It has an event loop of its own, so that it cannot be used inside a running one.

    Attributes:
        device_ms: what the last run took on the device.
        load_ms, first_ms: what loading took there, and the first run (0 before there was one).
    """

    def __init__(self, runtime: IPhoneRuntime, artifact: Artifact, options: SessionOptions) -> None:
        self.signature = artifact.manifest.signature
        self.device_ms = self.load_ms = self.first_ms = 0.0
        self._name, self._units = artifact.name, runtime.units
        self._ports = Ports(model_description(artifact), self.signature, artifact.name)
        self._loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._device = self._model = None
        try:
            found = runtime.connected()
            folder = self._folder(runtime.folder)
            self._device = self._wait(_prepared(found, runtime.signing, folder), f"set up {found.name}")
            self._model = _wrapper(artifact, runtime.units, self._device)
            self._wait(self._model.load(), f"load {artifact.name} on {found.name}")
            self.load_ms = _milliseconds(self._model.load_duration_in_nano_seconds)
        except BaseException:
            self.__exit__()
            raise
        self.conditions = {
            "runtime": f"{runtime.name} {coremltools_version()}",
            "provider": str(runtime.units),
            "threads": str(options.threads),
            "threads used": "as many as Core ML chooses: it has no setting for them",
            "precision": str(artifact.manifest.precision),
            "device": f"{found.name} ({found.type.value})",
            "system": f"iOS {found.os_version} ({found.os_build_number})",
            "developer mode": found.developer_mode_state,
            "device state": "temperature, battery and low-power mode are not told by coremltools",
            "compiled": compiled(artifact),
            "host": f"{chip()}, macOS {macos()}",
            "host latency": "of files copied to the device and back; not of the network",
            "device latency": "of Core ML's prediction alone, by the app on the device: no transfers",
        }

    def run(self, feeds: Feeds) -> Outputs:
        if self._model is None:
            raise RuntimeError("the session was left; it cannot run")
        answer = self._wait(self._model.predict(self._ports.into(feeds)), f"run {self._name}")
        self.device_ms = _milliseconds(self._model.last_predict_duration_in_nano_seconds)
        self.first_ms = self.first_ms or self.device_ms
        return self._ports.out_of(answer)

    def latency(self, feeds: Feeds, runs: int = 64) -> DeviceLatency:
        """Loading, the first run, and as many after it as are asked for. Each takes seconds, in which the device cools and slows its clock.

        That is why these figures are not those of an app that runs the network for every frame.
        """
        if runs < 1:
            raise InputError(f"{runs} runs cannot be measured", remedy="ask for at least one")
        if not self.first_ms:
            self.run(feeds)
        samples = []
        for _ in range(runs):
            self.run(feeds)
            samples.append(self.device_ms)
        return DeviceLatency(load_ms=self.load_ms, first_ms=self.first_ms, samples_ms=tuple(samples), conditions=self.conditions)

    def compute_plan(self) -> ComputePlan:
        """Which unit of the device each operation is meant for."""
        if self._model is None:
            raise RuntimeError("the session was left; its plan is gone")
        with unheard():  # reading a plan loads the part of coremltools that only macOS has
            return plan_of(self._wait(self._model.retrieve_compute_plan(), f"plan {self._name}"), str(self._units))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        loop, model, device = self._loop, self._model, self._device
        self._model = self._device = None
        if loop is None:
            return
        try:
            if model is not None and model.load_duration_in_nano_seconds is not None:
                self._wait(model.unload(), "unload")
        except DeployError:  # the device was taken away, and what is loaded there goes with the app
            service: Any = getattr(model, "_remote_service", None)
            service._state = type(service).State.Unloaded  # when it is collected it would ask the device once more, on a closed loop
        finally:
            if device is not None and device.session is not None:
                device.session.stop()
            self._loop = None
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _folder(self, given: Path | None) -> Path:
        if given is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="dtvit-deploy-")
        folder = Path(self._temporary.name if self._temporary else given or "").resolve()
        _refuse_for_shell(str(folder), "folder")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _wait(self, asked: Coroutine[Any, Any, Answer], what: str) -> Answer:
        """Let the loop run until it is done; what goes wrong is a class of its own for each kind of failure, or even none."""
        if self._loop is None:
            asked.close()
            raise RuntimeError("the session was left")
        try:
            with unheard():
                return self._loop.run_until_complete(asked)
        except Exception as error:
            raise _failure(what, error) from error


def _refuse_for_shell(given: str, what: str) -> None:
    """Refuse what a shell would not take as one word: coremltools writes its commands as text, and quotes nothing in them."""
    if given and shlex.quote(given) != given:
        raise InputError(
            f"the {what} {given!r} cannot be used: coremltools hands it to a shell as it is", remedy="give one without such signs"
        )


def _refuse_running_loop() -> None:
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


def _wrapper(artifact: Artifact, units: Units, device: Any) -> Any:
    with unheard():
        import coremltools as ct
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

        path = str(artifact.path.resolve())
        return MLModelAsyncWrapper.from_spec_or_path(
            spec_or_path=path,
            weights_dir=path,  # of a specification alone; a package has its own
            compute_units=getattr(ct.ComputeUnit, units.name),
            device=device,
        )


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


def _milliseconds(nanoseconds: int | None) -> float:
    if nanoseconds is None:
        raise MissingError("the app on the device measured nothing", remedy="use coremltools 9.0, whose app does")
    return nanoseconds / NANOSECONDS
