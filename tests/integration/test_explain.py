"""One real engine, spoiled in every way that happens to engines: the first reason given is the right one, and names the way out."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from commandline import processor_seconds
from dtvit_deploy.artifacts.artifact import Link, Manifest, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.engine.explain import Explanation, explain
from dtvit_deploy.formats.engine.gpu import Gpu, gpus
from dtvit_deploy.formats.engine.header import CAPABILITIES, read_header
from dtvit_deploy.formats.engine.here import Here, Installed, this_machine
from dtvit_deploy.formats.engine.load import ask_library, load_engine
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LINK, Passport
from dtvit_deploy.formats.engine.reason import Cause

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX builds the engines that are spoiled here")
VERSION = str(trt.__version__)
NAME = "net.fp32.rtx"
SIDE = 16
HERE = Here(
    platform="linux x86_64",
    gpus=(Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30),),
    cuda="13.0",
    driver="580.65",
    libraries={"tensorrt-rtx": Installed(VERSION, "")},
)
"""A machine on which the engine, unspoiled, loads."""
NO_GPU = not gpus().found


def graph(side: int = SIDE, kind: Any = np.float32) -> bytes:
    """A product with ``side``² weights."""
    type_ = TensorProto.FLOAT if kind == np.float32 else TensorProto.FLOAT16
    weights = numpy_helper.from_array(np.random.default_rng(side).normal(size=(side, side)).astype(kind), "w")
    ends = [helper.make_tensor_value_info(name, type_, [1, side]) for name in "xy"]
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


class Compiler:
    """TensorRT-RTX, started once."""

    def __init__(self) -> None:
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.builder = trt.Builder(self.logger)

    def __call__(self, content: bytes, capabilities: tuple[str, ...]) -> bytes:
        network = self.builder.create_network(0)
        assert trt.OnnxParser(network, self.logger).parse(content)
        config = self.builder.create_builder_config()
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), index)
        return bytes(self.builder.build_serialized_network(network, config))


@pytest.fixture(scope="module")
def compiled() -> Compiler:
    return Compiler()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, compiled: Compiler) -> Path:
    """An engine's folder with everything as it should be, for 8.9 and 12.0."""
    folder = tmp_path_factory.mktemp("whole") / NAME
    folder.mkdir()
    (folder / GRAPH).write_bytes(graph())
    (folder / ENGINE).write_bytes(compiled(graph(), ("8.9", "12.0")))
    return describe(folder)


def describe(folder: Path, **changed: Any) -> Path:
    """Write the manifest that a builder would, ``changed`` in its passport."""
    passport = Passport(
        library="tensorrt-rtx",
        version=VERSION,
        capabilities=("8.9", "12.0"),
        platform="linux x86_64",
        engine=sha256_of(folder / ENGINE),
        bytes=(folder / ENGINE).stat().st_size,
        graph=sha256_of(folder / GRAPH),
        options=BuildOptions(),
    )
    options = {"passport": msgspec.to_builtins(msgspec.structs.replace(passport, **changed))}
    digest = sha256_of(folder)
    ends = [TensorSpec(name, (1, SIDE)) for name in "xy"]
    manifest = Manifest(
        model="a product",
        format="rtx",
        precision=Precision.FP32,
        sha256=digest,
        signature=Signature((ends[0],), (ends[1],)),
        lineage=(Link(kind="onnx", sha256=sha256_of(folder / GRAPH)), Link(kind=LINK, sha256=digest, options=options)),
    )
    write_json(manifest_path(folder), manifest)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copy(manifest_path(whole), tmp_path)
    return Path(shutil.copytree(whole, tmp_path / NAME))


def patched(folder: Path, offset: int, content: bytes) -> None:
    """Change bytes of the engine."""
    with (folder / ENGINE).open("r+b") as file:
        file.seek(offset, 0 if offset >= 0 else 2)
        file.write(content)


def by_another_release(folder: Path) -> None:
    patched(folder, 24, bytes((1, 6, 0, 3)))
    describe(folder, version="1.6.0.3")


def for_another_gpu(folder: Path) -> None:
    compiler = Compiler()
    (folder / ENGINE).write_bytes(compiler(graph(), ("12.0",)))
    describe(folder, capabilities=("12.0",))


def another_engine(folder: Path) -> None:
    (folder / ENGINE).write_bytes(Compiler()(graph(32), ("8.9", "12.0")))


def without_manifest(folder: Path) -> None:
    manifest_path(folder).unlink()


