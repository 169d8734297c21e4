"""Doctor claims what it saw, says how to get the rest, and imports nothing to find out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from commandline import processor_seconds
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.devices import machine, packages
from dtvit_deploy.doctor import Examination, TargetState, examine
from dtvit_deploy.formats.engine.gpu import Gpu, Gpus
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.registry import RUNTIMES

HEALTHY = {
    "torch": "2.13.0+cpu",
    "onnx": "1.23.2",
    "onnxscript": "0.7.2",
    "onnxsim": "0.8.1",
    "onnxruntime": "1.31.1",
    "safetensors": "0.8.0",
}
REQUIRES = [
    "numpy>=1.26",
    'torch<2.14,>=2.9; extra == "export"',
    'onnx>=1.18; extra == "export"',
    'onnxruntime>=1.22; extra == "export"',
    'onnxruntime>=9; extra == "elsewhere"',
    'tensorrt-rtx>=1.2; extra == "trt-rtx"',
    'tensorrt>=10; extra == "tensorrt"',
    'dtvit-deploy[export,report]; extra == "all"',
]


class Environment:
    """What is installed, as doctor can see it: modules by name with their distribution's version."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installed = dict(HEALTHY)
        self.distributions: dict[str, list[str]] = {}
        self.failures: dict[str, str] = {}
        self.tried: list[str] = []
        monkeypatch.setattr(importlib.util, "find_spec", self.find_spec)
        monkeypatch.setattr(importlib.metadata, "version", self.version)
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
        monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: self.distributions)
        monkeypatch.setattr(packages, "import_failure", self.import_failure)
        self.gpus = Gpus((), "", "no NVIDIA driver is installed")
        monkeypatch.setattr("dtvit_deploy.formats.engine.gpu.gpus", lambda: self.gpus)

    def find_spec(self, name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None, origin=f"{name}/__init__.py") if name in self.installed else None

    def version(self, name: str) -> str:
        if not self.installed.get(name):
            raise importlib.metadata.PackageNotFoundError(name)
        return self.installed[name]

    def import_failure(self, module: str) -> str:
        self.tried.append(module)
        return self.failures.get(module, "")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(monkeypatch)


def onnx(found: Examination) -> TargetState:
    return next(target for target in found.targets if target.target == "onnx")


class TestWhatIsReached:
    def test_everything_there(self, environment: Environment) -> None:
        state = onnx(examine())
        assert state.reach == "executed"
        assert state.missing == ""
        assert state.tools.startswith("onnxruntime 1.31.1 (imports); torch 2.13.0+cpu, ")
        assert state.tools.endswith("(installed; import not tried)")
        assert environment.tried == ["onnxruntime"]

    def test_a_runtime_alone_executes_what_others_built(self, environment: Environment) -> None:
        environment.installed = {"onnxruntime": "1.31.1"}
        state = onnx(examine())
        assert state.reach == "executed, of artefacts built elsewhere"
        assert "torch: not installed" in state.missing
        assert state.missing.endswith("pip install 'dtvit-deploy[export]'")

    def test_nothing_there(self, environment: Environment) -> None:
        environment.installed = {}
        state = onnx(examine())
        assert (state.reach, state.tools) == ("nothing", "–")
        assert environment.tried == []

    def test_a_runtime_that_is_installed_and_does_not_import_reaches_nothing(self, environment: Environment) -> None:
        environment.failures["onnxruntime"] = "ImportError: libfoo.so.1: cannot open shared object file"
        state = onnx(examine())
        assert state.reach == "nothing"
        assert "onnxruntime 1.31.1 is installed and cannot be used: ImportError: libfoo.so.1" in state.missing
        assert "imports" not in state.tools

    @pytest.mark.parametrize("version", ["2.8.1", "2.14.0", "1.13"])
    def test_a_version_that_was_not_asked_for_does_not_count(self, environment: Environment, version: str) -> None:
        environment.installed["torch"] = version
        found = examine()
        assert onnx(found).reach == "executed, of artefacts built elsewhere"
        assert f"torch: asked for: <2.14, >=2.9, found {version}" in onnx(found).missing
        assert f"{version} (asked for: <2.14, >=2.9)" in [package.version for package in found.packages]

    @pytest.mark.parametrize("version", ["2.9", "2.9.0", "2.13.9+cu130", "2.10.0a0+git1234"])
    def test_versions_compare_as_numbers(self, environment: Environment, version: str) -> None:
        environment.installed["torch"] = version
        assert onnx(examine()).reach == "executed"

    def test_the_same_module_from_another_distribution_counts(self, environment: Environment) -> None:
        environment.installed |= {"onnxruntime": "", "onnxruntime-gpu": "1.30.0"}
        environment.distributions = {"onnxruntime": ["onnxruntime-gpu"]}
        assert onnx(examine()).tools.startswith("onnxruntime onnxruntime-gpu 1.30.0 (imports)")

    def test_a_mere_folder_of_that_name_is_no_package(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        real = environment.find_spec
        folder = ModuleSpec("torch", None)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder if name == "torch" else real(name))
        assert "torch: not installed" in onnx(examine()).missing

    def test_a_target_that_can_be_exported_has_a_row_and_no_other(self) -> None:
        assert {target.target for target in examine().targets} == {str(target) for target in Target}


