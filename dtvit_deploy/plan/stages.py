"""From a request to the graph of stages that carry it out."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.target import Precision, Target, pairs
from dtvit_deploy.calibration.folders import entries, walk
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.devices.local import state
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.pipeline.material import are_images
from dtvit_deploy.pipeline.tensorrt import chosen
from dtvit_deploy.plan.graph import Cost, Plan, Stage
from dtvit_deploy.recipe.buildable import require_buildable
from dtvit_deploy.recipe.tables import Recipe

REPORT = "report"
_TRACING = ("torch", "numpy", "onnx", "onnxscript", "onnx-ir", "safetensors", "timm")
_CHECKING = ("numpy", "pillow", "onnx", "onnxruntime")
_BUILDING = {
    Target.ONNX: ("onnxsim",),
    Target.OPENVINO: ("onnxsim", "openvino", "nncf"),
    Target.TRT: ("onnxsim", "tensorrt", "tensorrt-rtx", "torch"),
    Target.COREML: ("onnxsim", "coremltools", "torch"),
}
_MEASURING = (*_CHECKING, "torch", "openvino", "coremltools", "tensorrt", "tensorrt-rtx")
_REPORTING = ("jinja2", "matplotlib")


def plan(recipes: Sequence[tuple[str, Recipe]], *, layers: bool = True) -> Plan:
    """Everything that requests ask for: build, measure, report.

    Args:
        recipes: each with a name, which is empty where there is only one.
        layers: whether inner tensors are compared too.

    Raises:
        InputError: one of them cannot be built at all.
    """
    digests: dict[Path, str] = {}
    found: list[Stage] = []
    for number, (name, recipe) in enumerate(recipes):
        require_buildable(recipe)
        found += _Stages(name, number, recipe, digests, layers=layers).every()
    return Plan(found)


class _Stages:
    """The stages of one request."""

    def __init__(self, name: str, number: int, recipe: Recipe, digests: dict[Path, str], *, layers: bool) -> None:
        self._prefix = f"{name}/" if name else ""
        self._number, self._recipe, self._digests, self._layers = number, recipe, digests, layers

    def every(self) -> list[Stage]:
        recipe, prefix = self._recipe, self._prefix
        found = [self._stage("trace", asked=self._model(), tools=_TRACING, anew=":" in (recipe.model.name or ""))]
        trace = (f"{prefix}trace",)
        asked = {"parity": _plain(recipe.parity)} | self._calibration()
        found.append(self._stage("checked", asked=asked, needs=trace, tools=_CHECKING))
        before = (*trace, f"{prefix}checked")
        table: tuple[str, ...] = ()
        if Precision.INT8 in recipe.export.precisions and recipe.int8.quantizer != "nncf":
            asked = self._calibration() | {"ranges": self._file(recipe.int8.ranges)}
            found.append(self._stage("ranges", asked=asked, needs=before, tools=(*_CHECKING, "torch")))
            table = (f"{prefix}ranges",)
        wanted = pairs(recipe.export.targets, recipe.export.precisions)
        found += self._shared(trace, wanted)
        shared = {one.does: one.name for one in found if one.does in ("simplified", "float16")}
        builds = [self._build(target, precision, before, table, shared) for target, precision in wanted]
        return [*found, *builds, *self._measuring(trace, tuple(one.name for one in builds), table)]

    def _shared(self, trace: tuple[str, ...], wanted: list[tuple[Target, Precision]]) -> list[Stage]:
        """Graphs that several builds are made from. They only warm the cache: where one fails, the build says why, or need not have it."""
        found = []
        if any(target is not Target.COREML for target, _ in wanted):
            found.append(self._stage("simplified", asked=self._checks(), needs=trace, tools=(*_CHECKING, "onnxsim")))
        if any(self._takes_halves(*pair) for pair in wanted):
            after = tuple(one.name for one in found)
            asked = self._checks() | self._kept()
            found.append(self._stage("float16", asked=asked, needs=trace, after=after, tools=(*_CHECKING, "onnxsim")))
        return found

    def _build(
        self, target: Target, precision: Precision, before: tuple[str, ...], table: tuple[str, ...], shared: dict[str, str]
    ) -> Stage:
        recipe = self._recipe
        asked = {"target": target.value, "precision": precision.value} | self._checks() | self._kept()
        if target is Target.TRT:
            asked |= {"tensorrt": _plain(recipe.tensorrt), "compilers": _compilers(recipe), "gpu": _gpus()}
        if target is Target.COREML:
            asked |= {"coreml": _plain(recipe.coreml)}
        is_int8 = precision is Precision.INT8
        if is_int8:
            asked |= self._calibration()
        searches = is_int8 and recipe.int8.search and recipe.data.calibration is not None  # which measures how long modules take
        return self._stage(
            f"{target} {precision}",
            "build",
            asked=asked,
            needs=(*before, *(table if is_int8 else ())),
            after=tuple(name for does, name in shared.items() if does != "float16" or self._takes_halves(target, precision)),
            cost=Cost(memory=3 << 30, exclusive=searches),
            tools=(*_CHECKING, *_BUILDING[target]),
        )

    def _measuring(self, trace: tuple[str, ...], builds: tuple[str, ...], table: tuple[str, ...]) -> list[Stage]:
        recipe = self._recipe
        where = {"machine": [platform.node(), state()["processor"], _gpus()], "run": _plain(recipe.run), "cpu": recipe.export.cpu.value}
        fed = {"evaluation": self._data(recipe.data.evaluation), "cuda_graph": recipe.profile.cuda_graph} | self._classes() | where
        found = []
        if recipe.data.evaluation is not None and are_images(recipe.data.evaluation):
            found.append(self._stage("accuracy", asked=fed, needs=trace, wants=builds, tools=_MEASURING))
        timed = fed | {"profile": _plain(recipe.profile)}
        compared = {"parity": _plain(recipe.parity), "samples": recipe.data.samples, "layers": self._layers}
        agreement = {precision.value: recipe.gates.of(precision).agreement for precision in Precision}
        asked = fed | compared | {"agreement": agreement}
        found.append(self._stage("parity", asked=asked, needs=trace, wants=builds, tools=_MEASURING))
        found.append(self._stage("latency", asked=timed, needs=trace, wants=builds, cost=Cost(exclusive=True), tools=_MEASURING))
        taken = tuple(one.name for one in found)
        asked = timed | compared | {"gates": _plain(recipe.gates)}
        tools = (*_MEASURING, *_REPORTING)
        return [*found, self._stage(REPORT, asked=asked, needs=(*trace, *taken), wants=(*builds, *table), tools=tools)]

    def _stage(
        self,
        name: str,
        does: str = "",
        *,
        asked: dict[str, Any],
        needs: tuple[str, ...] = (),
        wants: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        cost: Cost = Cost(),  # noqa: B008 it is frozen
        tools: tuple[str, ...] = (),
        anew: bool = False,
    ) -> Stage:
        return Stage(f"{self._prefix}{name}", does or name, self._number, asked, needs, wants, cost, anew, tools, after)

    def _takes_halves(self, target: Target, precision: Precision) -> bool:
        return precision is Precision.FP16 or (precision is Precision.INT8 and target in (Target.TRT, Target.COREML))

    def _model(self) -> dict[str, Any]:
        checkpoint = self._recipe.model.checkpoint
        known = self._file(checkpoint)
        return {"model": _plain(self._recipe.model) | {"checkpoint": known}, "preprocessing": _plain(self._recipe.preprocessing)}

    def _kept(self) -> dict[str, Any]:
        return {"keep_fp32": self._recipe.export.keep_fp32, "cpu": self._recipe.export.cpu.value}

    def _checks(self) -> dict[str, Any]:
        """What converters check themselves on."""
        return {"checks": self._data(self._recipe.checks)} | self._classes()

    def _calibration(self) -> dict[str, Any]:
        data = self._recipe.data
        found = {"calibration": self._data(data.calibration), "evaluation": self._data(data.evaluation)}
        return found | {"int8": _plain(self._recipe.int8), "threads": self._recipe.run.threads} | self._classes()

    def _classes(self) -> dict[str, Any]:
        return {"class_map": self._file(self._recipe.data.class_map)}

    def _file(self, path: Path | None) -> str | None:
        return None if path is None else self._known(path, sha256_of)

    def _data(self, path: Path | None) -> str | None:
        return None if path is None else self._known(path, _images if are_images(path) else sha256_of)

    def _known(self, path: Path, digest: Callable[[Path], str]) -> str:
        """Name and content. What cannot be told is as nothing else: the stage that takes it is done, and says what is wrong."""
        if path not in self._digests:
            try:
                self._digests[path] = f"{path.name} {digest(path)}"
            except (InputError, OSError):
                self._digests[path] = f"{path.name} {secrets.token_hex(16)}"
        return self._digests[path]


def _images(path: Path) -> str:
    """SHA-256 over names and contents of a folder's files, or of a list and of the images that it names: samples are drawn by both."""
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(sha256_of(path).encode())
        files = [image.path for image in open_images(path).images]
    else:
        folders, here = entries(str(path))  # as images are looked for, links followed
        files = sorted(Path(name) for name in (*here, *(name for folder in folders for name in walk(folder, str(path)))))
        if not files:
            raise InputError(f"{path} is empty")
    for file in files:
        digest.update(f"{os.path.relpath(file, path)} {sha256_of(file)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _compilers(recipe: Recipe) -> list[list[str]]:
    """TensorRT's flavours with ``auto`` resolved, and the libraries that compile."""
    return [[str(one.flavour), *([one.library.name, one.library.version] if one.library else [])] for one in chosen(recipe.tensorrt)]


def _gpus() -> list[str]:
    """What of this machine's GPUs an engine, and a figure, depends on."""
    found = gpu.gpus()
    return [*(gpu.device_name(one) for one in found.found), found.cuda, *((gpu.driver_version(), gpu.jetpack()) if found.found else ())]


def _plain(table: msgspec.Struct) -> Any:
    return msgspec.to_builtins(table, enc_hook=str)
