"""All of the time is somebody's row, once: modules are taken apart where most of it is, and what is nobody's is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.harness.layer_times import NOBODY, LayerTime, LayerTimes
from dtvit_deploy.pipeline.layer_times import _owner, owners


def times(*layers: tuple[str | None, float]) -> LayerTimes:
    """Of modules, and of nobody where None."""
    made = (
        LayerTime(
            name=f"l{index}", type="MatMul", kernel="", unit="CPU", ms=ms, node="" if module is None else f"n{index}", module=module or ""
        )
        for index, (module, ms) in enumerate(layers)
    )
    return LayerTimes(layers=tuple(made), runs=25, whole_ms=sum(ms for _, ms in layers) * 1.1)


def rows(found: LayerTimes, most: int) -> dict[str, float]:
    return {one.module: one.ms for one in found.modules(most)}


NETWORK = times(("stem", 1.0), ("stages.0.a", 3.0), ("stages.0.b", 4.0), ("stages.1", 2.0), ("", 0.5), (None, 0.25))


def test_what_takes_most_is_taken_apart_first() -> None:
    assert rows(NETWORK, 4) == {"stages": 9.0, "stem": 1.0, "(the network itself)": 0.5, NOBODY: 0.25}
    assert rows(NETWORK, 5) == {"stages.0": 7.0, "stages.1": 2.0, "stem": 1.0, "(the network itself)": 0.5, NOBODY: 0.25}
    assert rows(NETWORK, 12) == {
        "stages.0.b": 4.0,
        "stages.0.a": 3.0,
        "stages.1": 2.0,
        "stem": 1.0,
        "(the network itself)": 0.5,
        NOBODY: 0.25,
    }


def test_what_is_nobodys_is_counted_as_such() -> None:
    assert NETWORK.attributed == pytest.approx(10.5 / 10.75)
    assert times((None, 1.0)).attributed == 0.0
    assert times().attributed == 0.0
    assert times().modules() == ()


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.lists(st.sampled_from("abc"), max_size=4).map(".".join)), st.floats(0, 100)), max_size=40),
    st.integers(3, 15),
)
def test_rows_have_all_of_the_time_between_them(layers: list[tuple[str | None, float]], most: int) -> None:
    found = times(*layers)
    told = found.modules(most)
    assert sum(one.ms for one in told) == pytest.approx(found.ms)
    assert sum(one.layers for one in told) == len(layers)
    assert len({one.module for one in told}) == len(told) <= most


NODES = NodeMap(
    [
        Node("linear_3", "head", "aten.linear.default"),
        Node("gelu", "head.act", "aten.gelu.default", ("linear_3",)),
        Node("add_1", "", "aten.add.Tensor"),
    ]
)


@pytest.mark.parametrize(
    ("names", "node", "module"),
    [
        (("gelu", "linear_3"), "linear_3", "head"),  # a product has the time of what is fused with it
        (("add_1", "gelu"), "add_1", ""),
        (("linear_3/WithoutBiases",), "linear_3", "head"),
        (("linear_3/fq_input_0/scale",), "linear_3", "head"),
        (("gelu_nchwc",), "gelu", "head.act"),
        (("reorder_17",), "", ""),
        ((), "", ""),
    ],
)
def test_a_layer_belongs_to_the_node_that_computes_most_in_it(names: tuple[str, ...], node: str, module: str) -> None:
    assert _owner(names, (), owners({}, NODES))[:2] == (node, module)


def test_what_a_runtime_has_added_belongs_to_the_nearest_that_it_leads_to() -> None:
    called = owners({}, NODES)
    assert _owner(["Erf_1122"], ["Erf_1122_out", "InsertedPrecisionFreeCast_gelu", "linear_3"], owners({}, NODES))[:2] == (
        "gelu",
        "head.act",
    )
    assert _owner(["add_1"], ["gelu"], called)[:2] == ("add_1", "")  # where its own name tells, that does


def test_a_name_that_is_rewritten_without_end_is_nobodys_and_keeps_nobody_busy() -> None:
    assert _owner(["linear_3" + "/x" * 3], (), owners({}, NODES))[:2] == ("linear_3", "head")
    assert _owner(["linear_3" + "/x" * 400], (), owners({}, NODES))[:2] == ("", "")
