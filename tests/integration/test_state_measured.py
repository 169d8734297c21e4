"""A latency that is taken here has the state of this machine with it, and an inference its energy where there is a rail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import captured
from dtvit_deploy.devices.state.watcher import Watch, watching
from dtvit_deploy.harness.latency import Measurement, MeasureOptions
from dtvit_deploy.harness.state.blocks import Block, take_blocks
from dtvit_deploy.pipeline import timing
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.runtimes.pairing import pairings
from judged import judged, picture

OPTIONS = MeasureOptions(min_seconds=0.2, energy_seconds=0.9)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    made = judged(network, picture(32), tmp_path_factory.mktemp("made"))
    return Bench(made.program, pairings((made.artifact,)), made.material, 1, Silent())


@pytest.fixture
def board(tmp_path: Path) -> Iterator[captured.Tree]:
    tree = captured.Tree(tmp_path / "board", captured.lines("agx-orin-r36.tree"))
    yield tree
    tree.close()


def on(board: captured.Tree, monkeypatch: pytest.MonkeyPatch, during: Callable[[Watch], None] = lambda watch: None) -> None:
    """Have that board be this machine; something happens once it is watched."""

    @contextmanager
    def watched() -> Iterator[Watch]:
        with watching(root=board.root, interval=0.05) as watch:
            during(watch)
            yield watch

    monkeypatch.setattr(timing, "watching", watched)


def measured(bench: Bench) -> list[Measurement]:
    return [one.latency for one in timing.latency(bench, OPTIONS) if one.latency is not None]


@pytest.mark.slow
def test_every_candidate_has_the_state_and_its_own_energy(bench: Bench, board: captured.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rail of the board delivers 3 W, and 9 W while something runs."""
    on(board, monkeypatch)
    board.put("/sys/class/hwmon/hwmon3/in3_input", "3000")
    rail, part = board.root / "sys/class/hwmon/hwmon3/curr3_input", board.root / "part"
    delivered = [0]

    def delivers(milliamperes: int) -> None:
        if delivered[0] != milliamperes:
            part.write_text(f"{milliamperes}\n")
            part.replace(rail)
            delivered[0] = milliamperes

    def working(run: Callable[[], object]) -> None:
        delivers(3000)
        run()

    def rest(seconds: float) -> None:
        delivers(1000)
        time.sleep(seconds)

    def blocks(runs: Sequence[Callable[[], object]], seconds: float, **others: Any) -> tuple[Block, ...]:
        return take_blocks([lambda each=each: working(each) for each in runs], seconds, wait=rest, **others)  # type: ignore[misc]

    monkeypatch.setattr(timing, "take_blocks", blocks)
    reference, artefact = measured(bench)
    assert reference.state == artefact.state
    assert artefact.state is not None
    assert artefact.state.before["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert max(artefact.state.times_s) > artefact.state.sampled_s + 5  # watched until the last block had ended
    for one in (reference, artefact):
        (energy,) = one.energy
        assert energy.rail == "VIN_SYS_5V0"
        assert (energy.busy_mw, energy.idle_mw) == (pytest.approx(9000, rel=0.02), pytest.approx(3000, rel=0.02))
        seconds = energy.millijoules / 6000
        assert 0.5 * one.min <= seconds * 1e3 <= 20 * one.p50  # of an inference, whatever else the machine does
        assert sum(note.startswith("no energy of") for note in one.notes) == 3


def test_a_watcher_that_is_killed_makes_all_of_them_invalid(bench: Bench, board: captured.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(watch: Watch) -> None:
        assert watch._process is not None
        os.kill(watch._process.pid, signal.SIGKILL)
        watch._process.wait()

    monkeypatch.setattr(timing, "take_blocks", lambda *_, **__: ())
    on(board, monkeypatch, kill)
    for one in measured(bench):
        assert one.status == "INVALID"
        assert any(reason.startswith("watcher: it was ended by SIGKILL") for reason in one.reasons)
        assert one.energy == ()


def test_this_machine_is_watched_whatever_it_has(bench: Bench) -> None:
    for one in measured(bench):
        assert one.state is not None
        assert one.state.failure == ""
        assert min(one.state.times_s) <= 0 < one.state.sampled_s <= max(one.state.times_s)