def lineage_elsewhere(folder: Path) -> None:
    content = json.loads(manifest_path(folder).read_text())
    content["lineage"][-1]["sha256"] = "0" * 64
    manifest_path(folder).write_text(json.dumps(content))


def cut(folder: Path, share: float) -> None:
    content = (folder / ENGINE).read_bytes()
    (folder / ENGINE).write_bytes(content[: int(len(content) * share)])


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / ENGINE).write_text(content)


SPOILED: dict[str, tuple[Callable[[Path], object], Cause, str]] = {
    "cut in half": (lambda folder: cut(folder, 0.5), Cause.TRUNCATED, "fetch a whole copy"),
    "cut in its header": (lambda folder: cut(folder, 0.0003), Cause.TRUNCATED, "fetch a whole copy"),
    "one byte short": (
        lambda folder: (folder / ENGINE).write_bytes((folder / ENGINE).read_bytes()[:-1]),
        Cause.TRUNCATED,
        "whole copy",
    ),
    "a bit flipped in the code": (lambda folder: patched(folder, 70_000, b"\x5a"), Cause.ALTERED, "fetch a whole copy"),
    "a bit flipped in the weights": (lambda folder: patched(folder, -100, b"\x5a"), Cause.ALTERED, "fetch a whole copy"),
    "another mark of capabilities": (lambda folder: patched(folder, 32, b"\xff"), Cause.ALTERED, "fetch a whole copy"),
    "bytes after its end": (
        lambda folder: (folder / ENGINE).write_bytes((folder / ENGINE).read_bytes() + b"more"),
        Cause.ALTERED,
        "whole copy",
    ),
    "empty": (text(""), Cause.EMPTY, "fetch a whole copy"),
    "the graph in its place": (
        lambda folder: shutil.copy(folder / GRAPH, folder / ENGINE),
        Cause.NOT_AN_ENGINE,
        "export it first",
    ),
    "a pointer of Git LFS": (text("version https://git-lfs.github.com/spec/v1\n"), Cause.NOT_AN_ENGINE, "git lfs pull"),
    "a web page": (text("<html>404"), Cause.NOT_AN_ENGINE, "download"),
    "compressed": (
        lambda folder: (folder / ENGINE).write_bytes(gzip.compress((folder / ENGINE).read_bytes())),
        Cause.NOT_AN_ENGINE,
        "gunzip",
    ),
    "without a manifest": (without_manifest, Cause.NO_MANIFEST, "--trust"),
    "with half a manifest": (lambda folder: manifest_path(folder).write_text("{"), Cause.UNREADABLE_MANIFEST, "its own manifest"),
    "with another engine's manifest": (another_engine, Cause.OTHER_MANIFEST, "its own manifest"),
    "with a lineage that leads elsewhere": (lineage_elsewhere, Cause.LINEAGE, "its own manifest"),
    "by another release": (by_another_release, Cause.VERSION, f"export it again with TensorRT-RTX {VERSION}"),
    "for another GPU": (for_another_gpu, Cause.CAPABILITY, "export it again with 8.9 among its compute capabilities"),
    "moved away from its graph": (lambda folder: (folder / GRAPH).unlink(), Cause.ALTERED, "whole copy of its folder"),
}


class TestSpoiled:
    def test_unspoiled_it_loads(self, folder: Path) -> None:
        found = explain(folder, HERE)
        assert found.loads, found.reasons
        assert found.facts["built by"] == f"TensorRT-RTX {VERSION}"
        assert found.facts["compute capabilities"] == "8.9, 12.0"

    @pytest.mark.parametrize("how", SPOILED)
    def test_the_first_reason_is_the_right_one(self, folder: Path, how: str) -> None:
        spoil, cause, remedy = SPOILED[how]
        spoil(folder)
        found = explain(folder, HERE)
        assert not found.loads
        assert found.reasons[0].cause == cause, found.reasons
        assert remedy in found.reasons[0].remedy
        assert len(found.reasons) == 1, found.reasons  # what follows from the first reason is no reason of its own

    def test_on_other_machines(self, folder: Path) -> None:
        def first(**changed: Any) -> tuple[Cause, str]:
            reason = explain(folder, msgspec.structs.replace(HERE, **changed)).reasons[0]
            return reason.cause, reason.remedy

        orin = (Gpu("Orin", "8.7", 7 << 30),)
        assert first(gpus=(), no_gpu="none")[0] == Cause.NO_GPU
        assert first(gpus=orin) == (
            Cause.CAPABILITY,
            "TensorRT-RTX compiles for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1 only: export it with --flavour tensorrt or on-device",
        )
        assert first(libraries={})[0] == Cause.NOT_INSTALLED
        assert first(libraries={"tensorrt": Installed("10.7.0.23", "")})[0] == Cause.OTHER_LIBRARY
        assert first(gpus=(Gpu("a tiny one", "8.9", 1000),))[0] == Cause.MEMORY

    def test_between_windows_and_linux_it_moves_and_to_another_processor_with_a_caution(self, folder: Path) -> None:
        windows = explain(folder, msgspec.structs.replace(HERE, platform="windows x86_64"))
        arm = explain(folder, msgspec.structs.replace(HERE, platform="linux aarch64"))
        assert (windows.loads, windows.cautions) == (True, ())
        assert arm.loads
        assert "says nothing of processors" in arm.cautions[0]


