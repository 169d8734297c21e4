"""Processes that do a plan's stages: what they raise comes through, and one that is killed, at work or idle, is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.graph import Cost, Stage
from dtvit_deploy.plan.performing import Order, as_data
from dtvit_deploy.plan.pool import Over, Processes
from dtvit_deploy.plan.server import EndedError
from dtvit_deploy.recipe.tables import Recipe


@pytest.fixture
def pool() -> Iterator[Processes]:
    with Processes(2, Silent()) as processes:
        yield processes


def order(cache: Path, model: str, name: str = "trace") -> Order:
    recipe = Recipe(model=Model(name=model))
    return Order(stage=Stage(name, "trace", 0), recipe=as_data(recipe), given={}, missing={}, cache=str(cache))


def children() -> list[int]:
    """Processes of this one that do stages."""
    found = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "plan.worker import serve" in line]


def done(pool: Processes, what: Order) -> Over:
    pool.begin(what)
    return pool.next()


def test_what_a_stage_raises_comes_through_with_its_way_out(pool: Processes, tmp_path: Path) -> None:
    over = done(pool, order(tmp_path, "no-such-network"))
    assert isinstance(over.error, InputError)
    assert "no-such-network" in str(over.error)
    assert over.error.remedy
    assert over.result is None


def test_a_result_that_was_removed_from_the_cache_meanwhile_is_told(pool: Processes, tmp_path: Path) -> None:
    gone = tmp_path / "stage-trace-0"
    given = {"trace": str(gone)}
    over = done(pool, msgspec.structs.replace(order(tmp_path, "t"), stage=Stage("checked", "checked", 0, needs=("trace",)), given=given))
    assert isinstance(over.error, InputError)
    assert str(over.error).startswith(f"{gone} was removed from the cache")


def test_one_that_is_killed_while_it_idles_is_replaced(pool: Processes, tmp_path: Path) -> None:
    done(pool, order(tmp_path, "no-such-network"))
    (first,) = children()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert isinstance(done(pool, order(tmp_path, "no-such-network")).error, InputError)
    assert first not in children()


def test_one_that_is_killed_at_work_is_told_by_its_stage_and_the_next_is_another(pool: Processes, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef make():\n    time.sleep(600)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        pool.begin(order(tmp_path / "cache", "slow:make", "mine/trace"))
    until = time.monotonic() + 60
    while not children():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(children()[0], signal.SIGKILL)
    over = pool.next()
    assert isinstance(over.error, EndedError)
    assert "the process that did mine/trace has ended (signal 9)" in str(over.error)
    assert isinstance(done(pool, order(tmp_path, "no-such-network")).error, InputError)


def test_a_network_that_asks_something_is_answered_by_nobody(pool: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not read the orders that follow."""
    (tmp_path / "asks.py").write_text("def make():\n    return input('Do you trust this repository? ')\n")
    monkeypatch.syspath_prepend(tmp_path)
    over = done(pool, order(tmp_path / "cache", "asks:make"))
    assert "EOF" in str(over.error)
    assert isinstance(done(pool, order(tmp_path, "no-such-network")).error, InputError)


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(pool: Processes, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    over = done(pool, order(tmp_path / "cache", "no-such-network"))
    assert over.error is not None
    assert "cache" in str(over.error)
    assert not isinstance(over.error, RuntimeError)


def test_there_is_room_for_as_many_as_cores_and_memory_hold_and_always_for_one(pool: Processes) -> None:
    small, large = (Stage(name, "trace", 0, cost=Cost(memory=memory)) for name, memory in (("small", 1), ("large", 1 << 60)))
    assert pool.room(large, [])
    assert not pool.room(large, [small])
    assert pool.room(small, [small])
    assert not pool.room(small, [small, small])
