"""A run's stages on devices: which there are, what they depend on, what runs beside them; planning reaches no device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.inventory import FILE
from dtvit_deploy.devices.probe import Facts
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.execute import AGAIN, states
from dtvit_deploy.plan.graph import Cost, Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of
from dtvit_deploy.plan.pool import Processes
from dtvit_deploy.plan.stages import plan
from dtvit_deploy.plan.work import PASSING
from dtvit_deploy.recipe.judging import Gates, Limits, Profile
from dtvit_deploy.recipe.tables import Device, Recipe

HERE, PI, ORIN = Device(name="local"), Device(name="pi", address="ssh://me@pi"), Device(name="ssh://orin:2222")


def recipe(*devices: Device, **more: Any) -> Recipe:
    return Recipe(model=Model(name="dualtoken-vit-t"), device=devices, **more)


def measuring(graph: Plan) -> list[str]:
    return list(graph.stages)[list(graph.stages).index("onnx fp32") + 1 :]


def test_each_device_is_asked_and_measured_on_in_two_stages_which_the_report_wants() -> None:
    graph = plan([("", recipe(HERE, PI, ORIN))])
    there = ["pi: asked", "pi: answers", "pi: latency", "ssh:orin:2222: asked", "ssh:orin:2222: answers", "ssh:orin:2222: latency"]
    assert measuring(graph) == ["parity", "latency", *there, "report"]
    report = graph.stages["report"]
    assert report.needs == ("trace", "parity", "latency")
    assert report.wants == ("onnx fp32", *(name for name in there if "asked" not in name))
    assert graph.stages["pi: asked"].anew
    assert all(graph.stages[name].home and graph.stages[name].cost.device for name in there)
    assert graph.stages["pi: latency"].needs == ("trace", "pi: asked")
    assert graph.stages["pi: latency"].once
    assert not graph.stages["pi: latency"].cost.exclusive


def test_without_this_machine_among_them_nothing_is_measured_here() -> None:
    graph = plan([("", recipe(PI))])
    assert measuring(graph) == ["pi: asked", "pi: answers", "pi: latency", "report"]
    assert graph.stages["report"].needs == ("trace",)


def test_an_export_measures_nowhere_and_asks_for_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unknown = recipe(Device(name="nobody"))
    assert len(plan([("", unknown)], measured=False)) == 4
    with pytest.raises(InputError, match="there is no device 'nobody'"):
        plan([("", unknown)])


def asked(graph: Plan) -> dict[str, Any]:
    return {name: stage.asked for name, stage in graph.stages.items() if ":" in name}


def test_what_a_devices_figures_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = asked(plan([("", recipe(PI))]))
    assert asked(plan([("", recipe(PI, gates=Gates(fp32=Limits(p50_ms=1.0, max_abs=1.0))))])) == base
    assert {name: base[name] for name in base} == {name: one for name, one in asked(plan([("", recipe(ORIN, PI))])).items() if name in base}
    told = msgspec.structs.replace(PI, notes="moved to the window", tags=("boards",))
    assert asked(plan([("", recipe(told))])) == base
    longer = asked(plan([("", recipe(PI, profile=Profile(seconds=9.0)))]))
    assert [name for name in base if longer[name] != base[name]] == ["pi: latency"]
    stricter = asked(plan([("", recipe(PI, gates=Gates(fp32=Limits(agreement=0.5))))]))
    assert [name for name in base if stricter[name] != base[name]] == ["pi: answers"]
    other = asked(plan([("", recipe(msgspec.structs.replace(PI, python="python3.12")))]))
    assert all(other[name] != base[name] for name in base)
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text('[[device]]\nname = "pi"\naddress = "ssh://me@pi"\n')
    assert asked(plan([("", recipe(Device(name="pi")))])) == base  # wherever it is defined


def test_local_figures_do_not_depend_on_devices() -> None:
    alone, beside = plan([("", recipe())]), plan([("", recipe(HERE, PI))])
    assert {name: alone.stages[name].asked for name in ("parity", "latency")} == {
        name: beside.stages[name].asked for name in ("parity", "latency")
    }


def test_what_is_asked_to_wait_for_nobody_depends_on_the_same() -> None:
    patient, hasty = plan([("", recipe(PI))]), plan([("", recipe(PI))], wait=False)
    assert asked(patient) == asked(hasty)
    assert patient.stages["pi: latency"].wait
    assert not hasty.stages["pi: latency"].wait


def test_several_models_ask_a_device_once() -> None:
    graph = plan([("a", recipe(PI)), ("b", recipe(PI))])
    first, second = (graph.stages[f"{name}/pi: asked"] for name in "ab")
    assert (kind_of(first), key_of(first, {}, {})) == (kind_of(second), key_of(second, {}, {}))


@pytest.mark.parametrize("address", ["ssh://me@[fd00::7]:22", "ssh://[fe80::1%25eth0]", "ssh://orin"])
def test_stages_are_found_by_the_name_of_any_address(address: str) -> None:
    graph = plan([("net", recipe(Device(name=address)))])
    name = f"{address.replace('%25', '%').replace('//', '')}: latency"
    assert graph.matching(name) == {f"net/{name}"}
    assert graph.matching("*: latency") == {f"net/{name}"}


def stage(name: str, device: str = "", *, exclusive: bool = False) -> Stage:
    return Stage(name, "trace", 0, cost=Cost(memory=1, exclusive=exclusive, device=device))


def test_stages_of_several_devices_run_side_by_side_whatever_the_cores_and_one_on_each() -> None:
    pool, here = Processes(2, Silent()), [stage("one"), stage("two")]
    assert not pool.room(stage("three"), here)
    assert pool.room(stage("pi", "pi"), here)
    assert pool.room(stage("orin", "orin"), [*here, stage("pi", "pi")])
    assert not pool.room(stage("more", "pi"), [stage("pi", "pi")])
    assert pool.room(stage("two"), [stage("one"), *(stage(name, name) for name in "abc")])


def test_nothing_runs_beside_a_measurement_of_time_here() -> None:
    pool = Processes(8, Silent())
    assert not pool.room(stage("latency", exclusive=True), [stage("pi", "pi")])
    assert not pool.room(stage("pi", "pi"), [stage("latency", exclusive=True)])


def facts(**more: Any) -> Facts:
    told: dict[str, Any] = {"system": "Linux", "release": "6.1", "architecture": "aarch64", "cache": "/c", "writable": True, "clock": 0.0}
    return Facts(**told | more)


def test_figures_are_kept_for_what_stays_of_a_device_and_not_for_the_moment() -> None:
    base = facts(packages={"numpy": "2"}, python="/usr/bin/python3", python_version=(3, 10, 2)).lasting
    same = {"clock": 9.0, "memory": 1, "disk": 2, "holder": "somebody", "user": "me"}
    assert facts(packages={"numpy": "2"}, python="/usr/bin/python3", python_version=(3, 10, 2), **same).lasting == base
    for change in (
        {"packages": {"numpy": "2.1"}},
        {"packages": {"numpy": "2", "onnxruntime": "1"}},
        {"python_version": (3, 10, 3)},
        {"release": "6.2"},
        {"power_mode": "15W"},
        {"emulator": "qemu-aarch64"},
        {"jetpack": "6.1"},
    ):
        told = {"packages": {"numpy": "2"}, "python": "/usr/bin/python3", "python_version": (3, 10, 2)} | change
        assert facts(**told).lasting != base


def test_a_latency_that_was_invalid_is_said_to_be_taken_again(tmp_path: Path) -> None:
    cache, graph = (
        Cache(tmp_path / "cache"),
        Plan([Stage("latency", "latency", 0, {"a": 1}), Stage("report", "report", 0, needs=("latency",))]),
    )
    assert states(graph, cache) == {"latency": "to do", "report": "after"}
    latency = graph.stages["latency"]
    cache.entry(kind_of(latency), key_of(latency, {}, {}), lambda part: (part / PASSING).touch())
    assert states(graph, cache) == {"latency": AGAIN, "report": "after"}
