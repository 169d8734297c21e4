"""The networks of `difficult_networks`: rewritten programs answer as the network does, and so do the artefacts made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from difficult_networks import NETWORKS, Then
from dtvit_deploy.artifacts.artifact import Artifact, Link, load_artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.static import require_static
from dtvit_deploy.export.onnx.translate import onnx_from_program
from dtvit_deploy.export.outputs import flat
from dtvit_deploy.export.program import Program, program_from_reference
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.program import read_program_entry, write_program
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.onnxruntime import magnitudes, run_graph
from dtvit_deploy.runtimes.registry import runtime_for

EVERY = [(kind, name) for kind, networks in NETWORKS.items() for name in networks if kind != "dynamic"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def reference(name: str) -> Reference:
    torch.manual_seed(0)
    module, inputs = next(networks[name] for networks in NETWORKS.values() if name in networks)()
    return Reference(
        model=f"mine:{name}", module=module.eval(), inputs=inputs, output_names=(), weights=Link(kind="seeded", sha256="0" * 64)
    )


def feeds_of(given: Reference) -> list[dict[str, Tensor]]:
    """The example, another one, and zeros, at which masks are at their ends."""
    other = {name: torch.randn_like(value) * 2 if value.is_floating_point() else value for name, value in given.inputs.items()}
    zeros = {name: torch.zeros_like(value) for name, value in given.inputs.items()}
    return [dict(given.inputs), other, zeros]


def expected(given: Reference, feeds: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [value.clone() for value in flat(given.module(*(value.clone() for value in feeds.values())), "it")[1]]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[name for _, name in EVERY])
def test_a_rewritten_program_answers_as_the_network(kind: str, name: str) -> None:
    given = reference(name)
    module = program_from_reference(given).exported.module(check_guards=False)
    for feeds in feeds_of(given):
        want = expected(given, feeds)
        with torch.no_grad():
            got = module(*(value.clone() for value in feeds.values()))
        for one, other in zip(want, got, strict=True):
            known = torch.isfinite(one)  # torch's fast path for encoders has no number for a row that its exported form answers with 0
            assert one.dtype is other.dtype
            close = 0.1 if name == "attention_large" else 2e-6  # scores of 10⁵ have steps of 0.008, by which their exponentials differ
            torch.testing.assert_close(other[known], one[known], rtol=1e-5, atol=close)
            assert bool(torch.isfinite(other).all())


def operators(program: Program) -> set[str]:
    return {str(node.target).removeprefix("aten.").partition(".")[0] for node in program.exported.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("attention_causal", "scaled_dot_product_attention"),
        ("attention_3d", "scaled_dot_product_attention"),
        ("attention_padding_input", "scaled_dot_product_attention"),
        ("average_oblong", "adaptive_avg_pool2d"),
        ("average_1d", "adaptive_avg_pool1d"),
        ("maximum_1d", "adaptive_max_pool1d"),
        ("mask_assigned", "index_put_"),
        ("weight_norm", "_weight_norm"),
        ("orthogonal", "linalg_householder_product"),
        ("weight_standardised", "std_mean"),
        ("rrelu", "rrelu"),
    ],
)
def test_what_translators_disagree_about_is_gone_before_they_see_it(name: str, gone: str) -> None:
    assert gone not in operators(program_from_reference(reference(name)))


def test_indices_of_windows_that_no_format_counts_as_torch_does_are_refused_with_their_module() -> None:
    network = Then(lambda y: F.max_pool2d(y, 3, 4, 1, ceil_mode=True, return_indices=True)[1].float()).eval()
    inputs = {"image": torch.randn(1, 3, 8, 7)}
    given = Reference(model="mine:net", module=network, inputs=inputs, output_names=(), weights=reference("elu").weights)
    with pytest.raises(InputError, match=r"whose indices are read, in the network itself, leaves out a window"):
        program_from_reference(given)


@pytest.mark.parametrize("name", ["attention_plain", "attention_scaled", "average_1d_whole", "softplus"])
def test_what_they_agree_about_is_left_to_them(name: str) -> None:
    left = {"scaled_dot_product_attention", "adaptive_avg_pool1d", "softplus"}
    assert operators(program_from_reference(reference(name))) & left


def test_a_parameter_that_was_folded_is_not_carried_along() -> None:
    exported = program_from_reference(reference("weight_norm")).exported
    assert not [name for name in exported.state_dict if "parametrizations" in name]
    assert exported.graph_signature.input_specs  # and what is left is still in order
    assert len(exported.graph_signature.input_specs) == sum(node.op == "placeholder" for node in exported.graph.nodes)


@pytest.mark.parametrize(
    "name",
    [
        *("softplus_steep", "nan_to_num", "index_of_choice", "average_3d", "average_oblong", "maximum_3"),
        *("sums_with_edge", "average_with_edge_alone", "maximum_without_one", "scattered_sums"),
        *("attention_masked_rows", "attention_infinite_bias", "attention_3d_causal", "attention_grouped"),
        *("constant_twice", "buffers_out", "input_out", "nested_tuples"),
        *("mask_assigned", "through_view", "into_zeros", "own_weights", "spectral_norm_hook", "orthogonal"),
    ],
)
def test_its_onnx_graph_does_too_in_either_precision(name: str) -> None:
    given = reference(name)
    graph, program = onnx_from_program(program_from_reference(given))
    sources = feeds_of(given)
    feeds = [{name: value.numpy() for name, value in source.items()} for source in sources]
    graph, _ = onnxsim.simplify(graph)
    require_static(graph)
    half = float16_onnx(graph, magnitudes(graph, program.signature, feeds)).model
    onnx.checker.check_model(half)
    for model, close in ((graph, 1e-5), (half, 2e-2)):
        for got, source in zip(run_graph(model, program.signature, feeds), sources, strict=True):
            for spec, want in zip(program.signature.outputs, expected(given, source), strict=True):
                assert got[spec.name].dtype == want.numpy().dtype
                np.testing.assert_allclose(got[spec.name], want.numpy(), rtol=close, atol=close)


def answers(artifact: Artifact, given: Reference) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    with runtime_for(artifact).load(artifact, SessionOptions()) as session:
        found = session.run({name: value.numpy() for name, value in given.inputs.items()})
    return [found[spec.name] for spec in artifact.manifest.signature.outputs]


@pytest.mark.parametrize("name", ["attention_all_masked", "one_twice", "integer_constant", "logsigmoid", "logical", "average_up"])
def test_a_core_ml_package_of_it_answers_as_the_network(name: str, tmp_path: Path, cache_folder: Path) -> None:
    pytest.importorskip("coremltools", reason="coremltools writes the packages")
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.formats.mlpackage.options import CoreMlOptions

    given = reference(name)
    write_program(given, tmp_path)
    entry = read_program_entry(tmp_path)
    guard = open_material(None, entry.artifact.manifest).guard()
    made = CoreMl(entry, guard, (), CoreMlOptions(), Cache(cache_folder)).build(Precision.FP32, None)
    for got, want in zip(answers(made, given), expected(given, given.inputs), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=2e-6)


def test_an_operator_that_onnx_lacks_is_no_obstacle_to_core_ml(tmp_path: Path, cache_folder: Path) -> None:
    pytest.importorskip("coremltools", reason="coremltools writes the packages")
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
    from dtvit_deploy.pipeline.described import require_as_described

    write_program(reference("running_product"), tmp_path)
    entry = read_program_entry(tmp_path)
    guard, cache = open_material(None, entry.artifact.manifest).guard(), Cache(cache_folder)
    with pytest.raises(InputError, match="cannot be translated to ONNX opset 20") as caught:
        onnx_stage(entry, guard, cache)
    assert "replace the operator that it names" in (caught.value.remedy or "")
    for precision in (Precision.FP32, Precision.FP16):
        require_as_described(CoreMl(entry, guard, (), CoreMlOptions(), cache).build(precision, None))


@pytest.mark.parametrize(
    "name", ["attention_masked_rows", "average_pyramid", "constant_twice", "average_1d_with_edge", "maximum_without_last"]
)
def test_so_does_openvinos(name: str, tmp_path: Path, cache_folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO executes its own graphs")
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.pipeline.described import require_as_described

    given = reference(name)
    write_program(given, tmp_path)
    entry = read_program_entry(tmp_path)
    cache = Cache(cache_folder)
    graph = onnx_stage(entry, open_material(None, entry.artifact.manifest).guard(), cache)
    made = openvino_stage(graph, Precision.FP32, cache)
    require_as_described(made)
    for got, want in zip(answers(made, given), expected(given, given.inputs), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)
    assert load_artifact(made.path).manifest == made.manifest


def test_openvino_refuses_what_its_plugin_would_ignore(tmp_path: Path, cache_folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO reads the graph")
    from dtvit_deploy.artifacts.cache import Cache

    write_program(reference("antialiased"), tmp_path)
    entry = read_program_entry(tmp_path)
    cache = Cache(cache_folder)
    graph = onnx_stage(entry, open_material(None, entry.artifact.manifest).guard(), cache)
    with pytest.raises(InputError, match="OpenVINO ignores what the network asks for: antialias of output"):
        openvino_stage(graph, Precision.FP32, cache)


def test_the_places_of_maxima_stay_where_rounding_up_adds_no_window() -> None:
    torch.manual_seed(0)
    network = Then(lambda y: F.max_pool2d(y, 2, 3, 1, ceil_mode=True, return_indices=True)).eval()
    image = torch.randn(1, 3, 7, 8)
    given = Reference(
        model="mine:places", module=network, inputs={"image": image}, output_names=(), weights=Link(kind="seeded", sha256="0" * 64)
    )
    program = program_from_reference(given).exported
    (pool,) = (node for node in program.graph.nodes if "max_pool2d" in str(node.target))
    assert pool.args[-1] is False
    with torch.no_grad():
        for got, want in zip(program.module(check_guards=False)(image), network(image), strict=True):
            assert torch.equal(got, want)