class TestOpenVino:
    def state(self) -> TargetState:
        return next(target for target in examine().targets if target.target == "openvino")

    def test_where_it_is_missing_the_rest_is_not_enough(self, environment: Environment) -> None:
        state = self.state()
        assert state.reach == "nothing"
        assert state.missing == "openvino: not installed: pip install 'dtvit-deploy[export,openvino]'"
        assert environment.tried == ["onnxruntime"]

    def test_with_it_artefacts_are_built_and_executed(self, environment: Environment) -> None:
        environment.installed["openvino"] = "2026.4.1"
        state = self.state()
        assert (state.reach, state.missing) == ("executed", "")
        assert state.tools.startswith("openvino 2026.4.1 (imports); torch 2.13.0+cpu, ")
        assert environment.tried == ["onnxruntime", "openvino"]


class TestCoreMl:
    """What a Mac has is asked of the runtimes themselves, so that doctor says what a command would."""

    @pytest.fixture
    def mac(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TargetState]:
        environment.installed |= {"coremltools": "9.0", "numpy": "2.3.1"}
        monkeypatch.setattr(platform, "system", lambda: "Darwin")

        def state(**missing: str) -> TargetState:
            for name in ("coreml", "coreml-iphone"):
                fake = FakeRuntime(name=name, missing=missing.get(name.replace("-", "_"), ""))
                monkeypatch.setitem(RUNTIMES, name, lambda fake=fake: fake)
            return next(target for target in examine().targets if target.target == "coreml")

        return state

    def test_a_mac_with_an_iphone_reaches_both(self, mac: Callable[..., TargetState]) -> None:
        found = mac()
        assert found.reach.endswith("executed (--runtime coreml) and on device (--runtime coreml-iphone)")
        assert found.missing == ""

    def test_what_an_iphone_lacks_is_said_and_the_mac_stays_usable(self, mac: Callable[..., TargetState]) -> None:
        found = mac(coreml_iphone="nobody is named to sign the app")
        assert found.reach.endswith("executed (--runtime coreml)")
        assert found.missing == "--runtime coreml-iphone: nobody is named to sign the app"

    def test_a_mac_that_cannot_execute_does_not_say_that_it_does(self, mac: Callable[..., TargetState]) -> None:
        found = mac(coreml="it needs macOS 12; this is 11.7", coreml_iphone="the same")
        assert found.reach.endswith("not executed")
        assert "--runtime coreml: it needs macOS 12; this is 11.7" in found.missing


