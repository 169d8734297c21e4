"""Core ML on an iPhone that is connected to this Mac, through the remote device of coremltools (:mod:`dtvit_deploy.runtimes.coreml.app`).

A run takes seconds on this Mac, and says nothing of the network: what it takes on the device the app there measures, around Core ML's own
call, and those are the figures that a session has.

Nothing here has run on hardware yet: it is written against coremltools 9, whose module it is part of is called experimental, and tested
with a stand-in for ``devicectl`` and for the app.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import DeployError, MissingError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.coreml.app import App, Signing, refuse_running_loop
from dtvit_deploy.runtimes.coreml.devices import as_coremltools_has_it, chosen, listed
from dtvit_deploy.runtimes.coreml.package import Ports, compiled, model_description, refuse_taps
from dtvit_deploy.runtimes.coreml.plan import plan_of
from dtvit_deploy.runtimes.coreml.session import OLDEST_WITH_PLAN, Units, chip, macos, missing_macos
from dtvit_deploy.runtimes.mil.proto import coremltools_version

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.runtimes.compute_plan import ComputePlan

TEAM, DEVICE = "DTVIT_DEPLOY_APPLE_TEAM", "DTVIT_DEPLOY_IPHONE"
"""Variables of the environment: the development team that signs the app, and the device's name where several are connected."""
TOOLS = ("xcodebuild", "devicectl", "xcrun")
"""What coremltools calls; all come with Xcode."""
NANOSECONDS = 1e6
"""Of one millisecond."""


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
            MissingError: none can be used, none has that name, or one would have to be chosen.
        """
        return as_coremltools_has_it(chosen(listed(), self.device, DEVICE))

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
        refuse_running_loop()
        return IPhoneSession(self, artifact, options)


class IPhoneSession:
    """One package, loaded on the device.

    Attributes:
        device_ms: what the last run took on the device.
        load_ms, first_ms: what loading took there, and the first run (0 before there was one). What the Neural Engine compiles of a package
            is kept by iOS: a second loading is faster.
    """

    def __init__(self, runtime: IPhoneRuntime, artifact: Artifact, options: SessionOptions) -> None:
        self.signature = artifact.manifest.signature
        self.device_ms = self.load_ms = self.first_ms = 0.0
        self._artifact, self._units = artifact, runtime.units
        self._ports = Ports(model_description(artifact), self.signature, artifact.name)
        self._model: Any = None
        self._app: App | None = App.on(runtime.connected(), runtime.signing, runtime.folder)
        found = self._app.found
        try:
            self._model = _wrapper(artifact, runtime.units, self._app.device)
            self._app.wait(self._model.load(), f"load {artifact.name} on {found.name}")
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
            "latency": "of Core ML's loading and prediction alone, by the app on the device; seconds apart, so that the device cools and"
            " slows its clock between them, as one that runs the network for every frame does not",
        }

    def run(self, feeds: Feeds) -> Outputs:
        if self._model is None or self._app is None:
            raise RuntimeError("the session was left; it cannot run")
        answer = self._app.wait(self._model.predict(self._ports.into(feeds)), f"run {self._artifact.name}")
        self.device_ms = _milliseconds(self._model.last_predict_duration_in_nano_seconds)
        self.first_ms = self.first_ms or self.device_ms
        return self._ports.out_of(answer)

    def compute_plan(self) -> ComputePlan:
        """Which unit of the device each operation is meant for."""
        if self._model is None or self._app is None:
            raise RuntimeError("the session was left; its plan is gone")
        with quiet():  # reading a plan loads the part of coremltools that only macOS has
            plan = self._app.wait(self._model.retrieve_compute_plan(), f"plan {self._artifact.name}")
            return plan_of(plan, str(self._units), self._artifact)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        app, model = self._app, self._model
        self._app = self._model = None
        if app is None:
            return
        try:
            if model is not None and model.load_duration_in_nano_seconds is not None:
                app.wait(model.unload(), "unload")
        except DeployError:  # the device was taken away, and what is loaded there goes with the app
            service: Any = getattr(model, "_remote_service", None)
            service._state = type(service).State.Unloaded  # when it is collected it would ask the device once more, on a closed loop
        finally:
            app.leave()


def _wrapper(artifact: Artifact, units: Units, device: Any) -> Any:
    with quiet():
        import coremltools as ct
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

        path = str(artifact.path.resolve())
        return MLModelAsyncWrapper.from_spec_or_path(
            spec_or_path=path,
            weights_dir=path,  # of a specification alone; a package has its own
            compute_units=getattr(ct.ComputeUnit, units.name),
            device=device,
        )


def _milliseconds(nanoseconds: int | None) -> float:
    if nanoseconds is None:
        raise MissingError("the app on the device measured nothing", remedy="use coremltools 9.0, whose app does")
    return nanoseconds / NANOSECONDS
