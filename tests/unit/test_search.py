"""Which modules stay in float: those that gain nothing, then as many of the costly ones as accuracy asks for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.harness.search import ModuleFigures, Trial, readable, search_modules


def module(name: str, sqnr: float, gain: float | None = 1.0) -> ModuleFigures:
    return ModuleFigures(module=name, sqnr=sqnr, gain_ms=gain)


class Network:
    """Noise adds up; top-1 agrees as long as the sum stays below a limit."""

    def __init__(self, figures: list[ModuleFigures], limit: float) -> None:
        self.noise = {one.module: one.noise for one in figures}
        self.limit = limit
        self.asked: list[tuple[str, ...]] = []

    def evaluate(self, in_float: tuple[str, ...]) -> Trial:
        self.asked.append(in_float)
        noise = sum(power for name, power in self.noise.items() if name not in in_float)
        sqnr = 200.0 if not noise else -10 * math.log10(noise)
        return Trial(in_float=in_float, agreement=1.0 if noise <= self.limit else 0.5, sqnr=sqnr)


def test_nothing_stays_in_float_where_everything_gains_and_nothing_hurts() -> None:
    figures = [module(name, 60) for name in "abc"]
    network = Network(figures, 1.0)
    found = search_modules(figures, 10.0, network.evaluate, goal=0.99, samples=8)
    assert (found.in_float, found.reached, network.asked) == ((), True, [()])


def test_what_gains_no_time_stays_in_float_without_a_trial_of_its_own() -> None:
    figures = [module("a", 60), module("slower", 60, -0.2), module("same", 60, 0.0)]
    found = search_modules(figures, 10.0, Network(figures, 1.0).evaluate, goal=0.99, samples=8)
    assert found.in_float == ("same", "slower")
    assert "2 of 3 modules stay in float: 2 because INT8 gains no time there" in found.reason


def test_the_module_that_breaks_the_answer_is_found() -> None:
    figures = [module(f"good{index:02}", 50) for index in range(40)] + [module("bad", 3)]
    network = Network(figures, 0.1)
    found = search_modules(figures, 100.0, network.evaluate, goal=0.99, samples=8)
    assert found.in_float == ("bad",)
    assert found.modules[0].module == "bad"
    assert len(network.asked) <= 8


def test_of_two_that_cost_alike_the_one_that_gains_less_goes_first() -> None:
    figures = [module("slow", 20, 0.1), module("fast", 20, 5.0)]
    found = search_modules(figures, 10.0, Network(figures, 0.015).evaluate, goal=0.99, samples=8)
    assert found.in_float == ("slow",)


def test_a_goal_that_is_missed_leaves_the_best_that_was_found() -> None:
    figures = [module("a", 0), module("b", 0)]

    def never(in_float: tuple[str, ...]) -> Trial:
        return Trial(in_float=in_float, agreement=0.1 * (1 + len(in_float)), sqnr=0.0)

    found = search_modules(figures, 10.0, never, goal=0.99, samples=8)
    assert not found.reached
    assert found.in_float == max(found.trials, key=lambda trial: trial.agreement or 0.0).in_float
    assert "the goal of 99.00% was not reached, and this is the best that was found" in found.reason


def test_without_scores_the_goal_is_a_signal_to_noise_ratio() -> None:
    figures = [module("a", 60), module("b", 5)]

    def evaluate(in_float: tuple[str, ...]) -> Trial:
        return Trial(in_float=in_float, agreement=None, sqnr=60.0 if "b" in in_float else 5.0)

    found = search_modules(figures, None, evaluate, goal=20.0, samples=8)
    assert (found.in_float, found.reached) == (("b",), True)


def test_the_users_own_wish_is_kept() -> None:
    figures = [module("a", 60), module("b", 60)]
    found = search_modules(figures, 10.0, Network(figures, 1.0).evaluate, goal=0.99, samples=8, keep=("kept",))
    assert found.in_float == ("kept",)


@given(st.lists(st.tuples(st.floats(-10, 80), st.floats(-1, 1)), min_size=1, max_size=30), st.floats(1e-6, 10))
def test_whatever_is_found_reaches_the_goal_and_few_trials_were_made(drawn: list[tuple[float, float]], limit: float) -> None:
    figures = [module(f"m{index}", sqnr, gain) for index, (sqnr, gain) in enumerate(drawn)]
    network = Network(figures, limit)
    found = search_modules(figures, 10.0, network.evaluate, goal=0.99, samples=8)
    assert len(found.trials) <= 2 + math.ceil(math.log2(len(figures) + 1))
    if found.reached:
        assert network.evaluate(found.in_float).agreement == 1.0
    else:
        assert all((trial.agreement or 0.0) < 0.99 for trial in found.trials)


@pytest.mark.parametrize(
    ("chosen", "every", "said"),
    [
        (["a.x", "a.y", "b.x"], ["a.x", "a.y", "b.x", "b.y"], ("a", "b.x")),
        (["a.x"], ["a.x", "a.y"], ("a.x",)),
        (["a.b.x", "a.b.y", "a.c"], ["a.b.x", "a.b.y", "a.c", "d"], ("a",)),
        ([], ["a"], ()),
        (["ab.x", "a.x"], ["ab.x", "a.x", "a.y"], ("a.x", "ab")),
    ],
)
def test_a_parent_stands_for_its_modules_where_all_are_meant(chosen: list[str], every: list[str], said: tuple[str, ...]) -> None:
    assert readable(chosen, every) == said
