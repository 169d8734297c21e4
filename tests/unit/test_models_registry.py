import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commandline import deploy
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.registry import FAMILIES, VARIANTS, family, variant


def printed_figures_match(printed: str, exact: float) -> bool:
    """Whether every number that the paper prints is the exact one, rounded as the paper rounds."""
    numbers = re.findall(r"\d+\.(\d+)", printed)
    return all(f"{exact:.{len(decimals)}f}" in printed.strip("()").replace("(", "").split() for decimals in numbers)


def test_the_papers_table_is_all_there() -> None:
    assert {"dualtoken-vit-t-mix", "dualtoken-vit-t", "dualtoken-vit-s-mix", "dualtoken-vit-s"} <= set(VARIANTS)
    assert {f"dualtoken-vit-s-tokens-{grid}" for grid in ("0", "3x3", "4x4", "5x5", "6x6", "8x8")} <= set(VARIANTS)
    assert "dualtoken-vit-s-tokens-7x7" not in VARIANTS  # that is dualtoken-vit-s
    figures = [
        figure for name, each in VARIANTS.items() if name.startswith("dualtoken-") for figure in (each.paper_params, each.paper_gflops)
    ]
    assert sum(figure is not None for figure in figures) == 26


@pytest.mark.parametrize("each", VARIANTS.values(), ids=lambda each: each.name)
def test_a_variant_says_it_reached_the_papers_figures_only_if_it_did(each) -> None:  # type: ignore[no-untyped-def]
    matches = printed_figures_match(each.paper_params or "", each.params / 1e6) and printed_figures_match(
        each.paper_gflops or "", each.macs / 1e9
    )
    assert matches == each.reached


def test_of_dualtoken_only_normal_is_not_reached() -> None:
    assert [name for name, each in VARIANTS.items() if name.startswith("dualtoken-") and not each.reached] == ["dualtoken-vit-s-normal"]


def test_of_t2t_vit_those_are_not_reached_whose_figures_the_released_code_does_not_give() -> None:
    missed = ["24", "14-384", "c-14", "14-wide", "14-se", "16-ghost", "dense"]
    assert [name for name, each in VARIANTS.items() if name.startswith("t2t-") and not each.reached] == [f"t2t-vit-{one}" for one in missed]


@pytest.mark.parametrize("each", VARIANTS.values(), ids=lambda each: each.name)
def test_a_figure_that_is_not_reached_says_why_and_no_other_does(each) -> None:  # type: ignore[no-untyped-def]
    assert bool(each.why) != each.reached


def test_every_network_is_of_one_family() -> None:
    found = [each.name for name in FAMILIES for each in family(name)]
    assert sorted(found) == sorted(VARIANTS)
    with pytest.raises(InputError, match=r"no family 'lightvit-t'") as caught:
        family("lightvit-t")
    assert caught.value.remedy == "it would be in lightvit: give that"
    with pytest.raises(InputError, match="no family 'resnet'"):
        family("resnet")


def test_two_names_are_never_the_same_network() -> None:
    assert len({each.config for each in VARIANTS.values()}) == len(VARIANTS)


def test_a_known_name_gives_its_variant() -> None:
    assert variant("dualtoken-vit-s").top1 == 79.5


def test_a_misspelt_name_is_refused_with_the_nearest_and_never_replaced() -> None:
    with pytest.raises(InputError, match=r"no model 'dualtoken-vit-s-mxi'; did you mean dualtoken-vit-s-mix\?") as caught:
        variant("dualtoken-vit-s-mxi")
    assert all(name in (caught.value.remedy or "") for name in [*VARIANTS, "timm:NAME", "package.module:factory"])


@given(st.text())
def test_any_other_text_is_refused(name: str) -> None:
    if name not in VARIANTS:
        with pytest.raises(InputError):
            variant(name)


def test_every_variant_shows_the_papers_figures_beside_ours() -> None:
    found = VARIANTS["dualtoken-vit-s-mix"]
    assert (found.params, found.macs, found.paper_params, found.paper_gflops) == (11_425_202, 1_035_199_360, "11.4", "1.0 (1.04)")


def test_listing_the_models_loads_no_framework() -> None:
    script = "import sys, dtvit_deploy.models.registry; print({'torch', 'numpy', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_command_lists_families_and_then_the_networks_of_one() -> None:
    every, one = deploy("models").stdout, deploy("models", "lightvit").stdout
    assert all(name in every for name in FAMILIES)
    assert "lightvit-t" not in every
    assert all(name in one for name in ("lightvit-t", "lightvit-s", "lightvit-b", "772,183,808"))
    assert "there is no family 'resnet'" in deploy("models", "resnet", code=2).stderr
    assert [each["name"] for each in json.loads(deploy("models", "lightvit", "--json").stdout)] == [
        "lightvit-t",
        "lightvit-s",
        "lightvit-b",
    ]
