"""How long is measured and what is believed: what may be asked for is a key of a recipe, the rest is constant for a reason."""

from __future__ import annotations

import msgspec
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.pipeline.figures import measure_options
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe

ASKED: dict[str, tuple[str, float]] = {
    "min_seconds": ("seconds", 7.0),
    "min_samples": ("samples", 700),
    "sustained_seconds": ("sustained", 90.0),
    "energy_seconds": ("energy", 4.0),
}
"""Fields of `MeasureOptions`, the key of ``[profile]`` that each is, and a value that is not the usual one."""
CONSTANT = {
    "max_samples": "a bound on memory, far above what any key asks for",
    "max_seconds": "a bound on a run that would not end; it follows `seconds` where that is longer",
    "warmup_seconds": "who shortens it measures something else; whether it was enough is told with each latency",
    "max_warmup_seconds": "the same",
    "drift_limit": "a verdict that could be asked for would be none",
    "spread_limit": "the same",
}
"""Those that no recipe changes, and why."""


def test_every_option_has_a_key_or_a_reason_to_have_none() -> None:
    assert set(MeasureOptions.__struct_fields__) == ASKED.keys() | CONSTANT.keys()
    keys = {key for key, _ in ASKED.values()} | {
        "cuda_graph",
        "lock_clocks",
        "layer_times",
        "roofline",
    }  # a session's, the machine's, and what is told beside
    assert set(Profile.__struct_fields__) == keys


@pytest.mark.parametrize("field", ASKED)
def test_a_key_changes_its_own_option_alone(field: str) -> None:
    key, value = ASKED[field]
    usual = msgspec.structs.asdict(measure_options(Recipe()))
    found = msgspec.structs.asdict(measure_options(Recipe(profile=Profile(**{key: value}))))
    assert {name for name in found if found[name] != usual[name]} == {field}
    assert found[field] == value


def test_a_recipe_that_says_nothing_measures_as_the_harness_does() -> None:
    assert measure_options(Recipe()) == MeasureOptions()


def test_no_energy_may_be_asked_for() -> None:
    assert measure_options(Recipe(profile=Profile(energy=0))).energy_seconds == 0


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_blocks_that_cannot_be_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="energy of"):
        MeasureOptions(energy_seconds=seconds)
