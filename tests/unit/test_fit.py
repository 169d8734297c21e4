"""One judgement of engine and machine: `doctor --explain` tells what a session does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.engine.explain import explain
from dtvit_deploy.formats.engine.fit import loads_in
from dtvit_deploy.formats.engine.gpu import Gpu
from dtvit_deploy.formats.engine.here import Here, Installed
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, LINK, Passport
from dtvit_deploy.runtimes.tensorrt.session import misfit_of

L4, BLACKWELL, OLD = Gpu("NVIDIA L4", "8.9", 24 << 30), Gpu("NVIDIA RTX 5090", "12.0", 32 << 30), Gpu("NVIDIA V100", "7.0", 16 << 30)
SMALL = Gpu("a small one", "8.9", 100)


@pytest.mark.parametrize(
    ("library", "made", "installed", "compatible", "loads"),
    [
        ("tensorrt", "10.3.0.26", "10.3.0.26", False, True),
        ("tensorrt", "10.3.0.26", "10.3.0", False, True),
        ("tensorrt", "10.3.0.26", "10.3.0.30", False, False),
        ("tensorrt", "10.3.0.26", "10.7.0.23", False, False),
        ("tensorrt", "10.3.0.26", "10.7.0.23", True, True),
        ("tensorrt", "10.7.0.23", "10.3.0.26", True, False),
        ("tensorrt", "10.7.0.23", "11.1.0.5", True, True),
        ("tensorrt", "10.7.0.23", "11.1.0.5", False, False),
        ("tensorrt", "11.1.0.5", "10.7.0.23", True, False),
        ("tensorrt", "8.6.1.6", "10.3.0.26", True, True),
        ("tensorrt", "8.6.1.6", "11.1.0.5", True, False),
        ("tensorrt", "10.10.0.31", "10.9.0.34", True, False),
        ("tensorrt-rtx", "1.7.1.116", "1.7.1.116", False, True),
        ("tensorrt-rtx", "1.7.1.116", "1.7.1.90", False, True),
        ("tensorrt-rtx", "1.7.1.116", "1.7.2.116", True, False),
        ("tensorrt-rtx", "1.6.0.1", "1.7.1.116", True, False),
        ("tensorrt", "10.3.0.26", "unknown", True, False),
        ("tensorrt", "10.3.0.26", "9" * 9999, True, False),
        ("tensorrt", "", "", False, False),
        ("tensorrt", "10", "10.3.0.26", False, False),
    ],
)
def test_versions_load_as_nvidia_promises(library: str, made: str, installed: str, compatible: bool, loads: bool) -> None:
    assert loads_in(library, made, installed, compatible=compatible) == loads


def here(*gpus: Gpu, library: str = "tensorrt", version: str = "10.3.0.26", **machine: Any) -> Here:
    facts: dict[str, Any] = {"platform": "linux x86_64", "cuda": "13.0", "libraries": {library: Installed(version, "")}}
    return Here(gpus=gpus, **facts | machine)


def tensorrt(version: str) -> bytes:
    return struct.pack("<4sI16x4B", b"ftrt", 0, *map(int, version.split("."))) + bytes(500)


def rtx(version: str = "1.7.1.116", capabilities: int = 0b1000) -> bytes:
    """An engine whose header says which capabilities it has code for: bit 3 is 8.9."""
    size = 64 + 24 + 100 + 4
    head = struct.pack("<4sIQQ4B4sI20xQ", b"vtrt", 0, 1, size, *map(int, version.split(".")), b"vtrt", capabilities, 0)
    return head + struct.pack("<4s4xQQ", b"NGNE", 88, 100) + bytes(100) + bytes(0xFF ^ byte for byte in b"ftrt")


COMPATIBLE, PORTABLE = BuildOptions(version_compatible=True), BuildOptions(hardware_compatible=True)
CASES: dict[str, tuple[bytes, dict[str, Any], Here, int | None]] = {
    "where it was built": (tensorrt("10.3.0.26"), {}, here(L4), 0),
    "a Jetson's module gave the passport three numbers": (tensorrt("10.3.0.26"), {"version": "10.3.0"}, here(L4), 0),
    "a later release": (tensorrt("10.3.0.26"), {}, here(L4, version="10.7.0.23"), None),
    "version-compatible in a later release": (tensorrt("10.3.0.26"), {"options": COMPATIBLE}, here(L4, version="10.7.0.23"), 0),
    "version-compatible in an earlier one": (tensorrt("10.3.0.26"), {"options": COMPATIBLE}, here(L4, version="10.0.1.6"), None),
    "version-compatible 10 in 11": (
        tensorrt("10.16.0.72"),
        {"version": "10.16.0.72", "options": COMPATIBLE},
        here(L4, version="11.1.0.5"),
        0,
    ),
    "the second GPU fits": (tensorrt("10.3.0.26"), {}, here(OLD, L4), 1),
    "the second GPU has the room": (tensorrt("10.3.0.26"), {}, here(SMALL, L4), 1),
    "no GPU has the room": (tensorrt("10.3.0.26"), {}, here(SMALL, OLD), None),
    "no GPU fits": (tensorrt("10.3.0.26"), {}, here(OLD, BLACKWELL), None),
    "no GPU": (tensorrt("10.3.0.26"), {}, here(no_gpu="none"), None),
    "hardware-compatible": (tensorrt("10.3.0.26"), {"options": PORTABLE}, here(OLD, BLACKWELL), 1),
    "hardware-compatible, on a Jetson": (tensorrt("10.3.0.26"), {"options": PORTABLE}, here(BLACKWELL, jetpack="L4T 36.4.0"), None),
    "another platform": (tensorrt("10.3.0.26"), {"platform": "linux aarch64"}, here(L4), None),
    "a driver too old": (tensorrt("10.3.0.26"), {"cuda": "13.0"}, here(L4, cuda="12.6"), None),
    "the other library": (rtx(), {"library": "tensorrt-rtx", "version": "1.7.1.116"}, here(L4), None),
    "no version in the passport": (tensorrt("10.3.0.26"), {"version": ""}, here(L4), None),
    "a version of one number": (tensorrt("10.3.0.26"), {"version": "10"}, here(L4), None),
    "a version of 5,000 digits": (tensorrt("10.3.0.26"), {"version": "9" * 5000}, here(L4), None),
    "RTX, for this GPU": (
        rtx(),
        {"library": "tensorrt-rtx", "version": "1.7.1.116"},
        here(BLACKWELL, L4, library="tensorrt-rtx", version="1.7.1.90"),
        1,
    ),
    "RTX from Windows": (
        rtx(),
        {"library": "tensorrt-rtx", "version": "1.7.1.116", "platform": "windows x86_64"},
        here(L4, library="tensorrt-rtx", version="1.7.1.116"),
        0,
    ),
    "RTX, of another patch": (
        rtx(),
        {"library": "tensorrt-rtx", "version": "1.7.1.116"},
        here(L4, library="tensorrt-rtx", version="1.7.2.116"),
        None,
    ),
    "RTX, the header for one GPU and the passport for another": (
        rtx(),
        {"library": "tensorrt-rtx", "version": "1.7.1.116", "capabilities": ("12.0",)},
        here(BLACKWELL, library="tensorrt-rtx", version="1.7.1.116"),
        None,
    ),
    "RTX, whose header is damaged": (
        rtx(capabilities=0xFF),
        {"library": "tensorrt-rtx", "version": "1.7.1.116"},
        here(L4, library="tensorrt-rtx", version="1.7.1.116"),
        None,
    ),
}
"""Engine, passport, machine, and the GPU that it loads on."""


@pytest.mark.parametrize(("engine", "passport", "machine", "gpu"), CASES.values(), ids=CASES)
def test_what_is_explained_is_what_a_session_does(
    tmp_path: Path, engine: bytes, passport: dict[str, Any], machine: Here, gpu: int | None
) -> None:
    folder = tmp_path / "net.trt"
    folder.mkdir()
    (folder / ENGINE).write_bytes(engine)
    (folder / GRAPH).write_bytes(b"a graph")
    words: dict[str, Any] = {
        "library": "tensorrt",
        "version": "10.3.0.26",
        "capabilities": ("8.9",),
        "platform": "linux x86_64",
        "engine": sha256_of(folder / ENGINE),
        "bytes": len(engine),
        "graph": sha256_of(folder / GRAPH),
    }
    digest, tensor = sha256_of(folder), TensorSpec("x", (1, 2))
    link = Link(kind=LINK, sha256=digest, options={"passport": msgspec.to_builtins(Passport(**words | passport))})
    signature = Signature((tensor,), (tensor,))
    manifest = Manifest(model="any", format="trt", precision=Precision.FP16, sha256=digest, signature=signature, lineage=(link,))
    write_json(manifest_path(folder), manifest)

    explained = explain(folder, machine)
    found, misfit, remedy = misfit_of(load_artifact(folder), machine)
    assert explained.loads == (not misfit) == (gpu is not None), (explained.reasons, misfit)
    assert misfit == "; ".join(f"{one.cause.value}: {one.found}, and needed is {one.needed}" for one in explained.reasons)
    assert bool(remedy) == bool(misfit)
    if gpu is not None:
        assert (explained.gpu, found.gpu) == (gpu, gpu)
