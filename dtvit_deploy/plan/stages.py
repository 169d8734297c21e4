"""From a request to the graph of stages that carry it out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from dtvit_deploy.artifacts.target import Precision, Target, pairs
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.local import state
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.pipeline.built_there import builders
from dtvit_deploy.pipeline.elsewhere import devices_of, measures_here
from dtvit_deploy.pipeline.material import are_images
from dtvit_deploy.pipeline.tensorrt import chosen
from dtvit_deploy.plan.files import Known
from dtvit_deploy.plan.graph import Cost, Plan, Stage, last
from dtvit_deploy.plan.requested import Requested, plain
from dtvit_deploy.recipe.buildable import require_buildable
from dtvit_deploy.recipe.tables import Recipe

REPORT = "report"
_TRACING = ("torch", "numpy", "onnx", "onnxscript", "onnx-ir", "safetensors", "timm")
_CHECKING = ("numpy", "pillow", "onnx", "onnxruntime")
_CONVERTING = (*_CHECKING, "onnxsim")
_OBSERVING = (*_CHECKING, "torch")
_OF_TARGET = {
    Target.ONNX: (),
    Target.OPENVINO: ("openvino",),
    Target.TRT: ("tensorrt", "tensorrt-rtx"),
    Target.COREML: ("coremltools",),
}
"""What makes a target's artefacts, and answers for them."""
_REPORTING = ("jinja2", "matplotlib")
GPUS = "gpus"
"""Of what a stage was asked, the key of the GPUs that its result depends on (`dtvit_deploy.formats.engine.gpu.identity`)."""
_OBSERVED_FOR_SCORED = 8
"""To observe every tensor on an image takes about as long as to score so many."""


def plan(
    recipes: Sequence[tuple[str, Recipe]],
    *,
    layers: bool = True,
    farm: str = "",
    measured: bool = True,
    there: bool = False,
    wait: bool = True,
    known: Known | None = None,
) -> Plan:
    """Everything that requests ask for: build, measure, report.

    Args:
        recipes: each with a name, which is empty where there is only one.
        layers: whether inner tensors are compared too.
        farm: address of the scheduler of those that measure; empty where this machine does.
        measured: whether anything is measured and reported, and not only built.
        there: whether requests' devices build the engines of TensorRT's jobs.
        wait: for devices that somebody else has.
        known: what the requests' files hold, where some of them were read already.

    Raises:
        InputError: one of them cannot be built at all, or there is no device of a name.
    """
    known = Known() if known is None else known
    found: list[Stage] = []
    for number, (name, recipe) in enumerate(recipes):
        require_buildable(recipe)
        stages = _Stages(name, number, recipe, known, layers=layers, farm=farm, wait=wait)
        found += stages.every(measured=measured)
        found += stages.building_there() if there else []
    return Plan(found)


