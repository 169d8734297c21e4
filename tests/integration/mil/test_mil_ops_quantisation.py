"""Quantisation, and constants that are stored compressed: exact, against the reference's own numpy."""

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

from dtvit_deploy.runtimes.mil.blob import tensor_from_bytes, unpacked  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Constant, Type  # noqa: E402

Array = NDArray[Any]
QUICK = settings(max_examples=40, deadline=None)
BITS = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6, "uint8": 8}


@pytest.fixture(scope="session")
def reference(inferred: Callable[..., Any]) -> Any:
    """coremltools' functions in numpy; ``inferred`` is asked for first, as it skips where coremltools is missing."""
    from coremltools.converters.mil.mil.ops.defs import iOS16, iOS18
    from coremltools.optimize import _utils

    class Reference:
        quantisation = _utils
        older = iOS16.constexpr_ops
        newer = iOS18.compression

    return Reference


class TestActivations:
    @pytest.mark.parametrize("kind", ["int8", "uint8"])
    @QUICK
    @given(data=st.data())
    def test_to_integers_and_back(self, kind: str, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
        x = data.draw(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-300, 300, width=16)))
        axis = data.draw(st.sampled_from([None, 0, 1, -1]))
        shape = () if axis is None else (x.shape[axis],)
        given: dict[str, Any] = {"scale": data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.25, 0.5, 1.0, 3.0])))}
        if data.draw(st.booleans()):
            lowest = -128 if kind == "int8" else 0
            given["zero_point"] = data.draw(hnp.arrays(np.dtype(kind), shape, elements=st.integers(lowest, lowest + 255)))
        if axis is None:
            given = {name: value[()] for name, value in given.items()}
        else:
            given["axis"] = np.int32(axis)
        quantised = np.asarray(inferred("quantize", input=x, output_dtype=kind, **given))
        agrees("quantize", {"input": x}, quantised.astype(kind), rtol=0, output_dtype=kind, **given)
        scale, zero = (np.float32(given.get(name, 0)) for name in ("scale", "zero_point"))
        along = [1, 1, 1]
        if axis is not None:
            along[axis] = -1
            scale, zero = scale.reshape(along), (zero.reshape(along) if zero.ndim else zero)
        agrees("dequantize", {"input": quantised.astype(kind)}, (quantised.astype(np.float32) - zero) * scale, rtol=0, **given)

    def test_a_tie_goes_to_the_even_integer_and_the_rest_is_clipped(self, agrees: Callable[..., None]) -> None:
        x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -128.5, 1e9, -np.inf, np.inf], np.float32)
        expected = np.array([0, 2, 2, 0, -2, 126, 127, -128, 127, -128, 127], np.int8)
        agrees("quantize", {"input": x}, expected, scale=np.float32(1), output_dtype="int8")

    def test_half_precision_comes_back_rounded(self, agrees: Callable[..., None]) -> None:
        x = np.array([-128, -1, 0, 3, 127], np.int8)
        scale = np.float16(0.1)
        agrees("dequantize", {"input": x}, (x * np.float32(scale)).astype(np.float16), scale=scale)
        agrees("quantize", {"input": (x * np.float32(scale)).astype(np.float16)}, x, scale=scale, output_dtype="int8")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"scale": np.ones(2, np.float32), "axis": np.int32(0)}, "its scale has the shape"),
            ({"scale": np.ones(3, np.float32)}, "it has no axis"),
            ({"scale": np.ones(3, np.float32), "axis": np.int32(1)}, "its axis is 1, its input has 1 axes"),
            ({}, "it has no scale"),
        ],
    )
    def test_scales_that_do_not_fit_are_refused(self, given: dict[str, Any], said: str, mil_op: Callable[..., Any]) -> None:
        with pytest.raises(InputError, match=f"the program's dequantize out.0 cannot be evaluated: {said}"):
            mil_op("dequantize", {"input": np.zeros(3, np.int8)}, [Type("fp32", (3,))], **given)


