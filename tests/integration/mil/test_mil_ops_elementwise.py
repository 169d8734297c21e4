"""Operators element by element, against the reference's own value inference and against numpy, at the edges of their types too."""

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

from dtvit_deploy.runtimes.mil.ops.activation import GELU  # noqa: E402
from dtvit_deploy.runtimes.mil.ops.arithmetic import BINARY, UNARY  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Type  # noqa: E402

Array = NDArray[Any]
FLOATS = (np.float32, np.float16)
QUICK = settings(max_examples=15, deadline=None)
ANY = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def floats(dtype: Any, shape: Any = ANY, size: float = 1e4, *, special: bool = True) -> st.SearchStrategy[Array]:
    """Arrays of moderate numbers, with infinities and NaN among them."""
    plain = st.floats(-size, size, width=32 if dtype == np.float32 else 16)
    edges = st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 6e-8, 0.5, 1.5, 2.5])
    return hnp.arrays(dtype, shape, elements=plain | edges if special else plain)


def rounded(values: Any, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(dtype)


BOUNDED = {"atanh": 0.99, "acos": 1.0, "asin": 1.0, "cosh": 10.0, "sinh": 10.0, "exp": 20.0, "tan": 1.0}
"""Where an operator's answer is so steep that no two libraries agree, values are kept small."""


@pytest.mark.parametrize("kind", [kind for kind in UNARY if kind != "logical_not"])
@pytest.mark.parametrize("dtype", FLOATS)
@QUICK
@given(data=st.data())
def test_one_operand(kind: str, dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    size = BOUNDED.get(kind, 1e4)
    x = data.draw(floats(dtype, shape, float(dtype(size)), special=kind not in BOUNDED))
    # In FP32, since that is what an operator computes in here; the reference's own works in FP16 throughout.
    expected = np.reshape(inferred(kind, x=x.astype(np.float32)), shape)
    agrees(kind, {"x": x}, rounded(expected, dtype))


@pytest.mark.parametrize("kind", [kind for kind in BINARY if not kind.startswith("logical")])
@pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
@QUICK
@given(data=st.data())
def test_two_operands_with_broadcasting(
    kind: str, dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]
) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_dims=1)).input_shapes
    if dtype == np.int32:
        lowest = 1 if kind in ("floor_div", "mod") else 0 if kind == "pow" else -50
        x, y = (data.draw(hnp.arrays(np.int32, shape, elements=st.integers(lowest, 5 if kind == "pow" else 50))) for shape in shapes)
        expected = np.asarray(inferred(kind, x=x, y=y))
        agrees(kind, {"x": x, "y": y}, expected if expected.dtype == np.bool_ else expected.astype(np.int32))
        return
    tame = kind in ("pow", "mod", "floor_div")
    x, y = (data.draw(floats(dtype, shape, 4.0 if tame else 100.0, special=not tame)) for shape in shapes)
    if tame:  # near a jump, or a pole, another rounding is another answer
        x, y = np.round(np.abs(x) * 2).astype(dtype) / dtype(2) + dtype(0.25), np.round(np.abs(y)).astype(dtype) + dtype(1)
    expected = np.asarray(inferred(kind, x=x.astype(np.float32), y=y.astype(np.float32)))
    agrees(kind, {"x": x, "y": y}, expected if expected.dtype == np.bool_ else rounded(expected, dtype))


@pytest.mark.parametrize(
    ("kind", "numpys"), [("logical_and", np.logical_and), ("logical_or", np.logical_or), ("logical_xor", np.logical_xor)]
)
@QUICK
@given(
    pair=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3).flatmap(
        lambda shapes: st.tuples(*(hnp.arrays(np.bool_, shape) for shape in shapes.input_shapes))
    )
)
def test_logic(kind: str, numpys: Any, pair: tuple[Array, Array], agrees: Callable[..., None]) -> None:
    agrees(kind, {"x": pair[0], "y": pair[1]}, numpys(*pair))
    agrees("logical_not", {"x": pair[0]}, ~pair[0])