class TestTheHeader:
    """What dtvit_deploy.formats.engine.header claims of the format, held against what the real compiler writes."""

    @pytest.mark.parametrize("kind", [np.float32, np.float16], ids=["fp32", "fp16"])
    def test_every_set_of_capabilities_is_read_back(self, compiled: Compiler, tmp_path: Path, kind: Any) -> None:
        path = tmp_path / ENGINE
        known = [one for one in CAPABILITIES if one != "7.5" or kind == np.float16]  # it has no FP32 products for Turing
        for wanted in [*((one,) for one in known), *combinations(known, 2), tuple(known)]:
            path.write_bytes(compiled(graph(kind=kind), wanted))
            found = read_header(path)
            assert (found.version, found.capabilities, found.faults) == (VERSION, wanted, ())
            assert found.declared == found.size
            assert found.sections["THGW"] == SIDE * SIDE * np.dtype(kind).itemsize

    def test_its_length_is_the_one_that_the_library_gives(self) -> None:
        assert trt.Runtime(trt.Logger(trt.Logger.ERROR)).engine_header_size == struct.calcsize("<4sIQQ4B4sI20xQ")


class TestTheLibrary:
    def test_it_agrees_on_what_is_malformed(self, folder: Path) -> None:
        patched(folder, 0, b"x")
        assert ask_library(folder / ENGINE).diagnostics == ("MALFORMED_ENGINE",)

    @pytest.mark.skipif(not NO_GPU, reason="here is a GPU")
    def test_without_a_gpu_loading_fails_in_the_child_and_says_why(self, folder: Path) -> None:
        loaded = load_engine(folder / ENGINE, "tensorrt-rtx", sha256_of(folder / ENGINE))
        assert loaded.tensors == ()
        assert loaded.wrong

    def test_a_file_that_changed_since_it_was_checked_is_not_loaded(self, folder: Path) -> None:
        assert "changed since" in load_engine(folder / ENGINE, "tensorrt-rtx", "0" * 64).wrong

    def test_this_machine_is_asked_for_its_library(self) -> None:
        found = this_machine().installed("tensorrt-rtx")
        assert (found.version, found.wrong) == (VERSION, "")
        assert found.cuda.isdecimal()


class TestTheCommand:
    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dtvit_deploy", "doctor", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    def test_a_spoiled_engine_is_a_verdict_and_no_error(self, folder: Path) -> None:
        cut(folder, 0.5)
        done = self.run("--explain", folder, "--load")
        assert (done.returncode, done.stderr) == (1, "")
        assert "1. truncated" in done.stdout
        assert "loading: not tried" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("FAIL: it will not load here")
        assert max(map(len, done.stdout.splitlines())) <= 80

    def test_everything_is_there_as_json(self, folder: Path) -> None:
        without_manifest(folder)
        before = processor_seconds()
        done = self.run("--explain", folder / ENGINE, "--json")
        assert processor_seconds() - before < 30
        found = msgspec.convert(json.loads(done.stdout), Explanation)
        assert found.reasons[0].cause == Cause.NO_MANIFEST
        assert json.loads(done.stdout)["here"]["libraries"]["tensorrt-rtx"]["version"] == VERSION

    @pytest.mark.skipif(not NO_GPU, reason="here is a GPU")
    def test_a_sound_engine_lacks_only_the_gpu_here(self, folder: Path) -> None:
        done = self.run("--explain", folder, "--json")
        assert done.returncode == 1
        assert [one["cause"] for one in json.loads(done.stdout)["reasons"]] == ["no GPU"]

    def test_what_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        done = self.run("--explain", tmp_path / "none.rtx")
        assert done.returncode == 2
        assert "does not exist" in done.stderr

    def test_load_without_an_engine_is_refused(self) -> None:
        done = self.run("--load")
        assert done.returncode == 2
        assert "--explain ENGINE" in done.stderr
