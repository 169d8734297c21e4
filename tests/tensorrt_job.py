"""A job that builds an engine on its device, and a device that takes it, for tests of the script in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.artifact import Link, Manifest, sha256_of
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.export.tensorrt.on_device import Golden, write_job
from dtvit_deploy.formats.engine.options import BuildOptions


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api = load(Path(__file__).with_name("integration") / "tensorrt_api.py")
JOB, ENGINE = "net.fp32.trtjob", "net.fp32.trt"


def network(path: Path) -> tuple[Path, Manifest]:
    """x → Relu → MatMul → logits, and the index of the best."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),  # nameless, as a rewriting pass may leave it
        helper.make_node("MatMul", ["a", "w"], ["logits"], name="product"),
        helper.make_node("ArgMax", ["logits"], ["best"], name="best", axis=1),
    ]
    for node, module in zip(nodes, ("stem.act", "head", ""), strict=True):
        node.metadata_props.add(key="module", value=module)
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    kinds = {"x": (TensorProto.FLOAT, (1, 4)), "logits": (TensorProto.FLOAT, (1, 3)), "best": (TensorProto.INT64, (1, 1))}
    ends = {name: helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()}
    graph = helper.make_graph(nodes, "net", [ends["x"]], [ends["logits"], ends["best"]], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    outputs = (TensorSpec("logits", (1, 3)), TensorSpec("best", (1, 1), "int64"))
    links = (Link(kind="checkpoint", sha256="c" * 64), Link(kind="onnx", sha256=sha256_of(path), tools={"ü": "1"}, options={"floor": 1e-7}))
    signature = Signature((TensorSpec("x", (1, 4)),), outputs)
    return path, Manifest(
        model="net", format="onnx", precision=Precision.FP32, sha256=sha256_of(path), signature=signature, lineage=links, classes=("a", "b")
    )


def golden_of(graph: Path, **limits: Any) -> Golden:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = [{"x": np.random.default_rng(seed).standard_normal((1, 4)).astype(np.float32)} for seed in range(3)]
    expected = [dict(zip(("logits", "best"), session.run(None, feed), strict=True)) for feed in feeds]
    return Golden(feeds=feeds, expected=expected, top1="logits", **(limits or {"tolerance": {"logits": 1e-5, "best": 0.0}}))


def written_job(folder: Path, options: BuildOptions = BuildOptions(), **limits: Any) -> Path:  # noqa: B008 - frozen
    graph, manifest = network(folder / "net.fp32.onnx")
    job = folder / JOB
    job.mkdir()
    write_job(job, graph, manifest, options, golden_of(graph, **limits), "net.fp32")
    return job


class Device:
    """A Jetson with a release of TensorRT, as far as its Python module and the CUDA driver's functions go."""

    def __init__(self, release: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan, self.patch = api.Plan(), monkeypatch
        self.module = api.stand_in(release, self.plan)
        monkeypatch.setitem(sys.modules, "tensorrt", self.module)
        self.board = {"/etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1", "/proc/device-tree/model": "Jetson Orin Nano\0"}

    def run(self, job: Path, *arguments: str) -> int:
        script = load(job / "build.py")
        self.patch.setattr(script, "load_driver", api.Driver)
        self.patch.setattr(script, "text_of", lambda path: self.board.get(path, ""))
        return int(script.main(arguments))
