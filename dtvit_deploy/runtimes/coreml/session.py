"""Core ML on a Mac, through coremltools.

Which of a chip's units an operation runs on is Core ML's choice among those that are allowed, and there is one runtime for each choice of
those: ``coreml`` allows all of them. Core ML says what it means to do in a compute plan, and a figure says what was allowed.

Nothing here has run on hardware yet: it is written against coremltools 9 and its documentation, and tested with a stand-in for the
compiled part that only macOS has.
"""

from __future__ import annotations

import enum
import platform
import subprocess
from typing import TYPE_CHECKING, Any

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.mlpackage.options import image_input_of
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.coreml.package import (
    EMULATE,
    Ports,
    compiled,
    first_line,
    model_description,
    refuse_taps,
    specification_version,
)
from dtvit_deploy.runtimes.coreml.plan import plan_of
from dtvit_deploy.runtimes.mil.proto import REMEDY, coremltools_version, model_proto

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.runtimes.compute_plan import ComputePlan

OLDEST = (12,)
"""macOS that loads an ML program."""
OLDEST_WITH_CHOICE = (13,)
"""macOS that lets one allow the CPU and the Neural Engine without the GPU."""
OLDEST_WITH_PLAN = (14, 4)
"""macOS whose Core ML tells its compute plan (``MLComputePlan``)."""


class Units(enum.Enum):
    """The compute units that Core ML may choose from; the members have coremltools' names."""

    ALL = "all"
    CPU_ONLY = "cpu"
    CPU_AND_GPU = "gpu"
    CPU_AND_NE = "ne"

    def __str__(self) -> str:
        return {"all": "CPU, GPU and Neural Engine", "cpu": "CPU", "gpu": "CPU and GPU", "ne": "CPU and Neural Engine"}[self.value]


class CoreMlRuntime:
    """Loads ``mlpackage`` artefacts, which are folders."""

    formats = ("mlpackage",)
    rung = Rung.EXECUTED

    def __init__(self, units: Units = Units.ALL) -> None:
        self.units = units
        self.name = "coreml" if units is Units.ALL else f"coreml-{units.value}"

    def available(self, artifact: Artifact | None = None) -> Availability:
        """Whether this is a Mac with coremltools; given an artefact, whether its Core ML is new enough for that."""
        missing = missing_macos(OLDEST_WITH_CHOICE if self.units is Units.CPU_AND_NE else OLDEST)
        if missing.version is None or artifact is None:
            return missing
        needs, most = specification_version(artifact), _native().maximum_supported_specification_version()
        if needs > most:
            return Availability(
                version=None,
                missing=f"{artifact.name} has specification version {needs}, and this macOS {macos()} reads {most} at most",
                remedy="use a newer macOS, or export for an older iOS",
            )
        return missing

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """None: Core ML hands out a package's outputs and nothing else."""
        return ()

    def load(self, artifact: Artifact, options: SessionOptions) -> CoreMlSession:
        """Compile and load a package.

        Raises:
            InputError: Core ML refuses it, it is not as its manifest says, or inner tensors are asked for.
            MissingError: this is no Mac, or what is needed is not installed on it.
        """
        found = self.available()
        if found.version is None:
            raise MissingError(f"{artifact.name} needs {self.name}, which is not usable here: {found.missing}", remedy=found.remedy)
        refuse_taps(artifact, options)
        return CoreMlSession(self, artifact, options)


