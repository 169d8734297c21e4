"""Operators that move values: shapes, slices, edges, gathering, and what is made from little; every type passes through unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("google.protobuf", reason="coremltools brings it")

from dtvit_deploy.runtimes.mil.program import Type  # noqa: E402

Array = NDArray[Any]
QUICK = settings(max_examples=40, deadline=None)
DTYPES = (np.float32, np.float16, np.int8, np.uint8, np.int32, np.bool_)


@st.composite
def arrays(draw: st.DrawFn, min_dims: int = 1, max_dims: int = 4, min_side: int = 1) -> Array:
    """Any type and shape, with all values different where the type has enough."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=4))
    x = np.arange(np.prod(shape)).reshape(shape)
    return np.asarray(x % 3 == 0 if dtype is np.bool_ else x % 120).astype(dtype)


def ints(values: Any) -> Array:
    return np.asarray(values, np.int32)


class TestShapes:
    @QUICK
    @given(x=arrays(min_side=0), data=st.data())
    def test_transpose(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        perm = data.draw(st.permutations(range(x.ndim)))
        signs = data.draw(st.lists(st.booleans(), min_size=x.ndim, max_size=x.ndim))
        counted = [axis - x.ndim if negative else axis for axis, negative in zip(perm, signs, strict=True)]
        agrees("transpose", {"x": x}, x.transpose(perm), perm=ints(counted))

    @QUICK
    @given(x=arrays(), data=st.data())
    def test_reshape_with_one_size_left_open(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        sizes = data.draw(st.permutations([*x.shape, 1]))
        wanted = x.reshape(sizes)
        opened = list(sizes)
        opened[data.draw(st.integers(0, len(sizes) - 1))] = -1
        agrees("reshape", {"x": x}, wanted, shape=ints(sizes))
        agrees("reshape", {"x": x}, wanted, shape=ints(opened))

    @pytest.mark.parametrize(
        ("given", "shape", "wanted"),
        [((2, 3, 4), (0, -1, 2), (2, 6, 2)), ((2, 50), (1, 0, -1, 0), (1, 1, 2, 50)), ((6,), (3, 2), (3, 2)), ((0, 3), (3, 0), (3, 0))],
    )
    def test_a_zero_takes_the_size_at_its_place_from_the_end(
        self, given: Any, shape: Any, wanted: Any, agrees: Callable[..., None]
    ) -> None:
        x = np.arange(np.prod(given), dtype=np.float32).reshape(given)
        agrees("reshape", {"x": x}, x.reshape(wanted), shape=ints(shape))

    def test_a_shape_of_another_size_is_refused(self, mil_op: Callable[..., Any]) -> None:
        with pytest.raises(InputError, match=r"reshape out\.0 cannot be evaluated: shape '\[4\]' is invalid"):
            mil_op("reshape", {"x": np.zeros(3, np.float32)}, [Type("fp32", (4,))], shape=ints([4]))

    @QUICK
    @given(x=arrays(min_dims=0, max_dims=3), data=st.data())
    def test_expand_and_squeeze(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        count = data.draw(st.integers(1, 2))
        rank = x.ndim + count
        axes = data.draw(st.lists(st.integers(-rank, rank - 1), min_size=count, max_size=count, unique_by=lambda axis: axis % rank))
        wide = np.expand_dims(x, tuple(axes))
        agrees("expand_dims", {"x": x}, wide, axes=ints(axes))
        agrees("squeeze", {"x": wide}, x, axes=ints(axes))
        agrees("squeeze", {"x": wide}, wide.squeeze())

    def test_squeezing_an_axis_that_is_not_single_leaves_it(self, agrees: Callable[..., None]) -> None:
        x = np.ones((2, 1, 3), np.float32)
        agrees("squeeze", {"x": x}, x[:, 0], axes=ints([0, 1, -1]))

    @QUICK
    @given(x=arrays(), data=st.data())
    def test_flatten_tile_and_reverse(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        axis = data.draw(st.integers(-x.ndim, x.ndim))
        agrees("flatten2d", {"x": x}, x.reshape(int(np.prod(x.shape[:axis])), -1), axis=np.int32(axis))
        reps = data.draw(st.lists(st.integers(1, 3), min_size=x.ndim, max_size=x.ndim))
        agrees("tile", {"x": x}, np.tile(x, reps), reps=ints(reps))
        axes = data.draw(st.lists(st.integers(0, x.ndim - 1), min_size=1, unique=True))
        agrees("reverse", {"x": x}, np.flip(x, axes), axes=ints(axes) - x.ndim)
        agrees("reverse", {"x": x}, np.flip(x))
        agrees("identity", {"x": x}, x)

    @QUICK
    @given(x=arrays(), data=st.data())
    def test_concat_stack_and_split(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
        several = [x, x[::-1].copy(), x]
        whole = np.concatenate(several, axis)
        agrees("concat", {"values": several}, whole, axis=np.int32(axis))
        agrees("stack", {"values": several}, np.stack(several, axis), axis=np.int32(axis))
        agrees("split", {"x": whole}, several, axis=np.int32(axis), num_splits=np.int32(3))
        sizes = [whole.shape[axis] - 1, 1]
        agrees("split", {"x": whole}, np.split(whole, sizes[:1], axis), axis=np.int32(axis), split_sizes=ints(sizes))
        agrees("split", {"x": whole}, whole, axis=np.int32(axis), num_splits=np.int32(1))

    def test_interleaving_takes_one_of_each_in_turn(self, agrees: Callable[..., None]) -> None:
        first, second = np.array([[1, 2], [3, 4], [5, 6]], np.int32), np.array([[7, 8], [9, 10], [11, 12]], np.int32)
        expected = np.array([[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]], np.int32)
        agrees("concat", {"values": [first, second]}, expected, axis=np.int32(0), interleave=np.bool_(True))
        agrees("concat", {"values": [first, second]}, np.hstack([first[:, [0]], second[:, [0]], first[:, [1]], second[:, [1]]]),
               axis=np.int32(-1), interleave=np.bool_(True))  # fmt: skip

    def test_a_split_that_does_not_add_up_is_refused(self, mil_op: Callable[..., Any]) -> None:
        x = np.zeros((5,), np.float32)
        with pytest.raises(InputError, match="5 cannot be split into 2 equal parts"):
            mil_op("split", {"x": x}, [Type("fp32", (2,)), Type("fp32", (3,))], axis=np.int32(0), num_splits=np.int32(2))

    def test_pixels_and_channels(self, agrees: Callable[..., None]) -> None:
        x = np.arange(2 * 8 * 3 * 2, dtype=np.float32).reshape(2, 8, 3, 2)
        shuffled = torch.pixel_shuffle(torch.from_numpy(x), 2).numpy()
        agrees("pixel_shuffle", {"x": x}, shuffled, upscale_factor=np.int32(2))
        agrees("pixel_unshuffle", {"x": shuffled}, x, downscale_factor=np.uint8(2))
        spread = np.empty((2, 2, 6, 4), np.float32)
        for i in range(2):
            for j in range(2):  # https://www.tensorflow.org/api_docs/python/tf/nn/depth_to_space: channels innermost
                spread[:, :, i::2, j::2] = x[:, (2 * i + j) * 2 : (2 * i + j) * 2 + 2]
        agrees("depth_to_space", {"x": x}, spread, block_size=np.int32(2))
        agrees("space_to_depth", {"x": spread}, x, block_size=np.int32(2))


class TestSlices:
    @QUICK
    @given(x=arrays(), data=st.data())
    def test_slices_are_pythons(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        slices, squeezed = [], []
        for size in x.shape:
            bound = st.integers(-size - 1, size + 1)
            slices.append(data.draw(st.builds(slice, st.none() | bound, st.none() | bound, st.sampled_from([1, 2, 3, -1, -2]))))
            squeezed.append(data.draw(st.booleans()) and data.draw(st.booleans()))
        index = [data.draw(st.integers(-size, size - 1)) for size in x.shape]
        where = tuple(at if single else one for at, single, one in zip(index, squeezed, slices, strict=True))
        expected = np.asarray(x[where])
        agrees(
            "slice_by_index",
            {"x": x},
            expected,
            begin=ints([at if single else one.start or 0 for at, single, one in zip(index, squeezed, slices, strict=True)]),
            end=ints([one.stop or 0 for one in slices]),
            stride=ints([one.step for one in slices]),
            begin_mask=np.array([one.start is None and not single for one, single in zip(slices, squeezed, strict=True)]),
            end_mask=np.array([one.stop is None for one in slices]),
            squeeze_mask=np.array(squeezed),
        )

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_they_are_the_references(self, dtype: Any, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = np.arange(60).reshape(3, 4, 5).astype(dtype)
        given = {"begin": ints([2, -3, 1]), "end": ints([0, 4, -1]), "stride": ints([-1, 2, 1])}
        masks = {"begin_mask": np.array([False, False, True]), "end_mask": np.array([True, False, False])}
        agrees("slice_by_index", {"x": x}, inferred("slice_by_index", x=x, **given, **masks), **given, **masks)
        squeeze = {"squeeze_mask": np.array([True, False, True])}
        agrees("slice_by_index", {"x": x}, inferred("slice_by_index", x=x, **given, **squeeze), **given, **squeeze)

    def test_an_index_beyond_its_axis_is_refused(self, mil_op: Callable[..., Any]) -> None:
        given = {"begin": ints([3]), "end": ints([4]), "squeeze_mask": np.array([True])}
        with pytest.raises(InputError, match="index 3 is beyond axis 0 of size 3"):
            mil_op("slice_by_index", {"x": np.zeros(3, np.float32)}, [Type("fp32", ())], **given)

    @QUICK
    @given(x=arrays(), data=st.data())
    def test_slices_by_size(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        begin = [data.draw(st.integers(-size, size - 1)) for size in x.shape]
        starts = [at % size for at, size in zip(begin, x.shape, strict=True)]
        sizes = [data.draw(st.sampled_from([-1, *range(1, size - at + 1)])) for at, size in zip(starts, x.shape, strict=True)]
        where = tuple(slice(at, None if size == -1 else at + size) for at, size in zip(starts, sizes, strict=True))
        agrees("slice_by_size", {"x": x}, x[where], begin=ints(begin), size=ints(sizes))

    @pytest.mark.parametrize("edges", [((0, 0), (0, 0)), ((1, 0), (0, 2)), ((1, 2), (3, 1))])
    def test_crop_the_last_two_axes(self, edges: Any, agrees: Callable[..., None]) -> None:
        x = np.arange(40, dtype=np.float32).reshape(1, 2, 4, 5)
        (top, bottom), (left, right) = edges
        agrees("crop", {"x": x}, x[..., top : 4 - bottom, left : 5 - right], crop_height=ints(edges[0]), crop_width=ints(edges[1]))

    @QUICK
    @given(x=arrays(), data=st.data(), mode=st.sampled_from(["constant", "reflect", "replicate"]))
    def test_pad_the_last_axes(self, x: Array, data: st.DataObject, mode: str, agrees: Callable[..., None]) -> None:
        count = data.draw(st.integers(1, x.ndim))
        most = [2 if mode == "constant" else min(2, size - (mode == "reflect")) for size in x.shape[-count:]]
        pairs = [(data.draw(st.integers(0, limit)), data.draw(st.integers(0, limit))) for limit in most]
        assume(x.dtype != np.bool_ or mode != "constant")
        value = {"constant_values": 7} if mode == "constant" else {}
        words = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
        whole = [(0, 0)] * (x.ndim - count) + pairs
        expected = np.pad(x, whole, mode=words[mode], **value)  # type: ignore[call-overload]
        agrees("pad", {"x": x}, expected, pad=ints(pairs).flatten(), mode=mode, constant_val=np.asarray(7).astype(x.dtype))

    def test_it_makes_no_more_than_is_declared(self, mil_op: Callable[..., Any]) -> None:
        """A small file must not fill the memory."""
        x = np.zeros(1, np.float32)
        huge = ints([2**30, 0])
        with pytest.raises(InputError, match="it makes 1073741825 fp32, declared is 1 fp32"):
            mil_op("pad", {"x": x}, [Type("fp32", (1,))], pad=huge)
        with pytest.raises(InputError, match="it would make 1073741824 values; at most 268,435,456 are held"):
            mil_op("tile", {"x": x}, [Type("fp32", (1,))], reps=huge[:1])
        with pytest.raises(InputError, match="it would make 1073741824 values; at most 268,435,456 are held"):
            mil_op("fill", {}, [Type("fp32", (1,))], shape=huge[:1])

    def test_axes_beyond_the_last_are_not_taken_for_others(self, mil_op: Callable[..., Any]) -> None:
        with pytest.raises(InputError, match=r"its perm are \[5, 7, 9\], its input has 3"):
            mil_op("transpose", {"x": np.zeros((2, 2, 2), np.float32)}, [Type("fp32", (2, 2, 2))], perm=ints([5, 7, 9]))

    @pytest.mark.parametrize("lower", [-1, 0, 1])
    @pytest.mark.parametrize("upper", [-1, 0, 2])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.bool_])
    def test_a_band(self, lower: int, upper: int, dtype: Any, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = np.arange(1, 25).reshape(2, 3, 4).astype(dtype)
        given = {"lower": np.int32(lower), "upper": np.int32(upper)}
        agrees("band_part", {"x": x}, inferred("band_part", x=x, **given).astype(dtype), **given)


class TestGathering:
    @QUICK
    @given(x=arrays(), data=st.data())
    def test_slices_along_an_axis(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
        size = x.shape[axis]
        indices = data.draw(
            hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), elements=st.integers(-size, size - 1))
        )
        agrees("gather", {"x": x, "indices": indices}, np.asarray(np.take(x, indices, axis)), axis=np.int32(axis))

    @pytest.mark.parametrize(("shape", "indices", "axis", "batch"), [
        ((2, 3, 4), (2, 5), 1, 1), ((2, 3, 4), (2, 5), 2, 1), ((2, 3, 4), (2, 3, 2), -1, 2), ((2, 3, 4, 5), (2, 2, 2), 2, 1),
    ])  # fmt: skip
    def test_with_axes_walked_together(self, shape: Any, indices: Any, axis: int, batch: int, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, where = rng.standard_normal(shape, np.float32), rng.integers(0, shape[axis], indices).astype(np.int32)
        at = axis % len(shape)

        def walk(x: Array, where: Array, left: int) -> Array:
            return np.take(x, where, at - batch) if not left else np.stack([walk(a, b, left - 1) for a, b in zip(x, where, strict=True)])

        agrees("gather", {"x": x, "indices": where}, walk(x, where, batch), axis=np.int32(axis), batch_dims=np.int32(batch))

    @QUICK
    @given(x=arrays(), data=st.data())
    def test_along_an_axis_each_for_itself(self, x: Array, data: st.DataObject, agrees: Callable[..., None]) -> None:
        axis = data.draw(st.integers(0, x.ndim - 1))
        shape = list(x.shape)
        shape[axis] = data.draw(st.integers(1, 4))
        indices = data.draw(hnp.arrays(np.int32, tuple(shape), elements=st.integers(-x.shape[axis], x.shape[axis] - 1)))
        agrees("gather_along_axis", {"x": x, "indices": indices}, np.take_along_axis(x, indices, axis), axis=np.int32(axis - x.ndim))

    @pytest.mark.parametrize(("indices", "batch"), [((3, 2), 0), ((3, 3), 0), ((4, 1), 0), ((2, 5, 1), 1), ((2, 3, 2, 1), 2), ((2, 2), 1)])
    def test_positions_in_the_first_axes(self, indices: Any, batch: int, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 3, 4), np.float32)
        limits = x.shape[batch : batch + indices[-1]]
        where = np.stack([rng.integers(-limit, limit, indices[:-1]) for limit in limits], -1).astype(np.int32)

        def walk(x: Array, where: Array, left: int) -> Array:
            if left:
                return np.stack([walk(a, b, left - 1) for a, b in zip(x, where, strict=True)])
            return x[tuple(np.moveaxis(where, -1, 0))]

        agrees("gather_nd", {"x": x, "indices": where}, walk(x, where, batch), batch_dims=np.int32(batch))

    @pytest.mark.parametrize("kind", ["gather", "gather_along_axis"])
    def test_an_index_beyond_its_axis_is_refused_when_it_comes(self, kind: str, mil_op: Callable[..., Any]) -> None:
        x = np.zeros(3, np.float32)
        with pytest.raises(InputError, match=f"the program's {kind} out.0 cannot be evaluated: .*out of (range|bounds)"):
            mil_op(kind, {"x": x, "indices": ints([3])}, [Type("fp32", (1,))])

    @pytest.mark.parametrize("kind", ["gather", "gather_along_axis", "gather_nd"])
    @pytest.mark.parametrize("index", [-4, 3])
    def test_an_index_does_not_go_round(self, kind: str, index: int, mil_op: Callable[..., Any]) -> None:
        x, where = np.arange(3, dtype=np.float32), ints([[index]] if kind == "gather_nd" else [index])
        with pytest.raises(InputError, match=f"the program's {kind} out.0 cannot be evaluated: .*out of (range|bounds)"):
            mil_op(kind, {"x": x}, [Type("fp32", (1,))], indices=where)


def written(data: Array, place: tuple[Any, ...], value: Array, mode: str) -> None:
    """One update after the other, as the reference describes it."""
    was = data[place]
    changed = {"update": value, "add": was + value, "sub": was - value, "mul": was * value, "max": np.maximum(was, value)}
    changed |= {"min": np.minimum(was, value)}
    data[place] = was / value if mode == "div" else changed[mode]


MODES = ("add", "div", "max", "min", "mul", "sub", "update")


class TestScattering:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_slices_along_an_axis(self, axis: int, mode: str, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        data, indices = rng.standard_normal((4, 3, 5), np.float32), ints([2, 0, -3] if mode == "update" else [2, 0, -1, 2])
        updates = rng.uniform(1, 2, [len(indices) if at == axis % 3 else size for at, size in enumerate(data.shape)]).astype(np.float32)
        expected = data.copy()
        for at, index in enumerate(indices):
            written(np.moveaxis(expected, axis, 0), (index,), np.moveaxis(updates, axis, 0)[at], mode)
        agrees("scatter", {"data": data, "indices": indices, "updates": updates}, expected, axis=np.int32(axis), mode=mode)

    @pytest.mark.parametrize("mode", MODES)
    def test_along_an_axis_each_for_itself(self, mode: str, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(1)
        data, indices = rng.standard_normal((2, 4), np.float32), ints([[3, 0, -2], [1, 0, 2]])
        updates = rng.uniform(1, 2, (2, 3)).astype(np.float32)
        expected = data.copy()
        for row, column in np.ndindex(2, 3):
            written(expected, (row, indices[row, column]), updates[row, column], mode)
        agrees("scatter_along_axis", {"data": data, "indices": indices, "updates": updates}, expected, axis=np.int32(1), mode=mode)

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_positions_in_the_first_axes(self, depth: int, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(2)
        data = rng.integers(-9, 9, (2, 3, 4)).astype(np.int32)
        indices = ints([[1, 2, 3], [0, 1, 0], [-1, 2, 3]])[:, :depth]
        updates = rng.integers(-9, 9, (3, *data.shape[depth:])).astype(np.int32)
        expected = data.copy()
        for place, update in zip(indices, updates, strict=True):
            written(expected, tuple(place), update, "add")
        agrees("scatter_nd", {"data": data, "indices": indices, "updates": updates}, expected)

    @pytest.mark.parametrize("index", [[3, 0], [-4, 0], [0, 2]])
    def test_an_index_does_not_go_round(self, index: list[int], mil_op: Callable[..., Any]) -> None:
        given = {"data": np.zeros((3, 2), np.float32), "indices": ints([index]), "updates": np.ones(1, np.float32)}
        with pytest.raises(InputError, match=r"the program's scatter_nd out.0 cannot be evaluated: .*out of (range|bounds)"):
            mil_op("scatter_nd", given, [Type("fp32", (3, 2))])

    def test_what_nothing_says_is_refused(self, mil_op: Callable[..., Any]) -> None:
        given = {"data": ints([4, 5]), "indices": ints([0]), "updates": ints([2])}
        with pytest.raises(InputError, match="it has no mode"):
            mil_op("scatter", given, [Type("int32", (2,))])
        with pytest.raises(InputError, match="divides whole numbers"):
            mil_op("scatter", given, [Type("int32", (2,))], mode="div")


class TestCreation:
    def test_filled(self, agrees: Callable[..., None], mil_op: Callable[..., Any]) -> None:
        assert (
            mil_op("fill", {}, [Type("fp16", (2, 2))], shape=ints([2, 2]), value=np.float16(0.1))[0].tolist() == [[np.float16(0.1)] * 2] * 2
        )
        agrees("fill_like", {"ref_tensor": np.zeros((2, 3), np.float32)}, np.full((2, 3), 7, np.int32), value=np.int32(7))
        agrees("shape", {"x": np.zeros((2, 0, 3), np.float16)}, ints([2, 0, 3]))

    @pytest.mark.parametrize(("start", "end", "step"), [(0, 5, 1), (5, 0, -2), (0.5, 2.0, 0.25), (3, 3, 1)])
    def test_counted(self, start: float, end: float, step: float, agrees: Callable[..., None]) -> None:
        dtype = np.int32 if isinstance(start, int) else np.float32
        given = {"start": dtype(start), "end": dtype(end), "step": dtype(step)}
        agrees("range_1d", {}, np.arange(start, end, step, dtype), **given)

    @pytest.mark.parametrize("axis", [-1, 0, 1])
    def test_one_hot(self, axis: int, agrees: Callable[..., None]) -> None:
        indices = ints([[0, 2], [-1, 3]])
        hot = np.moveaxis(np.where(indices[..., None] == np.arange(3), np.float32(2), np.float32(-1)), -1, axis)
        given = {"one_hot_vector_size": np.int32(3), "on_value": np.float32(2), "off_value": np.float32(-1)}
        agrees("one_hot", {"indices": indices}, hot, axis=np.int32(axis), **given)