class TestTensorRt:
    L4 = Gpus((Gpu("NVIDIA L4", "8.9", 24 << 30),), "12.6", "")
    H100 = Gpus((Gpu("NVIDIA H100", "9.0", 80 << 30),), "12.6", "")

    def state(self) -> TargetState:
        return next(target for target in examine().targets if target.target == "trt")

    def test_without_any_compiler_a_job_for_a_device_is_prepared_and_no_more(self, environment: Environment) -> None:
        state = self.state()
        assert state.reach == "prepared for a device and emulated (ONNX Runtime), not built"
        assert "pip install 'dtvit-deploy[trt-rtx]'" in state.missing
        assert "no NVIDIA driver is installed" in state.missing
        assert environment.tried == ["onnxruntime"]

    def test_rtx_builds_without_a_gpu_and_executes_nothing(self, environment: Environment) -> None:
        environment.installed["tensorrt_rtx"] = environment.installed["tensorrt-rtx"] = "1.7.1.116"
        state = self.state()
        assert state.reach == "built (TensorRT-RTX) and emulated (ONNX Runtime), not executed"
        assert state.missing == "a GPU to execute: no NVIDIA driver is installed"
        assert state.tools.startswith("tensorrt-rtx 1.7.1.116 (imports); onnxruntime 1.31.1 (imports); torch")

    def test_classic_tensorrt_without_a_gpu_builds_nothing(self, environment: Environment) -> None:
        environment.installed["tensorrt"] = "10.7.0"
        assert self.state().reach == "prepared for a device and emulated (ONNX Runtime), not built"

    def test_with_a_gpu_and_the_bindings_engines_are_executed(self, environment: Environment) -> None:
        environment.installed |= {"tensorrt": "10.7.0", "cuda.bindings": "13.0", "cuda-bindings": "13.0"}
        environment.gpus = self.L4
        assert (self.state().reach, self.state().missing) == ("executed", "")

    def test_a_gpu_alone_executes_nothing_without_the_bindings(self, environment: Environment) -> None:
        environment.installed["tensorrt"] = "10.7.0"
        environment.gpus = self.L4
        state = self.state()
        assert state.reach == "built (TensorRT) and emulated (ONNX Runtime), not executed"
        assert "cuda-bindings to execute: not installed" in state.missing

    def test_rtx_executes_only_on_the_gpus_that_it_compiles_for(self, environment: Environment) -> None:
        environment.installed |= dict.fromkeys(("tensorrt_rtx", "tensorrt-rtx"), "1.7.1.116")
        environment.installed |= dict.fromkeys(("cuda.bindings", "cuda-bindings"), "13.0")
        environment.gpus = self.H100
        state = self.state()
        assert state.reach.endswith("not executed")
        assert "does not run on compute capability 9.0" in state.missing
        environment.gpus = self.L4
        assert self.state().reach == "executed"

    def test_a_stub_that_does_not_import_builds_nothing(self, environment: Environment) -> None:
        environment.installed["tensorrt_rtx"] = environment.installed["tensorrt-rtx"] = "1.7.1.116"
        environment.failures["tensorrt_rtx"] = "ImportError: libnvinfer.so"
        state = self.state()
        assert state.reach.endswith("not built")
        assert "tensorrt-rtx 1.7.1.116 is installed and cannot be used: ImportError: libnvinfer.so" in state.missing

    def test_without_the_exporters_it_emulates_what_others_built_or_nothing(self, environment: Environment) -> None:
        environment.installed = {"onnxruntime": "1.31.1"}
        assert self.state().reach == "emulated, of artefacts built elsewhere"
        environment.installed = {}
        assert self.state().reach == "nothing"

    def test_the_machine_names_its_gpus_as_the_driver_does(self, environment: Environment) -> None:
        environment.gpus = self.L4
        assert examine().machine["accelerator"].startswith("NVIDIA L4 (compute capability 8.9, 24.0 GiB)")
        assert "CUDA up to 12.6" in examine().machine["accelerator"]


