"""Stand-ins for what is not here: macOS's part of coremltools, ``devicectl``, and the app on the device.

All of coremltools that is written in Python runs as it is, so that what the sessions ask of it is really there. The stand-ins evaluate
the package with the evaluator. test_coreml_stand_in.py compares them with the installed coremltools.
"""

from __future__ import annotations

import importlib
import json
import platform
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL.Image import Image

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from devicectl import capture, device
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.feeds import random_feeds
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.compute_plan import ComputePlan, PlannedOperation
from dtvit_deploy.runtimes.coreml.iphone import DEVICE, TEAM
from dtvit_deploy.runtimes.mil.evaluate import Evaluator, numbers
from dtvit_deploy.runtimes.mil.load import load_program
from dtvit_deploy.runtimes.mil.runtime import MilRuntime

with quiet():
    import coremltools as ct
    from coremltools.models import compute_device, compute_plan, model, utils
    from coremltools.models.ml_program.experimental import compute_plan_utils, remote_device

Feed = dict[str, NDArray[Any]]
OPTIONS = SessionOptions()
SIGNATURE = Signature(
    (TensorSpec("image", (1, 3, 8, 8)), TensorSpec("position", (1,), "int64")),
    (TensorSpec("logits", (1, 5)), TensorSpec("best", (1,), "int64")),
)
MACOS = "15.1"
LOADED, FIRST, PREDICTED = 250_000_000, 9_000_000, 1_500_000
"""Nanoseconds."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small package: pixels and a position to scores and the best of them."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    path = tmp_path_factory.mktemp("package") / "net.fp32.mlpackage"
    with quiet():
        from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - everybody calls it so
        from coremltools.converters.mil.mil import types as mil

        @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8)), mb.TensorSpec((1,), mil.int32)], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator]
        def network(image: Any, position: Any) -> Any:
            stem = mb.relu(x=mb.conv(x=image, weight=weights(4, 3, 4, 4), pad_type="valid", strides=[4, 4], name="stem"))
            placed = mb.add(x=mb.reduce_mean(x=stem, axes=[2, 3]), y=mb.gather(x=weights(4, 4), indices=position, axis=0), name="placed")
            logits = mb.linear(x=placed, weight=weights(5, 4), bias=weights(5), name="logits")
            return logits, mb.reduce_argmax(x=logits, axis=-1, keep_dims=False, name="best")

        ct.convert(
            network, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32, minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        ).save(str(path))  # fmt: skip
    link = Link(kind="coreml", sha256=sha256_of(path))
    made = Manifest(
        model="any:network", format="mlpackage", precision=Precision.FP32, sha256=link.sha256, signature=SIGNATURE, lineage=(link,)
    )
    return Artifact(path, made)


@pytest.fixture
def feeds() -> list[Feed]:
    return [{**feed, "position": np.array([index], np.int64)} for index, feed in enumerate(random_feeds(SIGNATURE, 3))]


@pytest.fixture
def expected(artifact: Artifact, feeds: list[Feed]) -> list[Feed]:
    with MilRuntime().load(artifact, OPTIONS) as session:
        return [dict(session.run(feed)) for feed in feeds]


def evaluated(package: str | Path, feeds: Mapping[str, NDArray[Any]]) -> Feed:
    import torch

    program = load_program(Path(package))
    made = Evaluator(program, program.outputs).run({name: torch.tensor(values) for name, values in feeds.items()})
    kinds = {output.name: output.type for operation in program.operations for output in operation.outputs}
    return {name: numbers(values, kinds[name]) for name, values in made.items()}


def pixels(package: str, name: str, picture: Image) -> NDArray[Any]:
    """What Core ML makes of a picture for an input: its colours in the order that the package declares."""
    (kind,) = [one.type.imageType for one in utils.load_spec(package).description.input if one.name == name]
    assert (picture.mode, picture.size) == ("RGB", (kind.width, kind.height))
    rows = np.asarray(picture, np.float32)
    return np.ascontiguousarray((rows[..., ::-1] if kind.ColorSpace.Name(kind.colorSpace) == "BGR" else rows).transpose(2, 0, 1)[None])


def structure(package: str | Path) -> Any:
    """The package's operations as coremltools' own classes have them."""
    specification = utils.load_spec(str(package)).mlProgram.functions["main"]
    block = specification.block_specializations[specification.opset]
    operations = [
        compute_plan.MLModelStructureProgramOperation(
            {}, f"ios17.{one.type}", [compute_plan.MLModelStructureProgramNamedValueType(out.name, None) for out in one.outputs], [], None
        )
        for one in block.operations
    ]
    main = compute_plan.MLModelStructureProgramFunction([], compute_plan.MLModelStructureProgramBlock([], operations, list(block.outputs)))
    return compute_plan.MLModelStructure(None, compute_plan.MLModelStructureProgram({"main": main}), None)


COSTS = {"conv": 0.5, "linear": 0.25}


def planned(operator: str, units: str) -> str | None:
    """Products on the Neural Engine where it is allowed, constants nowhere, the search for the best unknown, the rest on the CPU."""
    kind = operator.rpartition(".")[2]
    if kind in ("const", "reduce_argmax"):
        return None
    return "neuralEngine" if kind in COSTS and units in ("ALL", "CPU_AND_NE") else "cpu"


class DeviceProxy:
    def __init__(self) -> None:
        pass


class CpuProxy(DeviceProxy):
    pass


class GpuProxy(DeviceProxy):
    pass


class NeuralEngineProxy(DeviceProxy):
    pass


class PlanProxy:
    def __init__(self) -> None:
        pass

    model_structure: Any = None
    units = ""

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        unit = planned(operation.operator_name, self.units)
        if unit is None:
            return None
        cpu = compute_device.MLCPUComputeDevice(CpuProxy())
        engine = compute_device.MLNeuralEngineComputeDevice(NeuralEngineProxy())
        return compute_plan.MLComputePlanDeviceUsage(*((cpu, [cpu]) if unit == "cpu" else (engine, [cpu, engine])))

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        cost = COSTS.get(operation.operator_name.rpartition(".")[2])
        return None if cost is None else compute_plan.MLComputePlanCost(cost)


class ModelProxy:
    """A package that Core ML has compiled and loaded."""

    refuses = ""
    newest = 9
    asked: list[tuple[str, str]]

    def __init__(self, filename: str, compute_units: str, function_name: str, optimization_hints: dict[str, str], asset: Any) -> None:
        if self.refuses:
            raise RuntimeError(f"Error compiling model: {self.refuses}\nmore of it")
        self.asked.append((filename, compute_units))
        self._package = filename

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return ModelProxy.newest

    @staticmethod
    def compileModel(path: str) -> str:  # noqa: N802 - Apple's name
        if ModelProxy.refuses:
            raise RuntimeError(ModelProxy.refuses)
        compiled = Path(path).with_name(f"{len(ModelProxy.asked)}.compiled")
        ModelProxy.asked.append((path, ""))
        shutil.copytree(path, compiled)
        return str(compiled)

    @staticmethod
    def get_model_structure(path: str) -> Any:
        return structure(path)

    @staticmethod
    def get_compute_plan(path: str, compute_units: str) -> Any:
        proxy = PlanProxy()
        proxy.model_structure, proxy.units = structure(path), compute_units
        return compute_plan.MLComputePlan(proxy)

    def get_compiled_model_path(self) -> str:
        return self._package

    def predict(self, data: dict[str, Any], state: Any) -> dict[str, Any]:
        fed = {name: pixels(self._package, name, values) if isinstance(values, Image) else values for name, values in data.items()}
        if not all(np.isfinite(values).all() for values in fed.values()):
            raise RuntimeError("Error: not a number")
        assert all(values.dtype.name == {"image": "float32", "position": "int32"}[name] for name, values in fed.items())
        return evaluated(self._package, fed)


NATIVE = {
    "_MLModelProxy": ModelProxy,
    "_MLComputePlanProxy": PlanProxy,
    "_MLCPUComputeDeviceProxy": CpuProxy,
    "_MLGPUComputeDeviceProxy": GpuProxy,
    "_MLNeuralEngineComputeDeviceProxy": NeuralEngineProxy,
}


@dataclass(frozen=True)
class Mac:
    """What a test does to it.

    Attributes:
        programs: a folder of its PATH.
        proxy: the compiled class of a loaded model.
        native: all compiled classes by their names.
    """

    programs: Path
    proxy: type[ModelProxy] = ModelProxy
    native: Mapping[str, type] = field(default_factory=lambda: NATIVE)

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mac]:
    """This machine as a Mac."""
    native = types.ModuleType("coremltools.libcoremlpython")
    vars(native).update(NATIVE)
    monkeypatch.setattr(platform, "mac_ver", lambda: (MACOS, ("", "", ""), "arm64"))
    monkeypatch.setattr(ModelProxy, "asked", [], raising=False)
    monkeypatch.setattr(utils, "_macos_version", lambda: (15, 1))
    for module in (model, compute_plan, compute_device):
        for name, stand_in in NATIVE.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stand_in)
    here = Mac(tmp_path / "bin")
    here.programs.mkdir()
    monkeypatch.setenv("PATH", str(here.programs), prepend=":")
    here.program("sysctl", 'test "$2" = machdep.cpu.brand_string && echo "Apple M2 Pro"')
    with monkeypatch.context() as imports:
        imports.setitem(sys.modules, "coremltools.libcoremlpython", native)
        importlib.reload(compute_plan_utils)  # it has classes that derive from the compiled ones
        yield here
    with quiet():
        importlib.reload(compute_plan_utils)


class Process:
    """Of ``devicectl … process launch --console``, which lives as long as the app."""

    stopped = False

    def poll(self) -> int | None:
        return 0 if self.stopped else None

    def terminate(self) -> None:
        self.stopped = True


class Phone:
    """``devicectl`` with one iPhone at its end, on which the app answers to files that are copied there."""

    def __init__(self, folder: Path) -> None:
        self._disk = folder
        self._packages: dict[str, tuple[Path, str]] = {}
        self._runs = self._builds = 0
        self._refusals: dict[str, tuple[int, str]] = {}
        self._unplugged = False
        self._calls: list[str] = []
        self._credentials: Any = None
        self._process = Process()

    def _lists(self, *devices: dict[str, Any], version: int = 2) -> None:
        """What ``devicectl`` lists from now on."""
        self._disk.mkdir(exist_ok=True)
        (self._disk / "devices.json").write_bytes(capture(*devices, version=version))

    def build(self, device: Any, build_directory: Path, credentials: Any, clean: bool = False) -> Path:
        assert build_directory.is_dir()
        self._credentials = credentials
        self._builds += 1
        return build_directory / "modelrunner.app"

    def install_and_launch_app(self, device: Any, app_path: Path, working_directory: Path) -> Any:
        assert app_path.name == "modelrunner.app"
        return remote_device._AppSession(device, self._process, remote_device._AppInstallationInfo("app", "database"), working_directory)

    def send_file_to_app(self, bundle_identifier: str, source_path: Path, destination: str, device: Any) -> Any:
        if self._unplugged:
            raise remote_device._DeviceCtlError(b"devicectl: error: it is gone\n", 1)
        target = self._disk / destination
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source_path, target) if source_path.is_dir() else shutil.copy(source_path, target)
        if target.name == "message.json":
            self._answer(json.loads(target.read_text()), self._disk / "Documents/modelrunnerd")
        return remote_device._DataTransferInfo(str(source_path), destination)

    def receive_file_from_app(self, bundle_identifier: str, source: str, destination_path: Path, device: Any) -> Any:
        shutil.copy(self._disk / source, destination_path)
        return remote_device._DataTransferInfo(source, str(destination_path))

    def _answer(self, message: dict[str, Any], home: Path) -> None:
        method = message["method"].partition(".")[2]
        self._calls.append(method)
        given = home / "requests/resources" / message["id"] / message.get("resource", "")
        responses = home / "responses" / message["id"]
        responses.mkdir(parents=True)
        answer: dict[str, Any] = {"id": message["id"]}
        if method in self._refusals:
            code, text = self._refusals[method]
            answer["error"] = {"code": code, "message": text}
        else:
            asked = message["params"]
            told = {"Load": self._load, "Prediction": self._predict, "ComputePlan": self._plan, "Unload": self._unload}[method]
            answer["result"] = {"modelID": asked["modelID"], **told(asked, given, responses)}
            if (responses / "outputs.bin").exists():
                answer["resource"] = "outputs.bin"
        (responses / "message.json").write_text(json.dumps(answer))

    def _load(self, asked: Any, given: Path, responses: Path) -> dict[str, Any]:
        self._packages[asked["modelID"]] = (given, asked["computeUnits"])
        return {"duration": LOADED}

    def _unload(self, asked: Any, given: Path, responses: Path) -> dict[str, Any]:
        del self._packages[asked["modelID"]]
        return {}

    def _predict(self, asked: Any, given: Path, responses: Path) -> dict[str, Any]:
        descriptor = remote_device._TensorDescriptor
        with given.open("rb") as file:
            feeds = {name: descriptor.from_dict(told).to_array(file) for name, told in asked["inputs"].items()}
        answers = evaluated(self._packages[asked["modelID"]][0], feeds)
        with (responses / "outputs.bin").open("wb") as file:
            outputs = {name: descriptor.from_array(values, file).as_dict() for name, values in answers.items()}
        self._runs += 1
        return {"outputs": outputs, "duration": FIRST if self._runs == 1 else PREDICTED}

    def _plan(self, asked: Any, given: Path, responses: Path) -> dict[str, Any]:
        package, units = self._packages[asked["modelID"]]
        found = []
        for operation, path in compute_plan_utils.map_model_structure_to_path(structure(package), []):
            if (unit := planned(operation.operator_name, units)) is not None:
                cpu, chosen = {"cpu": {}}, {unit: {"totalCoreCount": 16} if unit == "neuralEngine" else {}}
                usage = {"preferred": chosen, "supported": [cpu] if unit == "cpu" else [cpu, chosen]}
                cost = COSTS.get(operation.operator_name.rpartition(".")[2])
                found.append({"deviceUsage": usage, "estimatedCost": cost, "path": path.to_dict()})
        return {"infos": found}


@pytest.fixture
def phone(mac: Mac, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Phone:
    phone = Phone(tmp_path / "phone")
    for tool in ("xcodebuild", "devicectl"):
        mac.program(tool, "exit 1")
    mac.program("xcrun", f'test "$1 $2 $3 $4" = "devicectl list devices --json-output" && cat "{tmp_path}/phone/devices.json" > "$5"')
    phone._lists(
        device("My iPhone"), device("Away", tunnelState="unavailable", transportType=None), device("Watch", deviceType="appleWatch")
    )
    for method in ("install_and_launch_app", "send_file_to_app", "receive_file_from_app"):
        monkeypatch.setattr(remote_device._DeviceCtl, method, getattr(phone, method))
    monkeypatch.setattr(remote_device._ModelRunnerAppBuilder, "build", phone.build)
    monkeypatch.setattr(remote_device._DeviceCtlRemoteService.__init__, "__defaults__", (0.0, 2))  # patience of half a second, 20 times
    monkeypatch.setenv(TEAM, "ABCDE12345")
    monkeypatch.delenv(DEVICE, raising=False)
    return phone


@pytest.fixture
def is_right() -> Callable[[ComputePlan, str], None]:
    """The plan that `planned` makes of the small package where everything is allowed."""

    def check(plan: ComputePlan, units: str) -> None:
        assert plan.units == units
        by_name = {one.name: one for one in plan.operations}
        assert by_name["stem"] == PlannedOperation(
            name="stem", operator="ios17.conv", preferred="Neural Engine", supported=("CPU", "Neural Engine"), cost=0.5, node="stem"
        )
        assert (by_name["placed"].preferred, by_name["placed"].supported, by_name["placed"].cost) == ("CPU", ("CPU",), None)
        assert "best" not in by_name
        assert plan.unplanned == 1
        assert plan.shares == {"Neural Engine": 0.75, "CPU": 0.0}
        assert plan.crossings == 2

    return check
