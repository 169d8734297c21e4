"""A typed ONNX graph to a job: a folder that builds the engine on the device itself, since engines run on no other kind of device.

The device needs Python and TensorRT as JetPack ships them. The folder holds the graph, a script (:mod:`.on_device_build`, copied as it
is), everything that the script must know (``job.json``, with the SHA-256 of every other file), and feeds with the answers that the engine
must give to them.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.artifacts.artifact import Manifest, encode_json, sha256_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.tensorrt import on_device_build
from dtvit_deploy.export.tensorrt.on_device_build import CODES, SCHEMA
from dtvit_deploy.export.tensorrt.trtexec import trtexec_text
from dtvit_deploy.formats.engine.passport import GRAPH, LINK
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs, TensorSpec
    from dtvit_deploy.formats.engine.options import BuildOptions

JOB, SCRIPT, README, TRTEXEC = "job.json", "build.py", "README.txt", "trtexec.txt"
MOST_CHANGED = 0.01
"""Share of an output's whole numbers that may differ where no tolerance says how many, as in :mod:`dtvit_deploy.harness.parity`."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What the engine must answer, and how near to it.

    Attributes:
        feeds, expected: one of each for every sample.
        source: what they are, in words.
        tolerance: greatest |Δ| by output name (of whole numbers: the share of a sample's values that may differ).
        least_sqnr: in dB, for outputs that have no tolerance.
        top1: the output that is a row of scores, whose best must be the same.
    """

    feeds: Sequence[Feeds]
    expected: Sequence[Outputs]
    source: str = "unknown feeds"
    tolerance: Mapping[str, float] | None = None
    least_sqnr: float | None = None
    top1: str | None = None

    def limits(self, spec: TensorSpec) -> dict[str, Any]:
        """How one output is judged.

        Raises:
            InputError: nothing says how near it must be, or what says it is no limit.
        """
        tolerance = (self.tolerance or {}).get(spec.name)
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise InputError(
                f"a tolerance of {tolerance:g} judges nothing at the output {spec.name!r}", remedy="give a finite one, from 0 on"
            )
        if self.least_sqnr is not None and not math.isfinite(self.least_sqnr):
            raise InputError(f"an SQNR of {self.least_sqnr:g} dB judges nothing", remedy="give a finite one")
        if tolerance is None and not spec.dtype.startswith("float"):
            tolerance = MOST_CHANGED
        if tolerance is None and self.least_sqnr is None:
            raise InputError(
                f"nothing says how near the device must come to the output {spec.name!r}", remedy="give a tolerance or an SQNR"
            )
        return {"tolerance": tolerance, "least_sqnr": self.least_sqnr if tolerance is None else None, "top1": spec.name == self.top1}


def write_job(folder: Path, graph: Path, manifest: Manifest, options: BuildOptions, golden: Golden, name: str) -> None:
    """Fill a folder, which exists and is empty.

    Args:
        graph: the typed ONNX file.
        manifest: its manifest, which the engine's will extend.
        name: of the engine's folder, without its suffix.

    Raises:
        InputError: the golden samples do not fit the network, or a tensor is of a type that the device cannot be fed.
    """
    signature = manifest.signature
    odd = [spec for spec in (*signature.inputs, *signature.outputs) if spec.dtype not in CODES]
    if odd:
        raise InputError(f"a job cannot feed or read {odd[0]}", remedy=f"give the network inputs and outputs of {', '.join(CODES)}")
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise InputError(f"{name!r} is no name for an engine's folder", remedy="use letters, digits, dots, dashes and underscores")
    if golden.top1 is not None and golden.top1 not in (spec.name for spec in signature.outputs):
        raise InputError(f"no output is called {golden.top1!r}", remedy=f"outputs: {', '.join(spec.name for spec in signature.outputs)}")
    if not golden.feeds or len(golden.feeds) != len(golden.expected):
        raise InputError(f"{len(golden.feeds)} golden feeds and {len(golden.expected)} answers make no pairs", remedy="give one for each")
    for feeds in golden.feeds:
        signature.check(feeds)
    if manifest.sha256 != sha256_of(graph) or manifest.parent(LINK) is not None:
        raise ValueError(f"the manifest is not that of the typed graph {graph.name}")

    shutil.copyfile(graph, folder / GRAPH)
    shutil.copyfile(on_device_build.__file__, folder / SCRIPT)
    (folder / TRTEXEC).write_text(trtexec_text(GRAPH, name, options), encoding="utf-8")
    (folder / README).write_text(_readme(manifest, name, golden, options), encoding="utf-8")
    (folder / "golden").mkdir()
    inputs = [_tensors(folder, f"golden/input.{index}", spec, golden.feeds) for index, spec in enumerate(signature.inputs)]
    outputs = [
        {**_tensors(folder, f"golden/output.{index}", spec, golden.expected), **golden.limits(spec)}
        for index, spec in enumerate(signature.outputs)
    ]
    job = {
        "schema": SCHEMA,
        "name": name,
        "options": options,
        "manifest": manifest,
        "nodes": _nodes(graph),
        "golden": {"samples": len(golden.feeds), "inputs": inputs, "outputs": outputs},
        "files": {file.relative_to(folder).as_posix(): sha256_of(file) for file in sorted(folder.rglob("*")) if file.is_file()},
    }
    (folder / JOB).write_bytes(encode_json(job))
    (folder / f"{JOB}.sha256").write_text(f"{sha256_of(folder / JOB)}  {JOB}\n", encoding="utf-8")  # as sha256sum has it


def _tensors(folder: Path, file: str, spec: TensorSpec, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write one tensor of all samples, one after the other, in little-endian byte order."""
    with (folder / file).open("wb") as out:
        for sample in samples:
            array = sample[spec.name]
            if tuple(array.shape) != spec.shape or array.dtype.name != spec.dtype:
                raise InputError(f"a golden {spec.name} is {array.shape} {array.dtype}, expected {spec}", remedy="evaluate the graph again")
            out.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return {**msgspec.to_builtins(spec), "file": file}


def _nodes(graph: Path) -> list[list[str]]:
    """Name, operator and torch module of every node; a nameless one is called as NVIDIA's parser calls it."""
    import onnx

    from dtvit_deploy.export.onnx.modules import module_of
    from dtvit_deploy.export.tensorrt.engine import parsed_name

    nodes = onnx.load(graph, load_external_data=False).graph.node
    return [[parsed_name(node), node.op_type, module_of(node)] for node in nodes]


def _readme(manifest: Manifest, name: str, golden: Golden, options: BuildOptions) -> str:
    # https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
    jetson = """
Hardware compatibility was asked for. NVIDIA does not offer it on a Jetson: there build.py leaves it out and says so, and the
engine is for this kind of Jetson only.
"""
    return f"""\
{name}
To be built by TensorRT on the device that will run it: {manifest.model} in {manifest.precision}.

1. Copy this whole folder to the device. It needs Python 3 and TensorRT 10 or later as JetPack 6 and 7 ship them
   (sudo apt install python3-libnvinfer), nothing else. JetPack 5 has TensorRT 8.5, which is not supported.
2. There, in this folder:   python3 build.py
   It checks this folder, builds the engine (minutes the first time; the .timing file that it leaves beside the folder
   makes the next build fast), executes {counted(len(golden.feeds), "golden sample")} ({golden.source}) and compares
   the answers. --out FOLDER writes elsewhere, --build-only executes nothing, --profile times every layer too
   (profile.json in the engine's folder); --help has the rest. It ends with 0 (passed), 1 (wrong answers),
   2 (a damaged job or a refused graph) or 3 (something is missing).
3. Beside this folder it writes two things, which belong together:
     {name}.trt        model.engine, graph.onnx, layers.json
     {name}.trt.json   what the engine was built from, by what and for what
   An engine runs on this kind of device and with this release only.
4. Copy both back, next to each other, and check them with images of yours:
     dtvit-deploy verify {name}.trt --data IMAGES
   Where such a GPU is, --trust executes the engine; elsewhere its graph is evaluated in its place, and the report says so.

trtexec.txt has the command lines that build the same engine with NVIDIA's own tool, from graph.onnx in this folder.
Run them in this folder: what they write goes beside it, since a job whose folder has changed is no longer taken.
{jetson if options.hardware_compatible else ""}"""
