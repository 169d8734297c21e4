"""Which runtime an artefact is loaded in: the best that is here, or each of those that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes import registry
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.pairing import looked_into, pairings
from dtvit_deploy.runtimes.registry import RUNTIMES, why_emulated

RUNTIMES_HERE = {
    "engine": FakeRuntime(name="engine", rung=Rung.EXECUTED),
    "emulator": FakeRuntime(name="emulator", rung=Rung.EMULATED, inner=("stem",)),
    "engine-cpu": FakeRuntime(name="engine-cpu", rung=Rung.EXECUTED),
    "phone": FakeRuntime(name="phone", rung=Rung.ON_DEVICE, missing="no phone is connected"),
    "other": FakeRuntime(name="other"),
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats ``net`` and ``own``; the former is loaded by an engine, with units to choose from, and by its emulator."""
    # Not in a context of its own: that ends before a test's own changes are taken back, which would then put these here for ever.
    for name, runtime in RUNTIMES_HERE.items():
        monkeypatch.setitem(RUNTIMES, name, lambda runtime=runtime: runtime)
    monkeypatch.setitem(registry.BY_FORMAT, "net", ("engine", "emulator"))
    monkeypatch.setitem(registry.BY_FORMAT, "own", ("other",))
    monkeypatch.setitem(registry.ALSO, "net", ("engine-cpu", "phone"))


def artifact(name: str) -> Artifact:
    tensor, link = TensorSpec("x", (1, 2)), Link(kind="fake", sha256="0" * 64)
    manifest = Manifest(
        model="any", format=name.rpartition(".")[2], precision=Precision.FP32, sha256="0" * 64,
        signature=Signature((tensor,), (tensor,)), lineage=(link,),
    )  # fmt: skip
    return Artifact(Path(name), manifest)


A, B, OWN = artifact("a.net"), artifact("b.net"), artifact("c.own")


def names(*asked: str, of: tuple[Artifact, ...] = (A, B, OWN)) -> list[str]:
    return [one.name for one in pairings(of, asked)]


def test_nobody_asks_and_each_is_in_the_best_one() -> None:
    assert [(one.name, one.runtime.name) for one in pairings((A, OWN))] == [("a.net", "engine"), ("c.own", "other")]


def test_each_runtime_that_is_asked_for_and_loads_it_is_a_subject_and_who_has_none_keeps_the_best() -> None:
    assert names("engine-cpu", "engine") == ["a.net in engine-cpu", "a.net in engine", "b.net in engine-cpu", "b.net in engine", "c.own"]
    assert names("engine", "engine", of=(A,)) == ["a.net in engine"]


def test_a_name_does_not_depend_on_what_else_is_asked_for() -> None:
    """Two reports are compared by it."""
    assert set(names("engine-cpu", of=(A,))) < set(names("engine-cpu", "emulator", of=(A,)))


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="no runtime is called 'engin'") as caught:
        names("engin")
    assert "engine, emulator" in str(caught.value.remedy)


def test_one_that_loads_none_of_the_artefacts_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"the runtime other loads none of a\.net, b\.net") as caught:
        names("engine", "other", of=(A, B))
    assert caught.value.remedy == "runtimes that load net: engine, emulator, engine-cpu, phone"


def test_one_that_is_not_usable_is_missing_for_its_own_reason() -> None:
    with pytest.raises(MissingError, match=r"a\.net was asked for in phone, which is not usable here: no phone is connected"):
        names("engine", "phone", of=(A,))


def test_who_compares_answers_is_sent_to_the_emulation_and_who_takes_time_is_not() -> None:
    remedies = []
    for timed in (False, True):
        with pytest.raises(MissingError) as caught:
            pairings((A,), ("phone",), timed=timed)
        remedies.append(str(caught.value.remedy))
    assert ["--runtime emulator" in remedy for remedy in remedies] == [True, False]


def test_emulation_can_be_asked_for_where_the_engine_is() -> None:
    (found,) = pairings((A,), ("emulator",))
    assert found.emulated
    assert why_emulated(A) == "emulation was asked for"


@pytest.mark.parametrize(("asked", "answers"), [("engine", "emulator"), ("emulator", "emulator")])
def test_inner_tensors_are_those_of_the_first_runtime_that_offers_some(asked: str, answers: str) -> None:
    (found,) = pairings((A,), (asked,))
    assert looked_into(found).runtime.name == answers


def test_where_none_offers_some_there_is_none_else_to_ask() -> None:
    (found,) = pairings((OWN,))
    assert looked_into(found) is found


def test_a_runtime_that_is_not_here_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "emulator", lambda: FakeRuntime(name="emulator", inner=("stem",), missing="not installed"))
    (found,) = pairings((A,))
    assert looked_into(found) is found
