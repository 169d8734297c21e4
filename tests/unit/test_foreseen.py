"""What is known of latencies before one is taken is said then."""

from __future__ import annotations

from pathlib import Path

import pytest

import captured
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.foreseen import foreseen
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe

LOCKED = Recipe(profile=Profile(lock_clocks=True))


def test_of_a_usual_request_there_is_nothing_to_say() -> None:
    assert foreseen(Recipe()) == []


def test_too_few_samples_are_told_with_how_many_are_needed() -> None:
    (told,) = foreseen(Recipe(profile=Profile(samples=63)))
    assert told.startswith("63 samples of each latency asked for (profile.samples): fewer than 64 are INVALID")
    assert foreseen(Recipe(profile=Profile(samples=64))) == []


def test_more_samples_than_are_taken_of_any_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(InputError, match="30000 samples at least and 20000 at most cannot both be"):
        foreseen(Recipe(profile=Profile(samples=30_000)))


def test_clocks_that_cannot_be_locked_are_told(tmp_path: Path) -> None:
    (told,) = foreseen(LOCKED, tmp_path)
    assert told.startswith("clocks cannot be locked: there is no policy in /sys/devices/system/cpu/cpufreq")
    assert foreseen(Recipe(), tmp_path) == []
    assert foreseen(LOCKED, tmp_path, here=False) == []  # a bundle is measured on another machine


def test_clocks_that_can_be_locked_are_no_word_worth_and_are_left_as_they_are(tmp_path: Path) -> None:
    tree = captured.Tree(tmp_path / "board", captured.lines("raspberry-pi-5.tree"))
    policy = "/sys/devices/system/cpu/cpufreq/policy0"
    for name, value in (("scaling_governor", "ondemand"), ("scaling_min_freq", "1500000"), ("scaling_max_freq", "2400000")):
        tree.put(f"{policy}/{name}", value)
    tree.put(f"{policy}/cpuinfo_max_freq", "2400000")
    assert foreseen(LOCKED, tree.root) == []
    assert (tree.root / policy[1:] / "scaling_governor").read_text().strip() == "ondemand"
    tree.close()