@pytest.mark.parametrize("kind", ["abs", "sign", "square"])
def test_integers_stay_integers(kind: str, agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
    x = np.array([[-7, 0, 3], [46340, -46340, 1]], np.int32)
    agrees(kind, {"x": x}, inferred(kind, x=x))


@pytest.mark.parametrize("dtype", FLOATS)
@QUICK
@given(data=st.data())
def test_a_quotient_of_floats(dtype: Any, data: st.DataObject, agrees: Callable[..., None]) -> None:
    x, y = data.draw(floats(dtype, (2, 3))), data.draw(floats(dtype, (3,)))
    with np.errstate(all="ignore"):
        agrees("real_div", {"x": x, "y": y}, rounded(x.astype(np.float32) / y.astype(np.float32), dtype))


def test_a_quotient_of_integers_is_refused_since_its_rounding_is_not_documented(mil_op: Callable[..., Any]) -> None:
    x = np.array([7], np.int32)
    with pytest.raises(InputError, match=r"real_div out\.0 cannot be evaluated: the quotient of integers"):
        mil_op("real_div", {"x": x, "y": x}, [Type("int32", (1,))])


WITH_PARAMETERS = [
    ("clip", {"alpha": -0.5, "beta": 2.0}),
    ("clamped_relu", {"alpha": 0.25, "beta": 3.0}),
    ("elu", {"alpha": 0.75}),
    ("inverse", {"epsilon": 0.5}),
    ("leaky_relu", {"alpha": 0.125}),
    ("linear_activation", {"alpha": 2.0, "beta": -0.5}),
    ("relu", {}),
    ("relu6", {}),
    ("scaled_tanh", {"alpha": 1.5, "beta": 0.5}),
    ("sigmoid", {}),
    ("sigmoid_hard", {"alpha": 0.25, "beta": 0.5}),
    ("softplus", {}),
    ("softsign", {}),
    ("threshold", {"alpha": 0.25}),
    ("thresholded_relu", {"alpha": 0.5}),
]


@pytest.mark.parametrize(("kind", "parameters"), WITH_PARAMETERS, ids=[kind for kind, _ in WITH_PARAMETERS])
@pytest.mark.parametrize("dtype", FLOATS)
@QUICK
@given(data=st.data())
def test_activations(
    kind: str, parameters: dict[str, float], dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]
) -> None:
    x = data.draw(floats(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=3), 50.0, special=False))
    if kind == "inverse":
        x = np.abs(x)
    expected = inferred(kind, x=x.astype(np.float32), **{name: np.float32(value) for name, value in parameters.items()})
    agrees(kind, {"x": x}, rounded(expected, dtype), **{name: dtype(value) for name, value in parameters.items()})


@pytest.mark.parametrize("mode", GELU)
@pytest.mark.parametrize("dtype", FLOATS)
@QUICK
@given(data=st.data())
def test_gelu_in_its_three_forms(
    mode: str, dtype: Any, data: st.DataObject, agrees: Callable[..., None], inferred: Callable[..., Any]
) -> None:
    x = data.draw(floats(dtype, (2, 5), 12.0, special=False))
    agrees("gelu", {"x": x}, rounded(inferred("gelu", x=x.astype(np.float64).astype(np.float32), mode=mode), dtype), atol=2e-6, mode=mode)


def test_gelu_is_exact_where_nothing_is_said(agrees: Callable[..., None], inferred: Callable[..., Any]) -> None:
    x = np.linspace(-4, 4, 50, dtype=np.float32)
    agrees("gelu", {"x": x}, np.float32(inferred("gelu", x=x, mode="EXACT")))


@pytest.mark.parametrize("dtype", FLOATS)
def test_silu(dtype: Any, agrees: Callable[..., None]) -> None:
    x = np.linspace(-20, 20, 99).astype(dtype)
    agrees("silu", {"x": x}, rounded(x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64))), dtype))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 2, 2)])
def test_a_slope_for_each_channel(shape: tuple[int, ...], agrees: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x, alpha = rng.standard_normal(shape, np.float32), rng.standard_normal(3, np.float32)
    wide = alpha.reshape(3, *(1 for _ in shape[2:]))
    agrees("prelu", {"x": x}, np.where(x > 0, x, wide * x), alpha=alpha)
    beta = np.array([0.5, 1.0, 2.0], np.float32)
    soft = wide * np.log1p(np.exp(x * beta.reshape(wide.shape)))
    agrees("softplus_parametric", {"x": x}, soft, alpha=alpha, beta=beta)


@pytest.mark.parametrize(("kind", "reference"), [("log", np.log), ("rsqrt", lambda x: 1 / np.sqrt(x)), ("inverse", lambda x: 1 / x)])
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.25])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_small_constant_is_added_before(
    kind: str, reference: Any, epsilon: float | None, dtype: Any, agrees: Callable[..., None]
) -> None:
    x = np.array([0.0, 1e-6, 0.5, 1, 100, 60000, np.inf], dtype)
    added = {"log": dtype(1e-45), "rsqrt": dtype(1e-12), "inverse": dtype(1e-4)}[kind] if epsilon is None else dtype(epsilon)
    with np.errstate(all="ignore"):
        expected = rounded(reference(x.astype(np.float32) + np.float32(added)), dtype)
    agrees(kind, {"x": x}, expected, epsilon=None if epsilon is None else dtype(epsilon))


def test_select_takes_what_its_condition_says_with_broadcasting(agrees: Callable[..., None]) -> None:
    condition = np.array([[True], [False]])
    a, b = np.array([np.nan, 1, 2], np.float32), np.full((2, 3), np.inf, np.float32)
    agrees("select", {"cond": condition, "a": a, "b": b}, np.where(condition, a, b))


