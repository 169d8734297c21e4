"""A connection that is lost is made again by the next command, and not before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.devices.reconnecting import Reconnecting
from dtvit_deploy.devices.transport import Finished, LostError, Shell, Transport
from dtvit_deploy.errors import MissingError


class Bench:
    """Connections to this machine, each of which breaks where it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = self.open = 0
        self.breaks = self.away = False

    @contextlib.contextmanager
    def connect(self) -> Iterator[Transport]:
        if self.away:
            raise MissingError("nobody answers", remedy="switch it on")
        self.made += 1
        self.open += 1
        try:
            yield Breaking(self)
        finally:
            self.open -= 1


class Breaking(Shell):
    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.folder)
        self._bench = bench

    def run(self, *what: object, **how: object) -> Finished:
        if self._bench.breaks:
            raise LostError("the cable was pulled")
        return super().run(*what, **how)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_several_commands_take_one_connection_which_is_closed_in_the_end(bench: Bench) -> None:
    with Reconnecting("it", bench.connect) as way:
        assert [way.run(["echo", word]).stdout for word in ("a", "b")] == [b"a\n", b"b\n"]
        with way.following(["echo", "c"]) as stream:
            assert stream.read() == b"c\n"
        assert (bench.made, bench.open) == (1, 1)
    assert bench.open == 0


def test_one_that_is_lost_is_told_closed_and_made_again(bench: Bench) -> None:
    with Reconnecting("it", bench.connect) as way:
        bench.breaks = True
        with pytest.raises(LostError, match="cable"):
            way.run(["true"])
        assert bench.open == 0
        bench.breaks = False
        assert way.run(["echo", "again"]).stdout == b"again\n"
        assert (bench.made, bench.open) == (2, 1)


def test_a_device_that_was_never_there_is_missing_and_one_that_went_away_is_lost(bench: Bench) -> None:
    bench.away = True
    way = Reconnecting("it", bench.connect)
    with pytest.raises(MissingError, match="nobody answers"):
        way.run(["true"])
    bench.away = False
    with way:
        bench.breaks = bench.away = True
        with pytest.raises(LostError, match="cable"):
            way.run(["true"])
        with pytest.raises(LostError, match="nobody answers"):
            way.run(["true"])


def test_what_a_follower_runs_into_is_its_own(bench: Bench) -> None:
    with Reconnecting("it", bench.connect) as way:
        with pytest.raises(KeyError), way.following(["cat"]):
            raise KeyError
        assert bench.open == 1
