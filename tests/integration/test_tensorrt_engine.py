"""The builder of engines, whole: against both releases of TensorRT as far as their names go, and against the real TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.export.tensorrt import engine as builder
from dtvit_deploy.export.tensorrt.engine import Built, engine_from_onnx
from dtvit_deploy.formats.engine.library import Library, load_library
from dtvit_deploy.formats.engine.options import BuildOptions

_SPEC = importlib.util.spec_from_file_location("tensorrt_api", Path(__file__).with_name("tensorrt_api.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
api = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(api)

PLAIN = BuildOptions()
EVERYTHING = BuildOptions(
    tf32=True, workspace_mib=64, optimization_level=5, version_compatible=True, hardware_compatible=True, dla_core=1, capabilities=("8.7",)
)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """x → Relu → MatMul → Add → ArgMax, of three torch modules and what belongs to none."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),  # nameless, as a rewriting pass may leave it
        helper.make_node("MatMul", ["a", "w"], ["p"], name="product"),
        helper.make_node("Add", ["p", "b"], ["logits"], name="sum"),
        helper.make_node("ArgMax", ["logits"], ["best"], name="best", axis=1),
    ]
    for node, module in zip(nodes, ("stem.act", "head", "head", "choice"), strict=True):
        node.metadata_props.add(key="module", value=module)
    ends = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("x", TensorProto.FLOAT, (1, 4)),
            ("logits", TensorProto.FLOAT, (1, 3)),
            ("best", TensorProto.INT64, (1, 1)),
        )
    ]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, (4, 3), [0.5] * 12), helper.make_tensor("b", TensorProto.FLOAT, (3,), [1.0] * 3)]
    made = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


class Release:
    """A release of TensorRT: its module, and what that is told."""

    def __init__(self, name: str) -> None:
        self.plan = api.Plan()
        self.plan.dla_cores = 2
        self.trt = api.stand_in(name, self.plan)
        self.library = Library("tensorrt", self.trt)

    def build(self, graph: Path, options: BuildOptions = PLAIN, timing: bytes = b"") -> Built:
        self.plan.said.clear()
        return engine_from_onnx(graph, options, self.library, timing)

    def told(self, kind: str, member: str) -> list[Any]:
        told: list[Any] = self.plan.told(kind, member)
        return told


