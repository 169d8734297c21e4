"""The stand-ins have nothing that coremltools does not use, and take what it gives: its source says so where the real part is compiled,
its signatures elsewhere.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.process.quiet import quiet

with quiet():
    from coremltools.models import compute_device, compute_plan, model, utils
    from coremltools.models.ml_program.experimental import remote_device

OWNERS = {"_MLModelProxy": model, "_MLComputePlanProxy": compute_plan}
"""The module of coremltools that wraps each compiled class of which methods are called."""
DEVICECTL = ("install_and_launch_app", "send_file_to_app", "receive_file_from_app")


def names_of(function: Callable[..., Any]) -> list[tuple[str, Any, bool]]:
    return [(one.name, one.kind, one.default is one.empty) for one in inspect.signature(function).parameters.values()]


REAL = {name: names_of(getattr(remote_device._DeviceCtl, name)) for name in DEVICECTL}
REAL["build"] = names_of(remote_device._ModelRunnerAppBuilder.build)
"""Parameters as coremltools has them, before any test puts a stand-in there."""


class TestTheStandIn:
    @pytest.mark.parametrize("name", OWNERS)
    def test_each_method_is_one_that_coremltools_calls_with_as_many_arguments(self, mac: Any, name: str) -> None:
        stand_in = mac.native[name]
        trees = [ast.parse(inspect.getsource(module)) for module in (OWNERS[name], utils, compute_plan)]
        calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
        used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_proxy(node.value, name)}
        checked = 0
        for attribute in [one for one in vars(stand_in) if not one.startswith("_")]:
            if attribute in ("refuses", "newest", "asked", "units"):  # how a test tells it what to do
                continue
            assert attribute in used, f"coremltools asks no {name} for {attribute}"
            for call in calls:
                if isinstance(call.func, ast.Attribute) and call.func.attr == attribute and is_proxy(call.func.value, name):
                    bind(getattr(stand_in, attribute), call, bound=isinstance(vars(stand_in)[attribute], staticmethod))
                    checked += 1
        assert checked >= 2

    def test_it_is_made_as_coremltools_makes_it(self, mac: Any) -> None:
        calls = [node for node in ast.walk(ast.parse(inspect.getsource(model))) if isinstance(node, ast.Call)]
        (made,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_MLModelProxy"]
        bind(mac.proxy.__init__, made, bound=False)

    def test_the_compiled_part_has_these_classes(self, mac: Any) -> None:
        names = {alias.name for module in (model, compute_plan, compute_device, utils) for alias in imported(module)}
        assert set(mac.native) <= names

    @pytest.mark.parametrize("method", DEVICECTL)
    def test_the_phone_takes_what_devicectl_takes(self, phone: Any, method: str) -> None:
        assert names_of(getattr(phone, method)) == REAL[method]

    def test_the_builder_takes_what_the_real_one_takes(self, phone: Any) -> None:
        assert names_of(phone.build) == REAL["build"]

    def test_it_has_no_method_of_devicectl_that_devicectl_lacks(self, phone: Any) -> None:
        given = {name for name, value in vars(type(phone)).items() if inspect.isfunction(value) and not name.startswith("_")}
        assert given - {"build"} <= set(dir(remote_device._DeviceCtl))


def is_proxy(node: ast.expr, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id in (name, "proxy")) or (isinstance(node, ast.Attribute) and node.attr == "__proxy__")


def imported(module: types.ModuleType) -> list[ast.alias]:
    found = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
    return [alias for node in found if node.module == "libcoremlpython" for alias in node.names]


def bind(function: Callable[..., Any], call: ast.Call, *, bound: bool) -> None:
    given = [None] * len(call.args) if bound else [None, *call.args]
    inspect.signature(function).bind(*given, **{str(one.arg): None for one in call.keywords})
