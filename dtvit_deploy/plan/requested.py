"""What stages of a request are made with: what of it each depends on, as data that a key can be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.devices.local import state
from dtvit_deploy.harness.accuracy import printable
from dtvit_deploy.pipeline.material import are_images
from dtvit_deploy.plan.files import Known
from dtvit_deploy.plan.graph import Cost, Stage
from dtvit_deploy.recipe.tables import Recipe


class Requested:
    """A request, and stages of it.

    Args:
        name: of the request; empty where there is only one.
        number: its place in the plan.
        recipe: what it asks for.
        known: what its files hold, as far as they were read.
        layers: whether inner tensors are compared too.
        farm: address of the scheduler of those that measure; empty where this machine does.
        wait: for devices that somebody else has.
    """

    def __init__(self, name: str, number: int, recipe: Recipe, known: Known, *, layers: bool, farm: str, wait: bool) -> None:
        self._prefix, self._wait = f"{name}/" if name else "", wait
        self._number, self._recipe, self._known, self._layers, self._farm = number, recipe, known, layers, farm

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
        once: bool = False,
        part: bool = False,
        home: bool = False,
    ) -> Stage:
        return Stage(
            name=f"{self._prefix}{name}",
            does=does or name,
            request=self._number,
            asked=asked,
            needs=needs,
            wants=wants,
            cost=cost,
            anew=anew,
            tools=tools,
            after=after,
            once=once,
            files=self._known.named_in(asked, self._recipe),
            part=part,
            home=home,
            wait=self._wait,
        )

    def _model(self) -> dict[str, Any]:
        checkpoint = self._recipe.model.checkpoint
        known = self._file(checkpoint)
        return {"model": plain(self._recipe.model) | {"checkpoint": known}, "preprocessing": plain(self._recipe.preprocessing)}

    def _kept(self) -> dict[str, Any]:
        return {"keep_fp32": self._recipe.export.keep_fp32, "cpu": self._recipe.export.cpu.value}

    def _checks(self) -> dict[str, Any]:
        """What converters check themselves on."""
        return {"checks": self._data(self._recipe.checks)} | self._classes()

    def _calibration(self) -> dict[str, Any]:
        data = self._recipe.data
        found = {"calibration": self._data(data.calibration), "evaluation": self._data(data.evaluation)}
        return found | {"int8": plain(self._recipe.int8), "threads": self._recipe.run.threads} | self._classes()

    def _classes(self) -> dict[str, Any]:
        return {"class_map": self._file(self._recipe.data.class_map)}

    def _file(self, path: Path | None) -> str | None:
        """Name and content."""
        return None if path is None else f"{printable(path.name)} {self._known.digest(path, data=False)}"

    def _data(self, path: Path | None) -> str | None:
        return None if path is None else f"{printable(path.name)} {self._known.digest(path, data=True)}"

    def _images(self, path: Path | None) -> int:
        return self._known.images(path, self._recipe) if path is not None and are_images(path) else 0

    def _processor(self) -> dict[str, Any]:
        """On another kind of processor the last bits are others, so that parts would not fit together."""
        return {"processor": self._farm or state()["processor"]}


def plain(table: msgspec.Struct) -> Any:
    """A table as data."""
    return msgspec.to_builtins(table, enc_hook=str)