class TestTryingAnImport:
    def test_what_imports_has_no_failure(self) -> None:
        assert packages.import_failure("json") == ""

    def test_what_does_not_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken_runtime.py").write_text("raise ImportError('a library is missing')")
        monkeypatch.syspath_prepend(tmp_path)
        assert packages.import_failure("broken_runtime") == "ImportError: a library is missing"

    def test_a_crash_is_a_failure_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "crashing_runtime.py").write_text("import os; os.abort()")
        monkeypatch.syspath_prepend(tmp_path)
        assert packages.import_failure("crashing_runtime") == "exit status -6"

    def test_one_that_never_ends_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "endless_runtime.py").write_text("import time; time.sleep(60)")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(packages, "IMPORT_LIMIT", 0.3)
        assert "did not end within 0.3 s" in packages.import_failure("endless_runtime")

    def test_a_file_in_the_working_folder_is_not_the_runtime(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "stray_runtime.py").write_text("")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
        assert "No module named 'stray_runtime'" in packages.import_failure("stray_runtime")


class TestTheMachine:
    @pytest.mark.usefixtures("environment")
    def test_it_names_the_cache_and_its_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = tmp_path / f"onnx-{'0' * 32}"
        entry.mkdir()
        (entry / "model.onnx").write_bytes(bytes(3_000_000))
        monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path))
        assert examine().machine["cache"].startswith(f"{tmp_path}, 3 MB; ")
        monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "not" / "yet"))
        assert "not/yet, 0 MB; " in examine().machine["cache"]

    @pytest.mark.usefixtures("environment")
    def test_every_value_is_text_for_a_table(self) -> None:
        found = examine()
        assert all(isinstance(value, str) and value for value in found.machine.values())
        assert all(package.name and package.version and package.purpose for package in found.packages)

    def test_what_spoils_a_latency_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (3.2, 0.0, 0.0), raising=False)
        monkeypatch.setattr("dtvit_deploy.devices.local.cores", lambda: 4)
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text("model name\t: A CPU\nflags\t\t: fpu hypervisor avx2\n")
        found = machine.disturbances({"governor": "powersave"}, tmp_path)
        assert [text.split(":")[0].split(",")[0] for text in found] == [
            "a load of 3.2 on 4 cores",
            "the clock governor is powersave",
            "this container gets 1.5 of 4 cores",
            "a virtual machine",
        ]

    def test_a_quiet_machine_is_not_complained_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (0.3, 9.0, 9.0), raising=False)
        monkeypatch.setattr("dtvit_deploy.devices.local.cores", lambda: 4)
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
        assert machine.disturbances({"governor": "performance"}, tmp_path) == []
        assert machine.disturbances({}, tmp_path) == []

    def test_a_gpu_is_seen_without_its_driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "system", lambda: "Linux")
        monkeypatch.setattr("shutil.which", lambda name: None)
        assert machine.accelerator(tmp_path) == "none seen"
        (tmp_path / "dev").mkdir()
        for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            (tmp_path / "dev" / name).touch()
        assert machine.accelerator(tmp_path) == "NVIDIA, as nvidia0"
        card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
        card.mkdir(parents=True)
        (card / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 1\n")
        assert machine.accelerator(tmp_path) == "NVIDIA L4"

    def test_a_jetson_and_a_mac_are_known_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "system", lambda: "Linux")
        (tmp_path / "proc/device-tree").mkdir(parents=True)
        (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
        assert machine.accelerator(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        assert machine.accelerator(tmp_path) == "Apple GPU and Neural Engine"


def test_nothing_heavy_is_imported_here() -> None:
    heavy = {"torch", "onnx", "numpy", "onnxruntime", "matplotlib"}
    code = f"import sys; from dtvit_deploy.doctor import examine; examine(); print(sorted({heavy} & set(sys.modules)))"
    before = processor_seconds()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert processor_seconds() - before < 30  # a generous bound against importing frameworks on a slow machine
