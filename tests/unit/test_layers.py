"""Hand-made programs and errors planted at known places.

The program is a small network with a residual: stem → norm → linear → add(stem, linear) → gelu → head, and the view that a
simplifier may merge. Every tensor is 64 standard normal values; what differs between the evaluations is planted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.layers import LayerReport, Taps, layer_report

Array = NDArray[Any]

NODES = NodeMap(
    (
        Node("conv2d", "stem", "aten.conv2d.default", ("image", "p_stem_weight")),
        Node("view", "", "aten.view.default", ("conv2d",)),
        Node("layer_norm", "norm", "aten.layer_norm.default", ("view", "p_norm_weight")),
        Node("linear", "block.qkv", "aten.linear.default", ("layer_norm", "p_qkv_weight")),
        Node("unbind", "block", "aten.unbind.int", ("linear",)),
        Node("getitem", "block", "<built-in function getitem>", ("unbind",)),
        Node("softmax", "block", "aten.softmax.int", ("getitem",)),
        Node("add", "", "aten.add.Tensor", ("view", "softmax")),
        Node("gelu", "act", "aten.gelu.default", ("add",)),
        Node("linear_1", "head", "aten.linear.default", ("gelu", "p_head_weight")),
    ),
    ("linear_1",),
)
EVERY = tuple(node.name for node in NODES.nodes if node.name != "unbind")
NOISE = 1e-7
"""Relative deviation of the ideal evaluation from the exact one."""


def taps(errors: Mapping[str, float], floors: Mapping[str, float] | None = None, shared: tuple[str, ...] = EVERY, seed: int = 0) -> Taps:
    """One feed; ``errors`` and ``floors`` are root mean squares relative to the tensor's own."""
    rng = np.random.default_rng(seed)
    exact = {name: rng.standard_normal(64) for name in EVERY}

    def moved(by: Mapping[str, float], otherwise: float) -> dict[str, Array]:
        signs = {name: rng.choice([-1.0, 1.0], 64) for name in EVERY}
        size = {name: math.sqrt(float(np.square(values).mean())) for name, values in exact.items()}
        return {name: values + by.get(name, otherwise) * size[name] * signs[name] for name, values in exact.items()}

    answer = moved(errors, 0.0)
    return Taps(reference=exact, exact=exact, ideal=moved(floors or {}, NOISE), answer={name: answer[name] for name in shared})


def reported(
    errors: Mapping[str, float],
    floors: Mapping[str, float] | None = None,
    shared: tuple[str, ...] = EVERY,
    precision: Precision = Precision.FP32,
) -> LayerReport:
    return layer_report(NODES, [taps(errors, floors, shared)], precision)


def downstream(name: str, error: float) -> dict[str, float]:
    """An error that goes on unchanged from a tensor to everything computed from it."""
    errors = {name: error}
    for node in NODES.nodes:
        if any(source in errors for source in node.inputs):
            errors[node.name] = error
    return errors


class TestBlame:
    @pytest.mark.parametrize("name", EVERY)
    def test_an_error_is_blamed_on_the_module_where_it_begins(self, name: str) -> None:
        found = reported(downstream(name, 1e-3))
        assert found.first == NODES.module_of(name)
        assert f": {name} (" in found.verdict

    def test_the_sentence_has_the_figures(self) -> None:
        found = reported(downstream("softmax", 1e-3) | {"getitem": 2e-7})
        assert found.verdict == (
            "the error arises in block: softmax (aten.softmax.int) is off by 0.001 of its size,"
            " its inputs by 2e-07, its noise floor is 1e-07"
        )

    def test_a_harmless_deviation_upstream_distracts_nobody(self) -> None:
        # The norm is coarse, but what is computed from it is not.
        found = reported({"layer_norm": 1e-2} | downstream("gelu", 1e-3))
        assert found.first == "act"
        assert [layer.name for layer in found.layers if layer.suspect] == ["layer_norm", "gelu", "linear_1"]

    def test_one_that_dies_out_blames_nobody(self) -> None:
        found = reported({"layer_norm": 1e-2, "linear": 1e-3})
        assert found.first is None
        assert found.verdict == (
            "no error above the noise floor reaches an output; 2 of 9 shared tensors deviate on the way,"
            " the most by 0.01 of its size in norm (layer_norm)"
        )

    def test_an_error_of_the_output_node_itself(self) -> None:
        found = reported({"linear_1": 1e-4})
        assert found.first == "head"
        assert [module.module for module in found.modules if module.suspect] == ["head"]

    def test_of_two_independent_errors_the_larger_one(self) -> None:
        assert reported(downstream("softmax", 1e-3) | {"conv2d": 0, "view": 1e-2}).first == "(the network itself)"
        assert reported(downstream("softmax", 1e-2) | {"view": 1e-3, "layer_norm": 0}).first == "block"

    def test_an_error_through_the_residual_is_found_behind_the_healthy_branch(self) -> None:
        errors = downstream("conv2d", 1e-3) | dict.fromkeys(("layer_norm", "linear", "getitem", "softmax"), 0)
        assert reported(errors).first == "stem"

    def test_one_that_a_residual_dilutes_below_the_limit_is_followed_further_back(self) -> None:
        # The limit is 8e-7: only where it begins and where it ends does the error exceed it.
        errors = {"linear": 1e-3, "getitem": 1e-3, "softmax": 6e-7, "add": 5e-7, "gelu": 7e-7, "linear_1": 9e-7}
        assert reported(errors).first == "block.qkv"
        assert reported(errors | {"add": 1e-7}).first == "act"  # as little as noise is no trace

    def test_nothing_wrong_is_nothing_found(self) -> None:
        found = reported({})
        assert found.first is None
        assert not any(layer.suspect for layer in found.layers)
        assert "no error above the noise floor reaches an output; 0 of 9" in found.verdict