class _Stages(Requested):
    """The stages of one request."""

    def every(self, *, measured: bool) -> list[Stage]:
        recipe, prefix = self._recipe, self._prefix
        is_code = ":" in (recipe.model.name or "")
        found = [self._stage("trace", asked=self._model(), tools=_TRACING, anew=is_code)]
        trace = (f"{prefix}trace",)
        asked = {"parity": plain(recipe.parity)} | self._calibration()
        found.append(self._stage("checked", asked=asked, needs=trace, tools=_CHECKING))
        before = (*trace, f"{prefix}checked")
        table: tuple[str, ...] = ()
        if Precision.INT8 in recipe.export.precisions and recipe.int8.quantizer != "nncf":
            found += self._observing(before)
            table = (f"{prefix}ranges",)
        wanted = pairs(recipe.export.targets, recipe.export.precisions)
        found += self._shared(trace, wanted)
        shared = {one.does: one.name for one in found if one.does in ("simplified", "float16")}
        builds = [self._build(target, precision, before, table, shared) for target, precision in wanted]
        figures = self._measuring(trace, tuple(one.name for one in builds), table) if measured else []
        return [*found, *builds, *figures]

    def _observing(self, before: tuple[str, ...]) -> list[Stage]:
        recipe = self._recipe
        asked = self._calibration() | {"ranges": self._file(recipe.int8.ranges)}
        images = 0 if recipe.int8.ranges is not None else min(self._images(recipe.data.calibration), recipe.int8.samples)
        many = images // max(1, recipe.run.shard // _OBSERVED_FOR_SCORED)
        if many < 2:
            return [self._stage("ranges", asked=asked, needs=before, tools=_OBSERVING)]
        of_part = asked | self._processor() | {"evaluation": None}  # whose images were looked through before
        parts = self._parts("ranges", "observed", many, of_part, needs=before, tools=_OBSERVING)
        needs = (*before, *(one.name for one in parts))
        return [*parts, self._stage("ranges", "gathered", asked=asked | {"parts": many}, needs=needs, tools=_OBSERVING, home=True)]

    def _parts(self, name: str, does: str, many: int, asked: dict[str, Any], **what: Any) -> list[Stage]:
        """Stages that each do a stretch of the samples."""
        return [
            self._stage(f"{name} {number + 1} of {many}", does, asked=asked | {"part": [number, many]}, part=True, **what)
            for number in range(many)
        ]

    def _shared(self, trace: tuple[str, ...], wanted: list[tuple[Target, Precision]]) -> list[Stage]:
        """Graphs that several builds are made from. They only warm the cache: where one fails, the build says why, or need not have it."""
        found = []
        if any(target is not Target.COREML for target, _ in wanted):
            found.append(self._stage("simplified", asked=self._checks(), needs=trace, tools=_CONVERTING))
        if any(self._takes_halves(*pair) for pair in wanted):
            after = tuple(one.name for one in found)
            asked = self._checks() | self._kept()
            found.append(self._stage("float16", asked=asked, needs=trace, after=after, tools=_CONVERTING))
        return found

    def _build(
        self, target: Target, precision: Precision, before: tuple[str, ...], table: tuple[str, ...], shared: dict[str, str]
    ) -> Stage:
        recipe = self._recipe
        asked = {"target": target.value, "precision": precision.value} | self._checks() | self._kept()
        if target is Target.TRT:
            asked |= {"tensorrt": plain(recipe.tensorrt), "compilers": _compilers(recipe), GPUS: list(gpu.identity())}
        if target is Target.COREML:
            asked |= {"coreml": plain(recipe.coreml)}
        is_int8 = precision is Precision.INT8
        if is_int8 or target is Target.TRT:  # a search, and what a device checks itself with, look at them
            asked |= {"class_scores": recipe.parity.class_scores}
        if is_int8:
            asked |= self._calibration()
        searches = is_int8 and recipe.int8.search and recipe.data.calibration is not None  # which measures how long modules take
        return self._stage(
            f"{target} {precision}",
            "build",
            asked=asked,
            needs=(*before, *(table if is_int8 else ())),
            after=tuple(name for does, name in shared.items() if does != "float16" or self._takes_halves(target, precision)),
            cost=Cost(memory=3 << 30, exclusive=searches, brief=not is_int8 and target in (Target.ONNX, Target.OPENVINO)),
            tools=(*_CONVERTING, *_OF_TARGET[target], *self._also(target, is_int8=is_int8)),
        )

    def building_there(self) -> list[Stage]:
        """TensorRT's jobs, built by devices. What came of it is known by what came; whether it has to be built, the device is asked."""
        return [
            self._stage(
                f"{target} {precision} on {label}",
                "built_there",
                asked={"device": _about(device), "label": label},
                needs=(f"{self._prefix}{target} {precision}",),
                cost=Cost(memory=0, device=str(device.address), idle=True),
                anew=True,
                home=True,
            )
            for target, precision in pairs(self._recipe.export.targets, self._recipe.export.precisions)
            for label, device in builders(self._recipe).items()
            if target is Target.TRT
        ]

    def _also(self, target: Target, *, is_int8: bool) -> tuple[str, ...]:
        """What else builds: NNCF, or PyTorch, which Core ML is translated from, and which the reference of a search runs in."""
        if is_int8 and self._recipe.int8.quantizer == "nncf":
            return ("nncf",)
        return ("torch",) if is_int8 or target is Target.COREML or target is Target.TRT else ()

    def _measuring(self, trace: tuple[str, ...], builds: tuple[str, ...], table: tuple[str, ...]) -> list[Stage]:
        recipe = self._recipe
        how = {
            name: value for name, value in plain(recipe.run).items() if name not in ("shard", "inventory")
        }  # however it is cut, and devices are found
        where = {"machine": self._farm or [platform.node(), state()["processor"], *gpu.identity()], "run": how}
        where |= {"cpu": recipe.export.cpu.value}
        fed = {"evaluation": self._data(recipe.data.evaluation), "cuda_graph": recipe.profile.cuda_graph} | self._classes() | where
        fed |= {"class_scores": recipe.parity.class_scores}
        targets = Target if recipe.run.runtimes else [target for target, _ in pairs(recipe.export.targets, recipe.export.precisions)]
        tools = (*_CHECKING, "torch", *dict.fromkeys(name for one in targets for name in _OF_TARGET[one]))
        taking: dict[str, Any] = {"needs": trace, "wants": builds, "tools": tools}
        found, here = list[Stage](), measures_here(recipe)
        scored = recipe.data.evaluation is not None and are_images(recipe.data.evaluation)
        if here and scored:
            found += self._scoring(fed, taking)
        timed = fed | {"profile": plain(recipe.profile)}
        compared = {"parity": plain(recipe.parity), "samples": recipe.data.samples, "layers": self._layers}
        agreement = {precision.value: recipe.gates.of(precision).agreement for precision in Precision}
        judged = compared | {"agreement": agreement}
        if here:
            found.append(self._stage("parity", asked=fed | judged, **taking))
            found.append(self._stage("latency", asked=timed, cost=Cost(exclusive=True), once=True, **taking))
        taken = tuple(one.name for one in found if not one.part)
        there = {device.name: self._there(device, fed | judged | {"accuracy": scored}, taking) for device in devices_of(recipe)}
        figures = {name: [one.name for one in stages if one.wants] for name, stages in there.items()}
        asked = timed | compared | {"gates": plain(recipe.gates), "here": here}
        asked |= {"devices": {name: list(map(last, stages)) for name, stages in figures.items()}}
        wants = (*builds, *table, *(name for stages in figures.values() for name in stages))
        taking |= {"needs": (*trace, *taken), "wants": wants, "tools": (*tools, *_REPORTING)}
        return [*found, *(one for stages in there.values() for one in stages), self._stage(REPORT, asked=asked, **taking)]

    def _there(self, device: Device, answered: dict[str, Any], taking: dict[str, Any]) -> list[Stage]:
        """The stages of one device. To compare its answers takes this machine's processor, and to take its times takes the feed alone."""
        recipe, name = self._recipe, device.name.replace("//", "")  # a slash ends the name of a request
        about = {"device": _about(device)}
        cost = Cost(device=str(device.address))
        probe = self._stage(f"{name}: asked", "asked", asked=about, cost=cost, anew=True, home=True)
        taking = taking | {"needs": (*taking["needs"], probe.name), "cost": cost, "home": True}
        machine = {"machine": [platform.node(), state()["processor"]]}  # whoever asked does it, also on a farm
        timed = about | {key: answered[key] for key in ("evaluation", "class_map", "run")} | {"profile": plain(recipe.profile)}
        return [
            probe,
            self._stage(f"{name}: answers", "answers", asked=answered | machine | about, **taking),
            self._stage(f"{name}: latency", "timed", asked=timed, once=True, **(taking | {"tools": _CHECKING})),
        ]

    def _scoring(self, fed: dict[str, Any], taking: dict[str, Any]) -> list[Stage]:
        many = self._images(self._recipe.data.evaluation) // self._recipe.run.shard
        if many < 2:
            return [self._stage("accuracy", asked=fed, **taking)]
        parts = self._parts("accuracy", "scores", many, fed | self._processor(), **taking)
        needs = (*taking["needs"], *(one.name for one in parts))
        return [*parts, self._stage("accuracy", "scored", asked=fed | {"parts": many}, home=True, **(taking | {"needs": needs}))]

    def _takes_halves(self, target: Target, precision: Precision) -> bool:
        return precision is Precision.FP16 or (precision is Precision.INT8 and target in (Target.TRT, Target.COREML))


def _compilers(recipe: Recipe) -> list[list[str]]:
    """TensorRT's flavours with ``auto`` resolved, and the libraries that compile."""
    return [[str(one.flavour), *([one.library.name, one.library.version] if one.library else [])] for one in chosen(recipe.tensorrt)]


def _about(device: Device) -> dict[str, Any]:
    """What tells a device that is reached from any other."""
    assert device.address is not None
    return {"name": device.name, "address": list(device.address), "python": device.python}