@pytest.fixture(params=["10", "11"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setattr(builder, "jetpack", lambda: "")
    return Release(request.param)


def test_a_plain_build_pins_what_the_libraries_leave_open(graph: Path, release: Release) -> None:
    built = release.build(graph)
    trt = release.trt
    assert built.engine == b"engine " + graph.read_bytes()
    assert built.notes == ()
    assert release.told("Builder", "create_network") == [(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)]
    assert release.told("IBuilderConfig", "profiling_verbosity") == [trt.ProfilingVerbosity.DETAILED]
    assert release.told("IBuilderConfig", "clear_flag") == [(trt.BuilderFlag.TF32,)]
    assert release.told("IBuilderConfig", "builder_optimization_level") == [3]
    for member in ("set_flag", "set_memory_pool_limit", "hardware_compatibility_level", "DLA_core", "default_device_type"):
        assert release.told("IBuilderConfig", member) == []
    assert release.told("Runtime", "engine_host_code_allowed") == [False]  # nothing that the engine brings along is run
    assert release.told("Runtime", "DLA_core") == []


def test_a_release_that_types_every_network_strongly_is_not_asked_to(
    graph: Path, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = type("NetworkDefinitionCreationFlag", (), {"EXPLICIT_BATCH": 0})
    monkeypatch.setattr(release.trt, "NetworkDefinitionCreationFlag", flags)
    release.build(graph)
    assert release.told("Builder", "create_network") == [(0,)]


def test_every_option_reaches_the_builder_and_the_loader(graph: Path, release: Release) -> None:
    trt = release.trt
    built = release.build(graph, EVERYTHING)
    assert release.told("IBuilderConfig", "clear_flag") == []
    flags = trt.BuilderFlag
    assert release.told("IBuilderConfig", "set_flag") == [(flags.TF32,), (flags.VERSION_COMPATIBLE,), (flags.GPU_FALLBACK,)]
    assert release.told("IBuilderConfig", "set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 64 << 20)]
    assert release.told("IBuilderConfig", "builder_optimization_level") == [5]
    assert release.told("IBuilderConfig", "hardware_compatibility_level") == [trt.HardwareCompatibilityLevel.AMPERE_PLUS]
    assert release.told("IBuilderConfig", "default_device_type") == [trt.DeviceType.DLA]
    assert release.told("IBuilderConfig", "DLA_core") == [1]
    # The layers are those of the loaded engine: it brings host code of its own, and runs on this core.
    assert release.told("Runtime", "engine_host_code_allowed") == [True]
    assert release.told("Runtime", "DLA_core") == [1]
    assert json.loads(built.layers)["stage"] == "built"


def test_what_the_accelerator_leaves_to_the_gpu_is_told_by_torch_module(graph: Path, release: Release) -> None:
    built = release.build(graph, BuildOptions(dla_core=0))
    assert built.notes == ("DLA core 0: 1 of 4 layers fall back to the GPU: 1 SHUFFLE; in choice",)
    assert json.loads(built.layers)["left to the GPU"] == [{"layer": "best_layer", "type": "SHUFFLE", "module": "choice"}]
    assert "left to the GPU" not in json.loads(release.build(graph).layers)


def test_an_accelerator_that_is_not_there_is_missing(graph: Path, release: Release) -> None:
    release.plan.dla_cores = 1
    with pytest.raises(MissingError, match="DLA core 1 was asked for, and this machine has 1"):
        release.build(graph, BuildOptions(dla_core=1))
    release.plan.dla_cores = 0
    with pytest.raises(MissingError, match="this machine has none"):
        release.build(graph, BuildOptions(dla_core=1))


def test_hardware_compatibility_is_left_out_on_a_jetson_and_said(graph: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "jetpack", lambda: "L4T 36.4.0")
    (note,) = release.build(graph, BuildOptions(hardware_compatible=True)).notes
    assert note.startswith("hardware compatibility was left out")
    assert release.told("IBuilderConfig", "hardware_compatibility_level") == []


def test_a_second_build_starts_from_the_timings_of_the_first(graph: Path, release: Release) -> None:
    first = release.build(graph)
    assert release.told("IBuilderConfig", "create_timing_cache") == [(b"",)]
    assert first.timing == b"timings"
    release.build(graph, timing=first.timing)
    assert release.told("IBuilderConfig", "create_timing_cache") == [(b"timings",)]
    ((cache, ignore_mismatch),) = release.told("IBuilderConfig", "set_timing_cache")
    assert (cache.serialize(), ignore_mismatch) == (b"timings", False)  # False: another device's are refused


@pytest.mark.parametrize("unfit", [b"another device's", b"damaged"])
def test_timings_that_cannot_be_used_are_no_error(graph: Path, release: Release, unfit: bytes) -> None:
    built = release.build(graph, timing=unfit)
    assert release.told("IBuilderConfig", "create_timing_cache") == [(unfit,), (b"",)]
    assert release.told("IBuilderConfig", "set_timing_cache")[-1][0].serialize() == b""
    assert built.timing == b"timings"
    assert built.engine == release.build(graph).engine


def test_layers_are_those_of_the_engine_in_the_librarys_words(graph: Path, release: Release) -> None:
    told = json.loads(release.build(graph).layers)
    assert told["stage"] == "built"
    assert [layer["Name"] for layer in told["engine"]["Layers"]] == ["node_of_a+product", "sum", "best"]


def test_layer_information_that_is_no_json_is_kept_as_it_is(graph: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.BEHAVIOUR, "EngineInspector.get_engine_information", lambda *_: "Layers: {")
    assert json.loads(release.build(graph).layers) == {"stage": "built", "engine": "Layers: {"}


def test_what_the_parser_refuses_is_told_by_torch_module(graph: Path, release: Release) -> None:
    release.plan.refuses = ("Relu", "MatMul")
    with pytest.raises(InputError) as caught:
        release.build(graph)
    told = str(caught.value)
    assert f"tensorrt {release.trt.__version__} does not take the graph" in told
    assert "stem.act" in told
    assert "head (product): " in told
    assert "no importer for" in told
    assert caught.value.remedy
    assert release.told("Builder", "build_serialized_network") == []


@pytest.mark.parametrize(("options", "remedy"), [(PLAIN, "verify"), (BuildOptions(workspace_mib=1), "--workspace")])
def test_a_builder_that_makes_no_engine_is_an_error_with_its_reason(
    graph: Path, release: Release, options: BuildOptions, remedy: str
) -> None:
    release.plan.builds = False
    with pytest.raises(InputError, match=r"cannot build the engine: no tactic for product_layer$") as caught:
        release.build(graph, options, timing=b"damaged")  # which the library says too, and is not the reason
    assert remedy in (caught.value.remedy or "")


def test_an_engine_that_does_not_load_again_is_an_error(graph: Path, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.BEHAVIOUR, "Runtime.deserialize_cuda_engine", lambda *_: None)
    with pytest.raises(InputError, match="does not load the engine that it built"):
        release.build(graph)


def test_a_library_that_does_not_start_is_missing(graph: Path, release: Release) -> None:
    release.plan.starts = False
    with pytest.raises(MissingError, match="does not start: CUDA initialization failure") as caught:
        release.build(graph)
    assert "driver" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "use",
    [
        lambda trt, config: config.set_flag(trt.BuilderFlag.FP16),
        lambda trt, config: setattr(config, "int8_calibrator", None),
        lambda trt, config: config.set_quantization_flag(0),
        lambda trt, config: setattr(config, "algorithm_selector", None),
    ],
    ids=["precision flag", "calibrator", "quantization flag", "algorithm selector"],
)
def test_a_flag_that_only_one_release_has_cannot_slip_in(
    graph: Path, use: Callable[[Any, Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = builder._config

    def altered(started: Any, options: BuildOptions, library: Library) -> Any:
        config = ours(started, options, library)
        use(library.module, config)
        return config

    monkeypatch.setattr(builder, "_config", altered)
    assert Release("10").build(graph).engine
    with pytest.raises(AttributeError):
        Release("11").build(graph)


def test_what_11_brought_and_10_lacks_cannot_slip_in_either(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = builder._config

    def altered(started: Any, options: BuildOptions, library: Library) -> Any:
        config = ours(started, options, library)
        config.max_num_tactics = 3
        return config

    monkeypatch.setattr(builder, "_config", altered)
    assert Release("11").build(graph).engine
    with pytest.raises(AttributeError):
        Release("10").build(graph)


@pytest.fixture
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    return load_library("tensorrt-rtx")


class TestTensorRtRtx:
    """The real compiler, for GPUs that are not here."""

    def test_an_engine_is_built_without_a_gpu_and_its_layers_are_told_as_parsed(self, graph: Path, rtx: Library) -> None:
        built = engine_from_onnx(graph, PLAIN, rtx)
        assert len(built.engine) > 1000
        assert built.timing is None  # nothing is timed on a GPU that is not here
        told = json.loads(built.layers)
        assert told["stage"] == "parsed"
        modules = [layer["module"] for layer in told["layers"]]
        assert {"stem.act", "head", "choice"} <= set(modules)  # the first of them of a node without a name
        assert {out["dtype"] for layer in told["layers"] for out in layer["outputs"]} <= {"float", "int64", "int32", "bool"}

    def test_two_builds_are_the_same_bytes(self, graph: Path, rtx: Library) -> None:
        assert engine_from_onnx(graph, PLAIN, rtx).engine == engine_from_onnx(graph, PLAIN, rtx).engine

    def test_an_unknown_gpu_is_refused_with_those_that_it_knows(self, graph: Path, rtx: Library) -> None:
        with pytest.raises(InputError, match=r"does not compile for compute capability 8\.7") as caught:
            engine_from_onnx(graph, BuildOptions(capabilities=("8.7",)), rtx)
        assert "8.9" in (caught.value.remedy or "")

    def test_the_real_parser_names_the_module_of_what_it_refuses(self, graph: Path, rtx: Library) -> None:
        model = onnx.load(graph)
        model.graph.node[1].op_type = "Einsummed"
        onnx.save(model, graph)
        with pytest.raises(InputError, match=r"head \(product\)"):
            engine_from_onnx(graph, PLAIN, rtx)
