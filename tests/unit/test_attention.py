"""Attention maps as arrays, by numbers worked out by hand, and what a command's paths are."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dtvit_deploy.artifacts.artifact import Artifact, Manifest
from dtvit_deploy.artifacts.attention import AttentionMap, tensor_of
from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.attention import DriftSums, correlation, strengths, strongest, strongest_heads, token_maps
from dtvit_deploy.models.registry import VARIANTS, attention_maps
from dtvit_deploy.pipeline.attention import MOST_DRAWN, told_apart
from dtvit_deploy.pipeline.looking import Looker
from dtvit_deploy.report.attention_plots import coloured, overlaid
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.pairing import Pairing

BROADCAST = AttentionMap(
    name="broadcast", what="", module="block", softmax=-1, shape=(1, 2, 3), asker="image", tokens=3, grid=(1, 2), token_grid=None
)
"""Two parts beside each other look at three tokens, in one head."""
CLASS = AttentionMap(
    name="class", what="", module="block", softmax=-1, shape=(2, 3, 3), asker="tokens", tokens=1, grid=(2, 1), first_part=1
)
"""One class token and two parts below each other all look at all, in two heads."""
WEIGHTS = np.array([[[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]]], np.float32)


def maps_of(*rows: list[float]) -> np.ndarray:
    """Of `BROADCAST`, one row of weights for each part of the image."""
    return token_maps(np.array([[rows]], np.float32), BROADCAST)


def test_where_the_image_looks_each_token_has_a_map_of_who_looks_at_it() -> None:
    assert token_maps(WEIGHTS, BROADCAST).tolist() == [[[[0.5, 0.125]], [[0.25, 0.125]], [[0.25, 0.75]]]]


def test_of_a_class_token_only_its_look_at_the_image_is_left() -> None:
    weights = np.arange(18.0).reshape(1, 2, 3, 3)
    assert token_maps(weights, CLASS).tolist() == [[[[1], [2]]], [[[10], [11]]]]


def test_parts_that_lie_window_by_window_come_into_rows() -> None:
    asked = AttentionMap(name="", what="", module="", softmax=-1, shape=(1, 1, 8), asker="tokens", tokens=1, grid=(2, 4), window=2)
    found = token_maps(np.arange(8.0).reshape(1, 1, 1, 8), asked)
    assert found[0, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_half_precision_becomes_double_before_anything_is_added() -> None:
    assert token_maps(WEIGHTS.astype(np.float16), BROADCAST).dtype == np.float64


def test_a_tensor_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="the broadcast map has shape 1×1×3×2, and that of such a network is 1×1×2×3"):
        token_maps(WEIGHTS.swapaxes(2, 3), BROADCAST)


def test_a_token_that_is_looked_at_is_as_strong_as_its_share_of_all_attention() -> None:
    assert strengths(maps_of([0.5, 0.25, 0.25], [0.125, 0.125, 0.75]), BROADCAST).tolist() == [0.3125, 0.1875, 0.5]
    assert strongest(maps_of([0.5, 0.25, 0.25], [0.125, 0.125, 0.75]), BROADCAST) == (2, 0, 1)


def test_a_token_that_looks_is_as_strong_as_its_greatest_share() -> None:
    asked = AttentionMap(name="", what="", module="", softmax=-1, shape=(1, 2, 2), asker="tokens", tokens=2, grid=(1, 2))
    maps = token_maps(np.array([[[[0.5, 0.5], [0.875, 0.125]]]]), asked)
    assert strengths(maps, asked).tolist() == [0.5, 0.875]


def test_of_equally_strong_tokens_the_first_comes_first_and_no_number_comes_last() -> None:
    assert strongest(maps_of([0.25, 0.5, 0.25], [0.5, 0.25, 0.25]), BROADCAST, 2) == (0, 1)
    assert strongest(maps_of([math.nan, 0.0, 0.5], [0.0, 0.25, 0.0]), BROADCAST) == (2, 1, 0)


def test_heads_are_chosen_by_their_greatest_weight_and_shown_in_order() -> None:
    maps = np.array([0.1, 0.4, 0.2, 0.3]).reshape(4, 1, 1, 1)
    assert strongest_heads(maps, 0, 2) == (1, 3)


def test_correlation_is_pearsons() -> None:
    assert correlation(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert correlation(np.array([1.0, 2, 3]), np.array([-20.0, -40, -60])) == pytest.approx(-1)
    assert correlation(np.array([1.0, 2, 4]), np.array([1.0, 2, 4])) == 1.0


@pytest.mark.parametrize("other", [[0.5, 0.5, 0.5], [0.1, math.nan, 0.2], [0.1, math.inf, 0.2]])
def test_what_is_the_same_everywhere_or_no_number_correlates_with_nothing(other: list[float]) -> None:
    assert correlation(np.array([1.0, 2, 3]), np.array(other)) is None
    assert correlation(np.array(other), np.array([1.0, 2, 3])) is None


def test_drift_from_itself_is_none() -> None:
    sums = DriftSums(BROADCAST)
    for maps in (maps_of([0.5, 0.25, 0.25], [0.125, 0.125, 0.75]), maps_of([0.25, 0.5, 0.25], [0.5, 0.25, 0.25])):
        sums.add(maps, maps)
    found = sums.result()
    assert (found.images, found.correlation, found.least, found.undefined) == (2, 1.0, 1.0, 0)
    assert (found.max_abs, found.same_key, found.shared) == (0.0, 1.0, 1.0)


def test_drift_is_the_mean_over_images_and_the_worst_of_them() -> None:
    sums = DriftSums(BROADCAST)
    reference = maps_of([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    sums.add(reference, reference)
    sums.add(reference, maps_of([0.25, 0.25, 0.5], [0.5, 0.25, 0.25]))  # both strong ones change places in each part
    sums.add(reference, maps_of([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]))  # another key token
    found = sums.result()
    assert (found.images, found.undefined) == (3, 0)
    # Deviations are 1/6, twice, and −1/12: of the reference with itself they add up to 1/12, with each of the others to −1/24.
    assert found.least == pytest.approx(-0.5)
    assert found.correlation == pytest.approx((1 - 0.5 - 0.5) / 3, abs=1e-12)
    assert found.max_abs == 0.25
    assert found.same_key == pytest.approx(2 / 3)
    assert found.shared == 1.0  # there are three tokens, all of which are among the eight strongest


def test_an_artefact_without_a_number_has_drift_without_a_correlation() -> None:
    sums = DriftSums(BROADCAST)
    reference = maps_of([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    sums.add(reference, np.full_like(reference, math.nan))
    found = sums.result()
    assert (found.correlation, found.least, found.undefined, found.max_abs) == (None, None, 1, math.inf)


def nodes(*made: tuple[str, str, str]) -> NodeMap:
    return NodeMap(Node(name, module, op) for name, module, op in made)


def test_a_map_is_found_by_its_module_and_from_the_last_of_its_softmaxes() -> None:
    program = nodes(
        ("softmax", "block", "aten.softmax.int"),
        ("softmax_1", "block", "aten.softmax.int"),
        ("softmax_2", "block.deeper", "aten.softmax.int"),
        ("matmul", "block", "aten.matmul.default"),
    )
    assert tensor_of(BROADCAST, program) == "softmax_1"
    with pytest.raises(InputError, match="the program has 0 softmaxes in block"):
        tensor_of(BROADCAST, nodes(("softmax", "other", "aten.softmax.int")))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_network_of_the_registry_says_where_its_maps_are(name: str) -> None:
    size = VARIANTS[name].config.input_size
    for one in attention_maps(name, size):
        heads, queries, keys = one.shape
        parts, tokens = (queries, keys) if one.asker == "image" else (keys, queries)
        assert one.first_part + math.prod(one.grid) == parts
        assert one.first_token + one.tokens <= tokens
        assert heads > 1
        assert one.token_grid is None or math.prod(one.token_grid) == one.tokens


def test_maps_follow_the_size_of_the_input() -> None:
    (found,) = attention_maps("dualtoken-vit-s-mix", (512, 512))
    assert (found.grid, found.token_grid, found.shape) == ((16, 16), (7, 7), (8, 256, 49))


def test_of_a_network_that_is_not_ours_no_tensor_is_called_a_map() -> None:
    with pytest.raises(InputError, match="timm:resnet18 has no attention maps that are known here"):
        attention_maps("timm:resnet18", (224, 224))


def artefact(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"")
    (folder / f"{name}.json").write_text("{}")
    return path


def test_images_and_artefacts_are_told_apart_in_any_order(tmp_path: Path) -> None:
    one, other = artefact(tmp_path / "", "net.onnx"), artefact(tmp_path, "oddly-named")
    image, missing = tmp_path / "3.png", tmp_path / "net.openvino"
    asked = told_apart([one, image, other, missing, tmp_path])
    assert asked.images == (image,)
    assert asked.artefacts == (one, other, missing, tmp_path)


def test_no_image_no_artefact_too_many_images_and_a_folder_of_images_are_refused(tmp_path: Path) -> None:
    net = artefact(tmp_path, "net.onnx")
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="no image was given"):
        told_apart([net])
    with pytest.raises(InputError, match=r"no artefact was given beside .*3\.png"):
        told_apart([tmp_path / "3.png"])
    with pytest.raises(InputError, match="no artefact is in the folder") as folder:
        told_apart([tmp_path / "images", net])
    assert "--data" in str(folder.value.remedy)
    with pytest.raises(InputError, match=f"{MOST_DRAWN + 1} images were given; at most {MOST_DRAWN} are drawn"):
        told_apart([*(tmp_path / f"{number}.png" for number in range(MOST_DRAWN + 1)), net])


def test_what_a_runtime_does_not_show_is_said_by_the_tensors_name(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("image", (1, 3, 4, 8)),), (TensorSpec("logits", (1, 2)),))
    manifest = Manifest(model="m", format="onnx", precision=Precision.FP32, sha256="0" * 64, signature=signature, lineage=())
    made = Artifact(tmp_path / "net.onnx", manifest)
    wanted = {"softmax_1": BROADCAST, "softmax_2": CLASS}
    some = Looker(Pairing(made, FakeRuntime(inner=("softmax_2", "add")), asked=True), wanted, nodes())
    assert list(some.maps) == ["softmax_2"]
    assert some.lacking == {
        "broadcast": "softmax_1, the softmax of block, is no tensor of net.onnx: it was fused with what stands beside it"
    }


def test_the_image_is_drawn_as_the_network_sees_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for channels in ("rgb", "bgr"):
        how = Preprocessing(resize=8, crop=(8, 8), channels=channels)
        assert np.array_equal(how.pixels(how.apply(Image.fromarray(pixels))), pixels)


def test_colours_are_those_of_the_scale_they_are_given() -> None:
    found = coloured(np.array([[0.0, 0.5, 1.0, 9.0, math.nan]]), 0.0, 1.0)[0]
    assert found[0].tolist() == [68, 1, 84]  # viridis' ends
    assert found[2].tolist() == found[3].tolist() == [253, 231, 37]
    assert found[4].tolist() == [0, 0, 0]
    assert len(np.unique(coloured(np.full((2, 2), 0.3), 0.3, 0.3).reshape(-1, 3), axis=0)) == 1  # a scale without a length


def test_a_map_lies_over_the_image_where_its_parts_are() -> None:
    backdrop = np.full((8, 16, 3), 200, np.uint8)
    found = overlaid(backdrop, np.array([[0.0, 1.0]]), 0.0, 1.0, smooth=False)
    assert found.shape == backdrop.shape
    assert np.array_equal(found[:, :8], np.broadcast_to(found[0, 0], (8, 8, 3)))
    assert found[0, 15].sum() > found[0, 0].sum()
    assert np.array_equal(found[:, 8:], np.broadcast_to(found[0, 15], (8, 8, 3)))
    darker = overlaid(backdrop // 4, np.array([[0.0, 1.0]]), 0.0, 1.0)
    assert darker.mean() < found.mean()  # the image shows through