CASTS = [
    ([-1.7, -0.5, 0.5, 1.7, 3e5], np.float32, np.int32),
    ([-1.7, 0.0, -0.0, np.inf, np.nan], np.float32, np.bool_),
    ([70000.0, -1e6, 1e-9, 2049.0, 2051.0], np.float32, np.float16),
    ([1, 0, -3], np.int32, np.float32),
    ([True, False], np.bool_, np.float16),
    ([True, False], np.bool_, np.int32),
    ([200, 0, 255], np.uint8, np.float32),
    ([300.7, 3.2, 255.9], np.float32, np.uint8),
    ([130.7, -3.9, -129.0], np.float32, np.int8),
    ([65535, 0, 40000], np.uint16, np.int32),
]


@pytest.mark.parametrize(("values", "source", "target"), CASTS, ids=[f"{a.__name__}-{b.__name__}" for _, a, b in CASTS])
def test_casts(values: list[Any], source: Any, target: Any, agrees: Callable[..., None]) -> None:
    x = np.array(values, source)
    wide = x.astype(np.int64) if source in FLOATS and np.dtype(target).kind in "iu" else x
    names = {np.float16: "fp16", np.float32: "fp32", np.bool_: "bool"}
    with np.errstate(over="ignore"):
        expected = wide.astype(target)
    agrees("cast", {"x": x}, expected, dtype=names.get(target, np.dtype(target).name))


class TestHalfPrecision:
    """FP16 after every operator, and FP32 within one."""

    def test_what_is_too_large_is_infinite(self, agrees: Callable[..., None]) -> None:
        x = np.array([60000, -60000, 65504, 65519], np.float16)
        agrees("add", {"x": x, "y": x}, np.array([np.inf, -np.inf, np.inf, np.inf], np.float16))

    def test_a_tie_goes_to_the_even_neighbour(self, agrees: Callable[..., None], mil_op: Callable[..., Any]) -> None:
        x, y = np.array([2048, 2050, 2048], np.float16), np.array([1, 1, 1.5], np.float16)
        (made,) = mil_op("add", {"x": x, "y": y}, [Type("fp16", (3,))])
        np.testing.assert_array_equal(made, np.array([2048, 2052, 2050], np.float16))

    def test_what_is_too_small_is_zero_and_what_is_nearly_so_is_subnormal(self, mil_op: Callable[..., Any]) -> None:
        x = np.array([1e-4, 3e-4], np.float16)
        (made,) = mil_op("mul", {"x": x, "y": np.array([1e-4, 1e-4], np.float16)}, [Type("fp16", (2,))])
        np.testing.assert_array_equal(made, (x.astype(np.float32) * np.float32(np.float16(1e-4))).astype(np.float16))
        assert made[0] == 0
        assert 0 < made[1] < np.finfo(np.float16).tiny

    def test_a_sum_is_not_rounded_on_its_way(self, mil_op: Callable[..., Any]) -> None:
        x = np.full((1, 4096), 1.0, np.float16)
        x[0, 0] = 2048
        (made,) = mil_op("reduce_sum", {"x": x}, [Type("fp16", (1,))], axes=[1], keep_dims=False)
        assert made[0] == np.float16(2048 + 4095)  # in FP16 it would not get beyond 2048

    def test_a_product_that_overflows_on_its_way_back_is_not_lost(self, mil_op: Callable[..., Any]) -> None:
        x, weight = np.full((1, 2), 300, np.float16), np.array([[300, -300]], np.float16)
        (made,) = mil_op("linear", {"x": x}, [Type("fp16", (1, 1))], weight=weight)
        assert made[0, 0] == 0  # 90000 is beyond FP16, and within the operator's FP32


@pytest.mark.parametrize("kind", ["floor_div", "mod"])
def test_a_divisor_that_is_zero_is_refused_when_it_comes_and_not_before(kind: str, mil_op: Callable[..., Any]) -> None:
    seven = np.array([7], np.int32)
    assert mil_op(kind, {"x": seven, "y": seven}, [Type("int32", (1,))])[0] == seven // 7 % 7 * (kind == "floor_div")
    with pytest.raises(InputError, match=f"the program's {kind} out.0 cannot be evaluated: ZeroDivisionError"):
        mil_op(kind, {"x": seven, "y": seven * 0}, [Type("int32", (1,))])


@pytest.mark.parametrize(
    ("declared", "said"),
    [(Type("fp32", (3,)), "makes 2 of float32, declared is 3 fp32"), (Type("int32", (2,)), "makes 2 of float32, declared is 2 int32")],
)
def test_what_is_declared_otherwise_than_computed_is_refused(declared: Type, said: str, mil_op: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=f"the program's exp out.0 cannot be evaluated: it {said}"):
        mil_op("exp", {"x": np.zeros(2, np.float32)}, [declared])
