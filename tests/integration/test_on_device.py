"""The job that builds an engine on its device: the whole script, against both releases of TensorRT as far as their names go, and against
the real compiler of TensorRT-RTX."""

from __future__ import annotations

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from dtvit_deploy.artifacts.artifact import Manifest, encode_json, load_artifact, manifest_path, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.tensorrt.on_device import Golden, write_job
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import passport_of
from tensorrt_job import ENGINE, JOB, Device, api, golden_of, load, network, written_job

EVERYTHING = BuildOptions(
    workspace_mib=64, optimization_level=5, version_compatible=True, hardware_compatible=True, dla_core=1, capabilities=("8.7",)
)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(written_job, tmp_path)


@pytest.fixture(params=["10", "11"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(request.param, monkeypatch)


def test_the_whole_script_runs_on_both_releases_and_its_engine_is_one_of_this_project(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    assert device.run(job) == 0, capsys.readouterr()
    engine = job.parent / ENGINE
    artifact = load_artifact(engine)
    manifest, passport = artifact.manifest, passport_of(artifact.manifest)
    assert sorted(file.name for file in engine.iterdir()) == ["graph.onnx", "layers.json", "model.engine"]
    assert json.loads(manifest_path(engine).read_bytes()) == json.loads(encode_json(manifest))  # nothing left out, nothing added
    before = network(job.parent / "again.onnx")[1]
    assert manifest.lineage[:-1] == before.lineage
    assert (manifest.format, manifest.rung, manifest.classes) == ("trt", Rung.ON_DEVICE, before.classes)
    assert (passport.library, passport.version, passport.capabilities) == ("tensorrt", device.module.__version__, ("8.7",))
    assert (passport.device, passport.jetpack, passport.cuda) == ("Jetson Orin Nano", "L4T 36.4.0", "12.6")
    assert (passport.engine, passport.graph) == (sha256_of(engine / "model.engine"), sha256_of(job / "graph.onnx"))
    assert passport.bytes == (engine / "model.engine").stat().st_size
    assert passport.options == BuildOptions()
    said = capsys.readouterr().out
    assert "top-1 3 of 3" in said
    assert any("top-1 3 of 3" in note for note in manifest.lineage[-1].notes)
    flags = device.module.NetworkDefinitionCreationFlag
    assert device.plan.told("Builder", "create_network") == [(1 << int(flags.STRONGLY_TYPED),)]
    assert device.plan.told("IBuilderConfig", "clear_flag") == [(device.module.BuilderFlag.TF32,)]
    assert not list(job.parent.glob(".*"))


def test_every_option_reaches_the_builder_and_what_the_accelerator_leaves_is_named(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job, trt, plan = make_job(EVERYTHING), device.module, device.plan
    plan.dla_cores = 2
    device.board = {}  # not a Jetson, which would not have all of them
    assert device.run(job, "--build-only") == 0, capsys.readouterr()
    assert plan.told("IBuilderConfig", "builder_optimization_level") == [5]
    assert plan.told("IBuilderConfig", "set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 64 << 20)]
    assert plan.told("IBuilderConfig", "set_flag") == [(trt.BuilderFlag.VERSION_COMPATIBLE,), (trt.BuilderFlag.GPU_FALLBACK,)]
    assert plan.told("IBuilderConfig", "hardware_compatibility_level") == [trt.HardwareCompatibilityLevel.AMPERE_PLUS]
    assert plan.told("IBuilderConfig", "DLA_core") == [1]
    assert plan.told("IBuilderConfig", "default_device_type") == [trt.DeviceType.DLA]
    assert plan.told("IBuilderConfig", "profiling_verbosity") == [trt.ProfilingVerbosity.DETAILED]
    assert plan.told("Runtime", "DLA_core") == [1]
    assert plan.told("Runtime", "engine_host_code_allowed") == [True]
    assert "DLA core 1: 1 of 3 layers fall back to the GPU: 1 SHUFFLE; in (the network itself)" in capsys.readouterr().out
    artifact = load_artifact(job.parent / ENGINE)
    assert (artifact.manifest.rung, passport_of(artifact.manifest).options) == (Rung.BUILT, EVERYTHING)
    [left] = json.loads((artifact.path / "fallback.json").read_text())
    assert (left["layer"], left["module"]) == ("best_layer", "(the network itself)")
    assert not plan.told("IExecutionContext", "execute_async_v3")
    layers = json.loads((artifact.path / "layers.json").read_text())
    assert (layers["stage"], layers["engine"]["Layers"][0]["Name"]) == ("built", "node_of_a+product")


def test_hardware_compatibility_is_left_out_on_a_jetson_and_never_in_silence(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(BuildOptions(hardware_compatible=True))
    assert "does not offer it on a Jetson" in (job / "README.txt").read_text()
    for board in (device.board, {"/proc/device-tree/model": "NVIDIA Jetson AGX Orin\0"}):  # a container has the second file only
        device.board = board
        assert device.run(job, "--build-only") == 0
        assert "hardware compatibility was left out" in capsys.readouterr().out
        manifest = load_artifact(job.parent / ENGINE).manifest
        assert any("hardware compatibility was left out" in note for note in manifest.lineage[-1].notes)
        assert not passport_of(manifest).options.hardware_compatible  # where an engine loads is judged by it
    assert not device.plan.told("IBuilderConfig", "hardware_compatibility_level")


def test_every_layer_is_timed_and_told_with_its_modules(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    assert device.run(job, "--profile") == 0, capsys.readouterr()
    engine = job.parent / ENGINE
    profile = json.loads((engine / "profile.json").read_text())
    assert load_artifact(engine).manifest.sha256 == sha256_of(engine)  # the profile is of the folder that the manifest vouches for
    assert [(layer["layer"], layer["module"], layer["median_ms"]) for layer in profile["layers"]] == [
        ("node_of_a+product", "stem.act, head", 1.0),
        ("best", "(the network itself)", 2.0),
    ]
    assert {layer["reports"] for layer in profile["layers"]} == {profile["runs"]}  # those that warm up are not counted
    runs = len(device.plan.told("IExecutionContext", "execute_async_v3"))
    assert runs == profile["warm_up"] + profile["runs"] + 3  # and the golden samples
    assert profile["conditions"]["version"] == device.module.__version__
    assert device.run(job) == 0
    assert not (engine / "profile.json").exists()
    assert device.run(job, "--profile", "--build-only") == 2
    assert "give one of them" in capsys.readouterr().err


def test_an_accelerator_that_is_not_there_is_missing(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device.run(make_job(EVERYTHING)) == 3
    assert "offers 0 on this machine" in capsys.readouterr().err


def test_the_second_build_has_the_timings_of_the_first_and_never_those_of_another_device(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    timings, before = job.parent / f"{JOB}.timing", sha256_of(job)
    assert device.run(job, "--build-only") == 0
    assert "earlier build" not in capsys.readouterr().out
    assert device.run(job, "--build-only") == 0
    assert "earlier build" in capsys.readouterr().out
    for unfit in (b"another device's", b"damaged", b""):
        timings.write_bytes(unfit)
        assert device.run(job, "--build-only") == 0
        assert "earlier build" not in capsys.readouterr().out
    assert timings.read_bytes() == b"timings"
    shutil.rmtree(job / "__pycache__", ignore_errors=True)
    assert sha256_of(job) == before


@pytest.mark.parametrize(
    "spoil", [lambda array: array * 2, lambda array: array * np.array(np.nan, array.dtype) if array.dtype.kind == "f" else array]
)
def test_an_engine_that_answers_wrongly_fails_and_stays_on_the_rung_built(
    make_job: Callable[..., Path], device: Device, spoil: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    device.plan.spoil = spoil
    job = make_job()
    assert device.run(job) == 1
    assert "verdict: failed" in capsys.readouterr().out
    manifest = load_artifact(job.parent / ENGINE).manifest
    assert manifest.rung is Rung.BUILT
    assert "logits: " in manifest.lineage[-1].notes[0]


def test_an_answer_is_held_to_the_least_sqnr_where_there_is_no_tolerance(make_job: Callable[..., Path], device: Device) -> None:
    device.plan.spoil = lambda array: (array * 1.01).astype(array.dtype)  # 40 dB; whole numbers stay
    job = make_job(least_sqnr=39.0)
    assert device.run(job) == 0
    device.plan.spoil = lambda array: (array * 1.02).astype(array.dtype)
    assert device.run(job) == 1


def test_a_refused_graph_is_explained_by_module_and_the_older_engine_stays(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    assert device.run(job, "--build-only") == 0
    before = load_artifact(job.parent / ENGINE).manifest
    device.plan.refuses = ("Relu", "MatMul")
    assert device.run(job) == 2
    error = capsys.readouterr().err
    assert "Relu node_of_a of module stem.act: no importer for Relu (checkRelu)" in error
    assert "MatMul product of module head" in error
    assert error.count("\n") == 1
    device.plan.refuses, device.plan.builds = (), False
    assert device.run(job) == 2
    assert "made no engine" in capsys.readouterr().err
    assert load_artifact(job.parent / ENGINE).manifest == before
    assert not list(job.parent.glob(".*"))


def test_an_interrupted_build_leaves_nothing_and_what_a_killed_one_left_is_removed(
    make_job: Callable[..., Path], device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    job = make_job()
    left = job.parent / f".{ENGINE}.partial" / ENGINE
    left.mkdir(parents=True)
    (left / "model.engine").write_bytes(b"half an engine")
    before = {path for path in job.parent.iterdir() if not path.name.startswith(".")}
    with monkeypatch.context() as patch:
        patch.setitem(api.BEHAVIOUR, "Builder.build_serialized_network", interrupted)
        assert device.run(job) == 130
    assert set(job.parent.iterdir()) == before
    left.mkdir(parents=True)
    (left / "extra").write_bytes(b"not of this engine")
    assert device.run(job) == 0
    assert not (load_artifact(job.parent / ENGINE).path / "extra").exists()


@pytest.mark.parametrize("file", ["job.json", "graph.onnx", "build.py", "golden/input.0", "README.txt"])
def test_a_changed_or_missing_file_is_refused(make_job: Callable[..., Path], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job()
    script = load(job / "build.py")
    whole = (job / file).read_bytes()
    (job / file).write_bytes(whole.replace(b"a", b"b") + b"\n")
    assert script.main([]) == 2
    assert f"{file} is not as it was written" in capsys.readouterr().err
    (job / file).unlink()
    assert script.main([]) == 2
    assert file in capsys.readouterr().err


def test_what_is_missing_on_the_device_is_said_without_a_traceback(
    make_job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load(make_job() / "build.py")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert script.main([]) == 3
    assert "python3-libnvinfer" in capsys.readouterr().err
    module = api.stand_in("10", api.Plan())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(script.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert script.main([]) == 3
    assert "no NVIDIA driver" in capsys.readouterr().err
    module.__version__ = "8.5.2.2"
    assert script.main([]) == 3
    assert "JetPack 5" in capsys.readouterr().err


def test_a_library_that_does_not_start_is_missing(
    make_job: Callable[..., Path], device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.plan.starts = False
    assert device.run(make_job()) == 3
    error = capsys.readouterr().err
    assert "does not start, is the NVIDIA driver new enough for it? CUDA initialization failure" in error
    assert error.count("\n") == 1


def test_an_output_folder_that_cannot_be_written_is_an_error_of_one_line(
    make_job: Callable[..., Path], device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert device.run(make_job(), "--out", str(tmp_path / "file")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_flag_that_tensorrt_11_removed_cannot_slip_in(make_job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    source = (job / "build.py").read_text()
    anchor = "    config = builder.create_builder_config()\n"
    assert anchor in source
    lines = ("config.set_flag(trt.BuilderFlag.FP16)", "config.int8_calibrator = None", "config.set_quantization_flag(0)")
    for index, line in enumerate(lines):
        altered = job.parent / str(index) / "altered"
        shutil.copytree(job, altered)
        (altered / "build.py").write_text(source.replace(anchor, f"{anchor}    {line}\n"))
        told = json.loads((altered / "job.json").read_text())
        told["files"]["build.py"] = sha256_of(altered / "build.py")
        (altered / "job.json").write_text(json.dumps(told))
        (altered / "job.json.sha256").write_text(sha256_of(altered / "job.json"))
        assert Device("10", monkeypatch).run(altered) == 0
        with pytest.raises(AttributeError):
            Device("11", monkeypatch).run(altered)


def test_an_engine_of_its_own_is_replaced_and_one_of_anybody_else_is_not(
    make_job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job()
    assert Device("10", monkeypatch).run(job) == 0
    assert Device("10", monkeypatch).run(job) == 0
    manifest = job.parent / "net.fp32.trt.json"
    told = json.loads(manifest.read_text())
    for changed in ("another job", None):
        told["lineage"][-1]["options"] = {} if changed is None else {"job": changed}
        manifest.write_text(json.dumps(told))
        assert Device("10", monkeypatch).run(job) == 2
        assert "net.fp32.trt is there and is not of this job: move it away, or write elsewhere with --out" in capsys.readouterr().err
        assert json.loads(manifest.read_text()) == told
    manifest.unlink()
    assert Device("10", monkeypatch).run(job) == 2
    assert (job.parent / "net.fp32.trt" / "model.engine").exists()


def test_a_stand_in_has_what_its_release_has_and_nothing_else() -> None:
    ten, eleven = (api.stand_in(release, api.Plan()) for release in ("10", "11"))
    for name in ("IInt8EntropyCalibrator2", "IAlgorithmSelector"):
        assert hasattr(ten, name)
        assert not hasattr(eleven, name)
    builder = eleven.Builder(None)
    with pytest.raises(AttributeError):
        _ = builder.platform_has_fast_fp16
    with pytest.raises(AttributeError):
        builder.num_DLA_cores = 2  # read-only
    with pytest.raises(TypeError):
        builder.create_builder_config().set_timing_cache(None)  # wants another argument
    assert not hasattr(ten.Builder(None), "anything_else")


def test_the_script_needs_the_standard_library_and_a_python_as_old_as_jetpack_5_has(make_job: Callable[..., Path], tmp_path: Path) -> None:
    job = make_job()
    tree = ast.parse((job / "build.py").read_text(), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    bare = [sys.executable, "-I", "-S", job / "build.py"]  # no packages at all
    assert "--build-only" in subprocess.run([*bare, "--help"], check=True, capture_output=True, text=True).stdout
    run = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (3, 1)
    assert "tensorrt cannot be imported" in run.stderr


@pytest.mark.parametrize("board", ["NVIDIA Jetson Orin Nano Developer Kit", ""], ids=["a Jetson", "a PC"])
def test_the_script_calls_a_machine_what_the_package_calls_it(
    make_job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: str
) -> None:
    """It runs without the package; what the one writes into a passport, the other compares with what it finds."""
    files = {
        "proc/device-tree/model": f"{board}\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1" if board else "",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Wed" if not board else "",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    script = load(make_job() / "build.py")
    read = script.text_of
    monkeypatch.setattr(script, "text_of", lambda path: read(str(tmp_path) + path))
    driver = SimpleNamespace(name="Orin", version="12.6")
    found = gpu.Gpu("Orin", "8.7", 8 << 30)
    assert script.describe_host(driver) == {
        "device": gpu.device_name(found, tmp_path),
        "driver": gpu.driver_version(tmp_path),
        "cuda": "12.6",
        "jetpack": gpu.jetpack(tmp_path),
        "platform": gpu.this_platform(),
    }
    assert gpu.device_name(found, tmp_path) == (board or "Orin")


def test_tensorrt_rtx_really_builds_the_job_without_a_gpu(make_job: Callable[..., Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    job = make_job(BuildOptions(workspace_mib=64, optimization_level=0))
    ahead = ["--library", "tensorrt_rtx", "--build-only"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, job / "build.py", *arguments], capture_output=True, text=True, check=False)

    built = run(*ahead, "--capability", "8.9", "--capability", "12.0")
    assert built.returncode == 0, built.stderr
    artifact = load_artifact(job.parent / "net.fp32.rtx")
    passport = passport_of(artifact.manifest)
    assert (artifact.manifest.format, artifact.manifest.rung) == ("rtx", Rung.BUILT)
    assert (passport.library, passport.capabilities, passport.device) == ("tensorrt-rtx", ("8.9", "12.0"), "")
    assert passport.options.capabilities == ("8.9", "12.0")
    assert passport.bytes > 1000
    unknown = run(*ahead, "--capability", "8.7")
    assert unknown.returncode == 2
    assert "SM89" in unknown.stderr
    assert run("--library", "tensorrt_rtx", "--capability", "8.9").returncode == 2


def test_the_real_parser_names_the_module_of_what_it_refuses(make_job: Callable[..., Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    job = make_job()
    graph = onnx.load(job / "graph.onnx")
    graph.graph.node[1].op_type = "Einsummed"
    onnx.save(graph, job / "graph.onnx")
    told = json.loads((job / "job.json").read_text())
    told["files"]["graph.onnx"] = sha256_of(job / "graph.onnx")
    (job / "job.json").write_text(json.dumps(told))
    (job / "job.json.sha256").write_text(sha256_of(job / "job.json"))
    command = [sys.executable, job / "build.py", "--library", "tensorrt_rtx", "--build-only", "--capability", "8.9"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert "product of module head: " in run.stderr


C_DRIVER = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef void *stream;
static int copies;
int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return device; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &copies; return device; }
int cuCtxSetCurrent(void *context) { return context != &copies; }
int cuStreamCreate(stream *made, unsigned flags) { *made = (void *)0x123456789abc; return flags; }
int cuStreamSynchronize(stream given) { return given != (void *)0x123456789abc; }
int cuMemAlloc_v2(uint64_t *address, size_t size) { *address = (uint64_t)(uintptr_t)malloc(size); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, stream given) {
    memcpy((void *)(uintptr_t)to, from, size); return given != (void *)0x123456789abc; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, stream given) {
    memcpy(to, (void *)(uintptr_t)from, size); return given != (void *)0x123456789abc; }
"""


def test_arguments_reach_a_compiled_driver_as_its_c_interface_has_them(make_job: Callable[..., Path], tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is here")
    (tmp_path / "cuda.c").write_text(C_DRIVER)
    library = tmp_path / f"libcuda{os.getpid()}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"], check=True)
    script = load(make_job() / "build.py")
    cuda = script.Cuda(script.ctypes.CDLL(str(library)))
    assert (cuda.name, cuda.capability, cuda.version) == ("Orin", "8.7", "12.6")
    data = bytes(range(256)) * 5
    address = cuda.allocate(len(data))
    cuda.upload(address, data)
    assert cuda.download(address, len(data)) == data
    cuda.stream.value = 1
    with pytest.raises(script.JobError, match="cuMemcpyHtoDAsync_v2"):
        cuda.upload(address, data)


def test_a_job_that_could_not_be_judged_or_fed_is_not_written(tmp_path: Path) -> None:
    graph, manifest = network(tmp_path / "net.onnx")
    golden = golden_of(graph)

    def write(manifest: Manifest = manifest, name: str = "net", **changed: Any) -> None:
        folder = tmp_path / "job"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        given = {field: getattr(golden, field) for field in ("feeds", "expected", "tolerance", "least_sqnr", "top1")} | changed
        write_job(folder, graph, manifest, BuildOptions(), Golden(**given), name)

    write()
    with pytest.raises(InputError, match="how near"):
        write(tolerance=None)
    for value in (np.inf, np.nan, -1.0):  # JSON has no such number, and a device would pass whatever it answers
        with pytest.raises(InputError, match="judges nothing"):
            write(tolerance={"logits": value, "best": 0.0})
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(InputError, match="judges nothing"):
            write(tolerance=None, least_sqnr=value)
    with pytest.raises(InputError, match="make no pairs"):
        write(expected=[])
    with pytest.raises(InputError, match="no output is called"):
        write(top1="scores")
    with pytest.raises(InputError, match="do not fit"):
        write(feeds=[{"y": feed["x"]} for feed in golden.feeds])
    with pytest.raises(InputError, match="a golden logits is"):
        write(expected=[{**run, "logits": run["logits"].astype(np.float64)} for run in golden.expected])
    with pytest.raises(InputError, match="no name"):
        write(name="../elsewhere")
    odd = Signature((TensorSpec("x", (1, 4), "complex64"),), manifest.signature.outputs)
    with pytest.raises(InputError, match="complex64"):
        write(msgspec.structs.replace(manifest, signature=odd))
    with pytest.raises(ValueError, match="not that of the typed graph"):
        write(msgspec.structs.replace(manifest, sha256="0" * 64))
