"""Reductions, normalisations and sizes of images: against the reference's value inference, torch, and its formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("google.protobuf", reason="coremltools brings it")

from torch.nn import functional as F  # noqa: E402

from dtvit_deploy.runtimes.mil.ops.reduction import REDUCTIONS  # noqa: E402
from dtvit_deploy.runtimes.mil.ops.resizing import POSITIONS  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Type  # noqa: E402

Array = NDArray[Any]
QUICK = settings(max_examples=25, deadline=None)
FLOATS = (np.float32, np.float16)


def numbers(shape: Any, size: float = 4.0) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float32, shape, elements=st.floats(-size, size, width=16))


def rounded(values: Any, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(dtype)


class TestReductions:
    @pytest.mark.parametrize("kind", REDUCTIONS)
    @pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
    @QUICK
    @given(data=st.data())
    def test_over_axes(self, kind: str, dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = data.draw(numbers(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3)))
        if "log_sum" in kind:
            x = np.abs(x) + 1
        x = x.astype(dtype)
        axes = data.draw(st.none() | st.lists(st.integers(-x.ndim, x.ndim - 1), min_size=1, unique_by=lambda axis: axis % x.ndim))
        given: dict[str, Any] = {"keep_dims": data.draw(st.booleans())}
        if axes is not None:
            given["axes"] = np.int32(axes)
        expected = inferred(kind, x=x if dtype is np.int32 else x.astype(np.float32), **given)
        agrees(kind, {"x": x}, np.asarray(expected) if dtype is np.int32 else rounded(expected, dtype), rtol=1e-4, atol=1e-5, **given)

    @pytest.mark.parametrize("kind", ["reduce_max", "reduce_min", "reduce_sum", "reduce_mean"])
    def test_infinity_and_nan_stay_visible(self, kind: str, agrees: Callable[..., None]) -> None:
        x = np.array([[1, np.inf], [np.nan, 2], [-np.inf, -np.inf]], np.float32)
        numpys = {"reduce_max": np.max, "reduce_min": np.min, "reduce_sum": np.sum, "reduce_mean": np.mean}[kind]
        agrees(kind, {"x": x}, numpys(x, axis=1), axes=np.int32([1]))

    @pytest.mark.parametrize("kind", ["reduce_argmax", "reduce_argmin"])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("keep", [False, True])
    def test_positions(self, kind: str, axis: int, keep: bool, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4).astype(np.float32)
        given = {"axis": np.int32(axis), "keep_dims": keep}
        expected = inferred(kind, x=x, **given)
        agrees(kind, {"x": x}, expected.astype(np.int32), **given)
        agrees(kind, {"x": x.astype(np.int32)}, expected.astype(np.uint16), output_dtype="uint16", **given)

    @pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
    @pytest.mark.parametrize("exclusive", [False, True])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_sums_on_the_way(self, dtype: Any, exclusive: bool, reverse: bool, agrees: Callable[..., None]) -> None:
        x = np.arange(12).reshape(3, 4).astype(dtype)
        turned = x[:, ::-1] if reverse else x
        total = np.cumsum(turned, 1, dtype=np.float32)
        total = total - turned if exclusive else total
        expected = (total[:, ::-1] if reverse else total).astype(dtype)
        agrees("cumsum", {"x": x}, expected, axis=np.int32(-1), exclusive=np.bool_(exclusive), reverse=np.bool_(reverse))

    @pytest.mark.parametrize("ascending", [False, True])
    @pytest.mark.parametrize("axis", [0, -1])
    def test_order(self, ascending: bool, axis: int, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = np.random.default_rng(0).permutation(12).reshape(3, 4).astype(np.float32)
        given = {"axis": np.int32(axis), "ascending": np.bool_(ascending)}
        agrees("argsort", {"x": x}, inferred("argsort", x=x, **given).astype(np.int32), **given)
        values, indices = inferred("topk", x=x, k=np.int32(2), **given)
        agrees("topk", {"x": x}, (values, indices.astype(np.int32)), k=np.int32(2), **given)
        agrees("topk", {"x": x}, values, k=np.int32(2), return_indices=np.bool_(False), **given)
        agrees("topk", {"x": x}, (values, indices.astype(np.uint16)), k=np.int32(2), output_indices_dtype="uint16", **given)

    @pytest.mark.parametrize("dtype", FLOATS)
    @QUICK
    @given(data=st.data())
    def test_softmax(self, dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = data.draw(numbers(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), 60.0)).astype(dtype)
        axis = np.int32(data.draw(st.integers(-x.ndim, x.ndim - 1)))
        agrees("softmax", {"x": x}, rounded(inferred("softmax", x=x.astype(np.float32), axis=axis), dtype), axis=axis)

    def test_classify_gives_the_likeliest_and_all(self, mil_op: Callable[..., Any]) -> None:
        x = np.array([[0.1, 0.7, 0.2]], np.float32)
        label, every = mil_op("classify", {"probabilities": x}, [Type("int64", ()), Type("fp32", (3,))])
        assert label == 1
        np.testing.assert_array_equal(every, x[0])
        with pytest.raises(InputError, match="it makes 2 tensors, 1 are declared"):
            mil_op("classify", {"probabilities": x}, [Type("fp32", (3,))])


class TestNormalisations:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("axes", [None, [-1], [1], [1, 2], [-3, -1]])
    @pytest.mark.parametrize("scaled", [False, True])
    @pytest.mark.parametrize("epsilon", [1e-5, 0.5])
    def test_layer_norm(
        self, dtype: Any, axes: Any, scaled: bool, epsilon: float, agrees: Callable[..., None], inferred: Callable[..., Any]
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
        over = sorted(axis % 4 for axis in axes) if axes else [0, 1, 2, 3]
        given: dict[str, Any] = {"axes": np.int32(over), "epsilon": dtype(epsilon)}
        if scaled:
            sizes = [x.shape[axis] for axis in over]
            given |= {"gamma": rng.standard_normal(sizes).astype(dtype), "beta": rng.standard_normal(sizes).astype(dtype)}
        wide = {name: value.astype(np.float32) if name != "axes" else value for name, value in given.items()}
        expected = rounded(inferred("layer_norm", x=x.astype(np.float32), **wide), dtype)
        # What is subtracted at the end may leave little: an absolute limit, of a unit in the last place at 1.
        agrees(
            "layer_norm",
            {"x": x},
            expected,
            atol=1e-5 if dtype is np.float32 else 2e-3,
            **(given | {"axes": np.int32(axes)} if axes else given),
        )

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 2, 2)])
    @pytest.mark.parametrize("scaled", [False, True])
    def test_batch_norm(self, dtype: Any, shape: Any, scaled: bool, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, mean, gamma, beta = (rng.standard_normal(size).astype(dtype) for size in (shape, 3, 3, 3))
        variance = (rng.random(3) + 0.1).astype(dtype)
        given = {"mean": mean, "variance": variance, "epsilon": dtype(1e-3)} | ({"gamma": gamma, "beta": beta} if scaled else {})
        m, v, g, b = (np.float32(a).reshape(3, *(1 for _ in shape[2:])) for a in (mean, variance, gamma, beta))
        normal = (x.astype(np.float32) - m) / np.sqrt(v + np.float32(dtype(1e-3)))
        agrees(
            "batch_norm",
            {"x": x},
            rounded(normal * g + b if scaled else normal, dtype),
            atol=1e-5 if dtype is np.float32 else 2e-3,
            **given,
        )

    @pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
    @pytest.mark.parametrize("scaled", [False, True])
    def test_instance_norm(self, shape: Any, scaled: bool, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, gamma, beta = (rng.standard_normal(size, np.float32) for size in (shape, 3, 3))
        tensors = [torch.from_numpy(a) for a in (x, gamma, beta)]
        expected = F.instance_norm(tensors[0], weight=tensors[1] if scaled else None, bias=tensors[2] if scaled else None, eps=1e-3).numpy()
        agrees("instance_norm", {"x": x}, expected, epsilon=np.float32(1e-3), **({"gamma": gamma, "beta": beta} if scaled else {}))

    @pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 2, 2)])
    def test_l2_norm_over_the_last_three_axes(self, shape: Any, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        agrees("l2_norm", {"x": x}, inferred("l2_norm", x=x, epsilon=np.float32(1e-2)), epsilon=np.float32(1e-2))

    def test_local_response_norm(self, agrees: Callable[..., None], mil_op: Callable[..., Any]) -> None:
        x = np.random.default_rng(0).standard_normal((1, 5, 2, 2), np.float32)
        around = np.pad(x**2, [(0, 0), (1, 1), (0, 0), (0, 0)])
        expected = x / (2 + 0.5 / 3 * (around[:, :-2] + around[:, 1:-1] + around[:, 2:])) ** 0.6
        agrees("local_response_norm", {"x": x}, expected, size=np.int32(3), alpha=np.float32(0.5), beta=np.float32(0.6), k=np.float32(2))
        with pytest.raises(InputError, match="no documented middle"):
            mil_op("local_response_norm", {"x": x}, [Type("fp32", x.shape)], size=np.int32(4))


def between(x: Array, axis: int, positions: Array) -> Array:
    """Straight lines between neighbours along an axis."""
    low = np.floor(positions).astype(int)
    share = (positions - low).astype(np.float32).reshape(-1, *(1 for _ in range(-1 - axis)))
    high = np.minimum(low + 1, x.shape[axis] - 1)
    return np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share


class TestSizes:
    @pytest.mark.parametrize("mode", ["nearest", "bilinear"])
    def test_a_factor_that_is_nearly_1_4_makes_14_of_10(self, mode: str, agrees: Callable[..., None]) -> None:
        x = np.random.default_rng(0).standard_normal((1, 2, 10, 10), np.float32)
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=1.4, mode=mode).numpy()
        kind = {"nearest": "upsample_nearest_neighbor", "bilinear": "upsample_bilinear"}[mode]
        more = {} if mode == "nearest" else {"align_corners": np.bool_(False)}
        factor = np.float32(1.4)
        agrees(kind, {"x": x}, expected, scale_factor_height=factor, scale_factor_width=factor, **more)

    @pytest.mark.parametrize("half", [None, False])
    @pytest.mark.parametrize(
        ("align", "factors"), [(True, (2, 3)), (False, (2, 3)), (False, (1.5, 0.5)), (True, (1, 1)), (True, (2.5, 0.25))]
    )
    def test_upsample_bilinear_is_torchs(self, align: bool, factors: Any, half: bool | None, agrees: Callable[..., None]) -> None:
        x = np.random.default_rng(0).standard_normal((1, 2, 4, 4), np.float32)
        size = [int(4 * factor) for factor in factors]
        given = {
            "scale_factor_height": np.float32(factors[0]),
            "scale_factor_width": np.float32(factors[1]),
            "align_corners": np.bool_(align),
        }
        if half is not None:
            given["half_pixel_centers"] = np.bool_(half)
        if half is None or align:
            expected = F.interpolate(torch.from_numpy(x), size=size, mode="bilinear", align_corners=align).numpy()
        else:
            expected = between(between(x, -2, np.arange(size[0]) * 4 / size[0]), -1, np.arange(size[1]) * 4 / size[1])
        agrees("upsample_bilinear", {"x": x}, expected, **given)

    DOCUMENTED = (
        (5, "UNALIGN_CORNERS", [0.0, 0.1, 0.5, 0.9, 1.0]),
        (5, "STRICT_ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
        (5, "ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
        (5, "DEFAULT", [0.0, 0.4, 0.8, 1.0, 1.0]),
        (5, "OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        (6, "UNALIGN_CORNERS", [0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0]),
        (6, "DEFAULT", [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        (6, "OFFSET_CORNERS", [0.5 / 6, 1.5 / 6, 2.5 / 6, 3.5 / 6, 4.5 / 6, 5.5 / 6]),
        (1, "ALIGN_CORNERS", [0.5]),
        (1, "STRICT_ALIGN_CORNERS", [0.0]),
    )

    @pytest.mark.parametrize(("count", "mode", "positions"), DOCUMENTED)
    def test_positions_are_those_of_the_documentation(
        self, count: int, mode: str, positions: list[float], agrees: Callable[..., None]
    ) -> None:
        """The examples in the reference's text on ``resize_bilinear``, for a row of two."""
        x = np.array([[[0.0, 1.0]]], np.float32)
        given = {"target_size_height": np.int32(1), "target_size_width": np.int32(count), "sampling_mode": mode}
        agrees("resize_bilinear", {"x": x}, np.float32([[positions]]), **given)
        agrees("resize", {"x": x}, np.float32([[positions]]), shape=np.int32([count]), resized_dims=np.int32(1), sampling_mode=mode)

    @pytest.mark.parametrize("mode", POSITIONS)
    @pytest.mark.parametrize(("high", "wide"), [(7, 3), (1, 8), (4, 5)])
    def test_resizing_two_axes(self, mode: str, high: int, wide: int, agrees: Callable[..., None]) -> None:
        """Each axis by itself: rows after columns are columns after rows."""
        x = np.random.default_rng(0).standard_normal((1, 2, 4, 5), np.float32)
        rows = between(np.eye(4, dtype=np.float32), -2, POSITIONS[mode](4, high).numpy())
        columns = between(np.eye(5, dtype=np.float32), -2, POSITIONS[mode](5, wide).numpy())
        expected = np.einsum("hi,ncij,wj->nchw", rows, x, columns)
        given = {"target_size_height": np.int32(high), "target_size_width": np.int32(wide), "sampling_mode": mode}
        agrees("resize_bilinear", {"x": x}, expected, atol=1e-5, **given)

    @pytest.mark.parametrize("factors", [(2, 3), (1.5, 0.5), (1, 2.5)])
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_nearest_pixels_are_torchs(self, factors: Any, dtype: Any, agrees: Callable[..., None]) -> None:
        x = np.arange(32).reshape(1, 2, 4, 4).astype(dtype)
        size = [int(4 * factor) for factor in factors]
        plain = F.interpolate(torch.from_numpy(x).float(), size=size, mode="nearest").numpy().astype(dtype)
        given = {"scale_factor_height": np.float32(factors[0]), "scale_factor_width": np.float32(factors[1])}
        agrees("upsample_nearest_neighbor", {"x": x}, plain, **given)
        centred = F.interpolate(torch.from_numpy(x).float(), size=size, mode="nearest-exact").numpy().astype(dtype)
        agrees("resize_nearest_neighbor", {"x": x}, centred, target_size_height=np.int32(size[0]), target_size_width=np.int32(size[1]))

    def test_nearest_pixels_of_resize_only_where_nothing_is_open(self, agrees: Callable[..., None], mil_op: Callable[..., Any]) -> None:
        x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
        given = {"resized_dims": np.int32(2), "interpolation_mode": "NEAREST_NEIGHBOR"}
        agrees("resize", {"x": x}, x.repeat(2, 2).repeat(3, 3), shape=np.int32([4, 6]), **given)
        agrees("resize", {"x": x}, x.repeat(3, 3), shape=np.int32([1, 0, 6]), **given)
        with pytest.raises(InputError, match="documented only for whole factors"):
            mil_op("resize", {"x": x}, [Type("fp32", (1, 1, 3, 2))], shape=np.int32([3, 2]), **given)