class CoreMlSession:
    """One package, compiled for this Mac. What a caller times is a whole run: the feeds' way into Core ML and the answers' way out too."""

    def __init__(self, runtime: CoreMlRuntime, artifact: Artifact, options: SessionOptions) -> None:
        self.signature = artifact.manifest.signature
        self._artifact, self._units = artifact, runtime.units
        self._ports = Ports(model_description(artifact), self.signature, artifact.name, image_input_of(artifact.manifest))
        self._model: Any = _loaded(artifact, runtime.units)
        self.conditions = {
            "runtime": f"{runtime.name} {coremltools_version()}",
            "provider": str(runtime.units),
            "threads": str(options.threads),
            "threads used": "as many as Core ML chooses: it has no setting for them",
            "precision": str(artifact.manifest.precision),
            "system": f"macOS {macos()}",
            "chip": chip(),
            "compiled": compiled(artifact),
            "host latency": "of the whole run: copies of feeds and answers included",
        }

    def run(self, feeds: Feeds) -> Outputs:
        if self._model is None:
            raise RuntimeError("the session was left; it cannot run")
        given = self._ports.into(feeds)
        try:
            answer = self._model.predict(given)
        except Exception as error:  # RuntimeErrors of Core ML, and what Python says of types
            raise InputError(
                f"Core ML cannot run {self._artifact.name} on such feeds: {first_line(error)}",
                remedy="give --data feeds of which every value means something to the network",
            ) from error
        return self._ports.out_of(answer)

    def compute_plan(self) -> ComputePlan:
        """Which unit each operation is meant for.

        Raises:
            MissingError: this macOS does not tell.
        """
        if self._model is None:
            raise RuntimeError("the session was left; its plan is gone")
        if release(macos()) < OLDEST_WITH_PLAN:
            raise MissingError(f"macOS {macos()} does not tell Core ML's compute plan", remedy="use macOS 14.4 or later")
        with quiet():
            import coremltools as ct
            from coremltools.models.compute_plan import MLComputePlan

            try:
                plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), getattr(ct.ComputeUnit, self._units.name))
            except Exception as error:  # of the compiled part of coremltools
                raise MissingError(f"Core ML does not tell it: {first_line(error)}", remedy="look at the package in Xcode") from error
        return plan_of(plan, str(self._units), self._artifact)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._model = None


def missing_macos(oldest: tuple[int, ...]) -> Availability:
    """Version of coremltools, or why Core ML is not to be had here."""
    if not macos():
        return Availability(version=None, missing=f"Core ML runs on macOS alone, and this is {platform.system()}", remedy="use a Mac")
    if release(macos()) < oldest:
        needed = ".".join(map(str, oldest))
        return Availability(version=None, missing=f"it needs macOS {needed}; this is {macos()}", remedy="use a newer macOS")
    try:
        model_proto()
        native = _native()
    except (MissingError, ImportError) as error:
        return Availability(version=None, missing=str(error), remedy=REMEDY)
    if native is None:
        return Availability(version=None, missing="coremltools lacks its part for macOS", remedy="install its wheel for macOS")
    return Availability(version=coremltools_version())


def macos() -> str:
    """Version of macOS; empty elsewhere."""
    return platform.mac_ver()[0]


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def chip() -> str:
    """``Apple M2 Pro``."""
    try:
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip() or "unknown"


def _native() -> Any:
    """The compiled class of coremltools behind a loaded model; None where it is not installed."""
    with quiet():
        from coremltools.models import model

    return model._MLModelProxy


def _loaded(artifact: Artifact, units: Units) -> Any:
    """A package that Core ML has compiled and loaded.

    coremltools does not raise when Core ML refuses one: it warns, and gives a model that cannot predict.
    """
    with quiet() as heard:
        import coremltools as ct

        try:
            model = ct.models.MLModel(str(artifact.path), compute_units=getattr(ct.ComputeUnit, units.name))
            model.get_compiled_model_path()
        except Exception as error:
            told = next((str(one.message) for one in heard if "Underlying exception" in str(one.message)), str(error))
            reason = told.rpartition("Underlying exception message was: ")[2].strip().splitlines()
            raise InputError(
                f"Core ML of macOS {macos()} refuses {artifact.name}: {reason[0] if reason else type(error).__name__}",
                remedy=f"export it again, for this macOS or an older one, or {EMULATE}",
            ) from error
    return model