class TestConstants:
    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    @pytest.mark.parametrize("scalar", [False, True])
    def test_affine(self, axis: int, dtype: Any, scalar: bool, agrees: Callable[..., None], reference: Any) -> None:
        rng = np.random.default_rng(0)
        data = rng.integers(-128, 128, (2, 3, 4)).astype(np.int8)
        size = () if scalar else (data.shape[axis],)
        scale, zero = rng.random(size).astype(dtype), np.asarray(rng.integers(-9, 9, size)).astype(np.int8)
        wide = reference.older.constexpr_affine_dequantize.decompress(data, zero, np.asarray(scale, np.float32), axis)
        given = {"quantized_data": data, "scale": scale, "zero_point": zero, "axis": np.int32(axis)}
        agrees("constexpr_affine_dequantize", {}, wide.astype(dtype), **given)

    @pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
    def test_a_table_with_packed_indices(self, bits: int, agrees: Callable[..., None], reference: Any) -> None:
        rng = np.random.default_rng(bits)
        lut = rng.standard_normal(2**bits, np.float32)
        shape = (3, 5)
        packed = rng.integers(0, 256, -(-15 * bits // 8)).astype(np.uint8)
        expected = reference.older.constexpr_lut_to_dense.decompress(lut, packed, np.array(shape))
        agrees("constexpr_lut_to_dense", {}, expected, indices=packed, lut=lut, shape=np.uint32(shape).astype(np.int32))

    def test_a_mask_with_packed_bits(self, agrees: Callable[..., None], reference: Any) -> None:
        values, mask = np.array([1, 2, 3, 4], np.float32), np.array([0b00101001, 0b00000100], np.uint8)
        expected = reference.older.constexpr_sparse_to_dense.decompress(values, mask, (4, 4))
        agrees("constexpr_sparse_to_dense", {}, expected, nonzero_data=values, mask=mask, shape=np.int32([4, 4]))

    @pytest.mark.parametrize("blocks", [(1, 1), (2, 1), (4, 2), (4, 6)])
    @pytest.mark.parametrize("offset", [False, True])
    @pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
    def test_blocks(self, blocks: Any, offset: bool, kind: str, agrees: Callable[..., None], reference: Any) -> None:
        rng = np.random.default_rng(0)
        low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128)}[kind]
        held = np.uint8 if kind == "uint4" else np.int8
        data = rng.integers(low, high, (4, 6)).astype(held)
        scale = rng.random(blocks).astype(np.float32)
        zero = rng.integers(low, high, blocks).astype(held) if offset else None
        expected = reference.newer.constexpr_blockwise_shift_scale.decompress(data, scale, zero)
        given = {
            name: Constant(Type(kind, value.shape), torch.from_numpy(value))
            for name, value in (("data", data), ("offset", zero))
            if value is not None
        }
        agrees("constexpr_blockwise_shift_scale", {}, expected, scale=scale, **given)

    @pytest.mark.parametrize(
        ("tables", "width", "axis"),
        [((1, 1), 1, None), ((2, 1), 1, None), ((2, 3), 1, None), ((1, 1), 2, 0), ((2, 1), 3, 1), ((1, 3), 2, -1)],
    )
    def test_a_table_for_each_block(self, tables: Any, width: int, axis: int | None, agrees: Callable[..., None], reference: Any) -> None:
        rng = np.random.default_rng(0)
        indices, lut = rng.integers(0, 4, (4, 6)).astype(np.uint8), rng.standard_normal((*tables, 4, width), np.float32)
        expected = reference.newer.constexpr_lut_to_dense.decompress(indices, lut, axis)
        words = Constant(Type("uint2", indices.shape), torch.from_numpy(indices))
        agrees("constexpr_lut_to_dense", {}, expected, indices=words, lut=lut, vector_axis=None if axis is None else np.int32(axis))

    @pytest.mark.parametrize(
        ("index", "axis", "said"),
        [(4, 1, "its indices reach 4 in tables of 4"), (3, 2, "its vector_axis is 2"), (3, -3, "its vector_axis is -3")],
    )
    def test_a_table_is_not_left_for_the_next(self, index: int, axis: int, said: str, mil_op: Callable[..., Any]) -> None:
        indices, lut = np.full((4, 6), index, np.uint8), np.zeros((2, 1, 4, 2), np.float32)
        with pytest.raises(InputError, match=said):
            mil_op("constexpr_lut_to_dense", {}, [Type("fp32", (4, 12))], indices=indices, lut=lut, vector_axis=np.int32(axis))

    def test_what_is_made_is_not_taken_apart(self, mil_op: Callable[..., Any]) -> None:
        given = {"indices": np.zeros(1, np.uint8), "lut": np.zeros(16, np.float32), "shape": np.int32([2])}
        with pytest.raises(InputError, match="it makes 1 tensor, 2 are declared"):
            mil_op("constexpr_lut_to_dense", {}, [Type("fp32", (2,)), Type("fp32", ())], **given)

    def test_a_mask_of_the_shape(self, agrees: Callable[..., None], mil_op: Callable[..., Any], reference: Any) -> None:
        mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.uint8)
        values = np.array([10, 11, 3, 4, 5, 6, 7, 8, 9], np.float32)
        bits = Constant(Type("uint1", mask.shape), torch.from_numpy(mask))
        dense = reference.newer.constexpr_sparse_to_dense.decompress(values, mask)
        agrees("constexpr_sparse_to_dense", {}, dense, nonzero_data=values, mask=bits)
        # The example in the reference's text on constexpr_sparse_blockwise_shift_scale.
        scale, offset = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), np.array([[1, 2, 3, 4]], np.float32)
        given = {"data_mask": bits, "nonzero_data": values, "scale": scale, "offset": offset}
        made = mil_op("constexpr_sparse_blockwise_shift_scale", {}, [Type("uint1", mask.shape), Type("fp32", (9,))], **given)
        np.testing.assert_allclose(made[1], [0.9, 1.8, 0.2, 0.4, 0.6, 0.9, 1.2, 0.7, 1.4], rtol=1e-6)
        with pytest.raises(InputError, match="its mask has 9 places for 2 values"):
            mil_op("constexpr_sparse_to_dense", {}, [Type("fp32", mask.shape)], nonzero_data=values[:2], mask=bits)

    def test_a_constant_in_half_precision(self, agrees: Callable[..., None]) -> None:
        x = np.array([0.1, 65504], np.float16)
        agrees("constexpr_cast", {}, x.astype(np.float32), source_val=x, output_dtype="fp32")


@QUICK
@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=40), bits=st.sampled_from(list(BITS.values())))
def test_bits_are_unpacked_from_the_lowest(values: list[int], bits: int) -> None:
    expected = [value % 2**bits for value in values]
    whole = sum(value << (bits * at) for at, value in enumerate(expected))
    data = np.frombuffer(whole.to_bytes(-(-bits * len(values) // 8), "little"), np.uint8)
    assert unpacked(data, bits, len(values)).tolist() == expected


def test_a_packed_sign_is_the_highest_of_its_bits() -> None:
    assert tensor_from_bytes(bytes([0x98, 0x7F]), "int4", (2, 2)).tolist() == [[-8, -7], [-1, 7]]


@pytest.mark.parametrize("dtype", ["fp16", "fp32", "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool"])
def test_bytes_of_another_number_are_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=f"3 bytes are not 1,000 values of {dtype}"):
        tensor_from_bytes(b"abc", dtype, (10, 100))