class TestFloor:
    def test_a_tensor_is_held_to_its_own(self) -> None:
        error = downstream("softmax", 1e-3)
        assert reported(error, dict.fromkeys(EVERY, 0.001)).first is None
        assert reported(error, {"softmax": 1e-3, "add": 1e-3}).first == "act"

    def test_a_precision_has_more_room(self) -> None:
        error = downstream("softmax", 1e-3)
        assert reported(error, precision=Precision.FP16).first is None
        assert reported(error, precision=Precision.FP32).first == "block"

    def test_overflow_in_the_ideal_evaluation_is_the_precisions_fault(self) -> None:
        after = ("softmax", "add", "gelu", "linear_1")
        found = reported(downstream("softmax", math.inf), dict.fromkeys(after, math.inf), precision=Precision.FP16)
        assert found.first == "block"
        assert found.verdict == "block overflows fp16: softmax (aten.softmax.int) is not finite even in an ideal fp16 evaluation"

    def test_an_artefact_that_avoids_the_overflow_is_not_blamed(self) -> None:
        after = ("softmax", "add", "gelu", "linear_1")
        found = reported({}, dict.fromkeys(after, math.inf), precision=Precision.FP16)
        assert found.first is None

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_finite_is_an_infinite_error(self, value: float) -> None:
        feed = taps({})
        for name in ("gelu", "linear_1"):
            feed.answer[name][3] = value
        found = layer_report(NODES, [feed], Precision.FP32)
        assert found.first == "act"
        assert {layer.name: layer.error for layer in found.layers}["gelu"] == math.inf

    def test_infinity_on_both_sides_is_no_warning_but_an_error(self) -> None:
        feed = taps({})
        for arrays in (feed.answer, feed.reference):
            arrays["linear_1"] = np.full(64, math.inf)
        assert layer_report(NODES, [feed], Precision.FP32).first == "head"


class TestWhatTheArtefactLacks:
    def test_a_tensor_that_was_merged_away_is_stepped_over(self) -> None:
        shared = tuple(name for name in EVERY if name not in ("layer_norm", "linear"))
        found = reported(downstream("add", 1e-3), shared=shared)
        assert found.first == "(the network itself)"
        assert (len(found.layers), found.program_tensors) == (7, 10)
        assert {layer.name: layer.inherited for layer in found.layers}["getitem"] == 0

    def test_a_product_that_is_left_only_as_a_view_of_it_is_blamed_and_not_the_view(self) -> None:
        shared = tuple(name for name in EVERY if name != "linear")
        found = reported(downstream("linear", 1e-3), shared=shared)
        assert found.first == "block.qkv"
        assert "the error arises in block.qkv: getitem (aten.linear.default)" in found.verdict

    def test_a_view_whose_source_is_there_is_itself(self) -> None:
        found = reported(downstream("getitem", 1e-3))
        assert found.first == "block"
        assert "getitem (<built-in function getitem>)" in found.verdict

    def test_modules_that_were_merged_are_named_together(self) -> None:
        shared = tuple(name for name in EVERY if name not in ("linear", "getitem"))
        found = reported(downstream("softmax", 1e-3), shared=shared)
        assert found.first == "block"
        assert "the error arises in block or in block.qkv, which was merged with it: softmax" in found.verdict

    def test_one_of_another_shape_is_compared_if_it_only_was_reshaped(self) -> None:
        feed = taps({})
        feed.answer["gelu"] = feed.answer["gelu"].reshape(8, 8)
        feed.answer["add"] = feed.answer["add"][:32]
        found = {layer.name: layer.error for layer in layer_report(NODES, [feed], Precision.FP32).layers}
        assert found["gelu"] == 0
        assert "add" not in found

    def test_nothing_in_common_is_said(self) -> None:
        found = reported({}, shared=())
        assert found.verdict == "the artefact shares no tensor with the program, so nothing could be compared inside"
        assert (found.first, found.layers, found.modules) == (None, (), ())


class TestReport:
    def test_tensors_stand_in_the_order_of_execution_with_what_they_inherit(self) -> None:
        found = reported(downstream("softmax", 1e-3) | {"view": 1e-4, "conv2d": 0, "layer_norm": 0})
        assert [layer.name for layer in found.layers] == list(EVERY)
        inherited = {layer.name: layer.inherited for layer in found.layers}
        assert inherited["conv2d"] == 0
        assert inherited["add"] == pytest.approx(1e-3)  # the larger of its two inputs
        assert inherited["layer_norm"] == pytest.approx(1e-4)

    def test_a_module_has_the_greatest_error_of_its_tensors_and_the_error_that_entered(self) -> None:
        found = reported({"linear": 1e-4, "getitem": 1e-3, "softmax": 1e-2})
        block = next(module for module in found.modules if module.module == "block")
        assert (block.tensors, block.suspect) == (2, True)
        assert block.error == pytest.approx(1e-2)
        assert block.inherited == pytest.approx(1e-4)

    def test_errors_are_taken_over_all_samples(self) -> None:
        feeds = [taps({"gelu": error}, seed=seed) for seed, error in enumerate((0.0, 3e-3, 4e-3))]
        found = layer_report(NODES, feeds, Precision.FP32)
        assert found.samples == 3
        error = {layer.name: layer.error for layer in found.layers}["gelu"]
        assert error == pytest.approx(5e-3 / math.sqrt(3), rel=0.2)  # the samples' sizes differ a little

    def test_the_size_of_a_tensor_does_not_matter(self) -> None:
        feed = taps(downstream("softmax", 1e-3))
        small = Taps(*({name: values * 1e-12 for name, values in arrays.items()} for arrays in feed))
        assert layer_report(NODES, [small], Precision.FP32).first == "block"
