"""Convolution, its transpose and pooling, against windows walked one by one and against torch, for every way of padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("google.protobuf", reason="coremltools brings it")

from torch.nn import functional as F  # noqa: E402

from dtvit_deploy.runtimes.mil.program import Type  # noqa: E402

Array = NDArray[Any]
Pairs = list[tuple[int, int]]
QUICK = settings(max_examples=40, deadline=None)
PAD_TYPES = ("valid", "same", "same_lower", "custom")
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pairs(kind: str, sizes: tuple[int, ...], extent: list[int], strides: list[int], custom: list[int]) -> Pairs:
    """Padding by axis: TensorFlow's SAME, https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2."""
    if kind == "custom":
        return list(zip(custom[::2], custom[1::2], strict=True))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    found = []
    for size, reach, stride in zip(sizes, extent, strides, strict=True):
        total = max(reach - (stride if size % stride == 0 else size % stride), 0)
        found.append((total // 2, total - total // 2) if kind == "same" else (total - total // 2, total // 2))
    return found


def windows(x: Array, kernel: list[int], strides: list[int], dilations: list[int]) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each place of the answer, and what it sees."""
    sizes = x.shape[2:]
    steps = [range((size - (k - 1) * d - 1) // s + 1) for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)]
    for place in itertools.product(*steps):
        seen = tuple(slice(p * s, p * s + (k - 1) * d + 1, d) for p, k, s, d in zip(place, kernel, strides, dilations, strict=True))
        yield place, x[(slice(None), slice(None), *seen)]


@st.composite
def geometry(draw: st.DrawFn) -> dict[str, Any]:
    axes = draw(st.integers(1, 3))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))  # noqa: E731
    found = {
        "sizes": tuple(each(1, 6 if axes < 3 else 4)),
        "kernel": each(1, 4 if axes < 3 else 2),
        "strides": each(1, 3),
        "dilations": each(1, 2),
        "pad_type": draw(st.sampled_from(PAD_TYPES)),
        "pad": draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes)),
    }
    return found | {"seed": draw(st.integers(0, 99))}


def padded(x: Array, g: dict[str, Any], dilations: list[int], value: float = 0.0) -> Array:
    extent = [(k - 1) * d + 1 for k, d in zip(g["kernel"], dilations, strict=True)]
    around = pairs(g["pad_type"], g["sizes"], extent, g["strides"], g["pad"])
    made = np.pad(x, [(0, 0), (0, 0), *around], constant_values=value)
    assume(all(size >= reach for size, reach in zip(made.shape[2:], extent, strict=True)))
    return made


def parameters(g: dict[str, Any]) -> dict[str, Any]:
    return {"strides": np.int32(g["strides"]), "pad_type": g["pad_type"]} | (
        {"pad": np.int32(g["pad"])} if g["pad_type"] == "custom" else {}
    )


class TestConvolution:
    @QUICK
    @given(g=geometry(), groups=st.sampled_from([1, 2, 4]), biased=st.booleans())
    def test_it_is_a_sum_over_each_window(self, g: dict[str, Any], groups: int, biased: bool, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(g["seed"])
        x = rng.standard_normal((2, 4, *g["sizes"]), np.float32)
        weight = rng.standard_normal((4, 4 // groups, *g["kernel"]), np.float32)
        bias = rng.standard_normal(4, np.float32)
        wide = padded(x, g, g["dilations"])
        found = list(windows(wide, g["kernel"], g["strides"], g["dilations"]))
        expected = np.zeros((2, 4, *(size + 1 for size in found[-1][0])), np.float32)
        for place, seen in found:
            for out in range(4):
                first = out // (4 // groups) * (4 // groups)
                axes = tuple(range(1, seen.ndim))
                expected[(slice(None), out, *place)] = (seen[:, first : first + 4 // groups] * weight[out]).sum(axes)
        if biased:
            expected += bias.reshape(-1, *(1 for _ in g["sizes"]))
        given = {"weight": weight, "groups": np.int32(groups), "dilations": np.int32(g["dilations"])} | ({"bias": bias} if biased else {})
        agrees("conv", {"x": x}, expected, atol=1e-4, **given, **parameters(g))

    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_defaults_are_those_of_torch(self, dtype: Any, agrees: Callable[..., None]) -> None:
        x = np.random.default_rng(0).standard_normal((1, 3, 5, 5)).astype(dtype)
        weight = np.random.default_rng(1).standard_normal((2, 3, 3, 3)).astype(dtype)
        expected = F.conv2d(torch.from_numpy(x).float(), torch.from_numpy(weight).float()).numpy().astype(dtype)
        agrees("conv", {"x": x}, expected, atol=1e-3 if dtype == np.float16 else 1e-5, weight=weight)

    def test_weights_may_come_from_the_run(self, agrees: Callable[..., None]) -> None:
        x, weight = np.ones((1, 2, 3, 3), np.float32), np.full((1, 2, 1, 1), 0.5, np.float32)
        agrees("conv", {"x": x, "weight": weight}, np.ones((1, 1, 3, 3), np.float32))

    @pytest.mark.parametrize("wrong", [{"pad_type": "mirror"}, {"pad_type": "custom", "pad": [1]}, {"strides": [0, 1]}, {"dilations": [1]}])
    def test_what_it_does_not_know_is_refused(self, wrong: dict[str, Any], mil_op: Callable[..., Any]) -> None:
        x = np.ones((1, 1, 3, 3), np.float32)
        with pytest.raises(InputError, match=r"the program's conv out\.0 cannot be evaluated: its (pad|strides|dilations)"):
            mil_op("conv", {"x": x}, [Type("fp32", (1, 1, 3, 3))], weight=x[:, :, :1, :1], **wrong)


class TestTransposedConvolution:
    @QUICK
    @given(g=geometry(), groups=st.sampled_from([1, 2]), biased=st.booleans())
    def test_padding_cuts_the_edges_off(self, g: dict[str, Any], groups: int, biased: bool, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(g["seed"])
        axes = len(g["sizes"])
        x, weight = rng.standard_normal((1, 4, *g["sizes"]), np.float32), rng.standard_normal((4, 2, *g["kernel"]), np.float32)
        bias = rng.standard_normal(2 * groups, np.float32) if biased else None
        whole = TRANSPOSED[axes](torch.from_numpy(x), torch.from_numpy(weight), None, g["strides"], 0, 0, groups, g["dilations"]).numpy()
        kind = "custom" if g["pad_type"] == "custom" else "valid"
        cut = g["pad"] if kind == "custom" else [0] * (2 * axes)
        assume(all(size > before + after for size, before, after in zip(whole.shape[2:], cut[::2], cut[1::2], strict=True)))
        inside = tuple(slice(before, size - after) for size, before, after in zip(whole.shape[2:], cut[::2], cut[1::2], strict=True))
        expected = whole[(slice(None), slice(None), *inside)]
        if bias is not None:
            expected = expected + bias.reshape(-1, *(1 for _ in range(axes)))
        given = {"weight": weight, "groups": np.int32(groups), "dilations": np.int32(g["dilations"]), "bias": bias}
        agrees("conv_transpose", {"x": x}, expected, atol=1e-4, **given, **(parameters(g) | {"pad_type": kind}))

    @pytest.mark.parametrize("padding", [0, 1])
    @pytest.mark.parametrize("extra", [0, 1])
    def test_an_output_shape_is_torchs_output_padding(self, padding: int, extra: int, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((1, 2, 4, 3), (2, 3, 3, 3), (3,)))
        expected = F.conv_transpose2d(*map(torch.from_numpy, (x, weight, bias)), 2, padding, extra).numpy()
        shape = np.int32(expected.shape)
        given = {"weight": weight, "bias": bias, "strides": np.int32([2, 2]), "pad": np.int32([padding] * 4), "output_shape": shape}
        agrees("conv_transpose", {"x": x}, expected, pad_type="custom", atol=1e-5, **given)

    @pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (2, 2), (1, 2), (3, 1)])
    def test_same_undoes_what_a_same_convolution_does_to_shapes_and_is_its_gradient(
        self, kernel: int, stride: int, agrees: Callable[..., None]
    ) -> None:
        rng = np.random.default_rng(0)
        size = 4
        x, weight = rng.standard_normal((1, 1, size), np.float32), rng.standard_normal((1, 1, kernel), np.float32)
        image = torch.zeros(1, 1, size * stride, requires_grad=True)
        ((before, after),) = pairs("same", (size * stride,), [kernel], [stride], [])
        F.conv1d(F.pad(image, (before, after)), torch.from_numpy(weight), stride=stride).backward(torch.from_numpy(x))
        assert image.grad is not None
        agrees("conv_transpose", {"x": x}, image.grad.numpy(), weight=weight, strides=np.int32([stride]), pad_type="same", atol=1e-5)


class TestPooling:
    @QUICK
    @given(g=geometry(), excluded=st.booleans())
    def test_average_of_each_window(self, g: dict[str, Any], excluded: bool, agrees: Callable[..., None]) -> None:
        ones = [1] * len(g["sizes"])
        x = np.random.default_rng(g["seed"]).standard_normal((2, 2, *g["sizes"]), np.float32)
        inside = padded(np.ones_like(x), g, ones)
        found = list(windows(padded(x, g, ones), g["kernel"], g["strides"], ones))
        expected = np.zeros((2, 2, *(size + 1 for size in found[-1][0])), np.float32)
        for (place, seen), (_, real) in zip(found, windows(inside, g["kernel"], g["strides"], ones), strict=True):
            axes = tuple(range(2, seen.ndim))
            with np.errstate(invalid="ignore"):
                expected[(slice(None), slice(None), *place)] = seen.sum(axes) / (real.sum(axes) if excluded else math.prod(g["kernel"]))
        assume(np.isfinite(expected).all())
        given = {"kernel_sizes": np.int32(g["kernel"]), "exclude_padding_from_average": np.bool_(excluded)}
        agrees("avg_pool", {"x": x}, expected, atol=1e-5, **given, **parameters(g))

    @QUICK
    @given(g=geometry())
    def test_maximum_of_each_window_and_never_of_padding(self, g: dict[str, Any], agrees: Callable[..., None]) -> None:
        ones = [1] * len(g["sizes"])
        x = -np.abs(np.random.default_rng(g["seed"]).standard_normal((2, 2, *g["sizes"]), np.float32))
        found = list(windows(padded(x, g, ones, -np.inf), g["kernel"], g["strides"], ones))
        expected = np.zeros((2, 2, *(size + 1 for size in found[-1][0])), np.float32)
        for place, seen in found:
            expected[(slice(None), slice(None), *place)] = seen.max(tuple(range(2, seen.ndim)))
        agrees("max_pool", {"x": x}, expected, kernel_sizes=np.int32(g["kernel"]), **parameters(g))

    @pytest.mark.parametrize(("size", "kernel", "stride", "pad"), [(7, 3, 2, 1), (6, 3, 2, 1), (8, 2, 3, 1), (5, 3, 3, 1), (10, 3, 4, 0)])
    @pytest.mark.parametrize("excluded", [False, True])
    def test_ceil_mode_is_torchs(self, size: int, kernel: int, stride: int, pad: int, excluded: bool, agrees: Callable[..., None]) -> None:
        x = np.random.default_rng(size).standard_normal((1, 2, size, size), np.float32)
        given = {"kernel_sizes": [kernel] * 2, "strides": [stride] * 2, "pad_type": "custom", "pad": [pad] * 4, "ceil_mode": np.bool_(True)}
        average = F.avg_pool2d(torch.from_numpy(x), kernel, stride, pad, True, not excluded).numpy()
        agrees("avg_pool", {"x": x}, average, exclude_padding_from_average=np.bool_(excluded), **given)
        agrees("max_pool", {"x": x}, F.max_pool2d(torch.from_numpy(x), kernel, stride, pad, ceil_mode=True).numpy(), **given)

    def test_ceil_mode_with_one_sided_padding_is_refused(self, mil_op: Callable[..., Any]) -> None:
        given = {"kernel_sizes": [2], "strides": [2], "pad_type": "custom", "pad": [0, 1], "ceil_mode": np.bool_(True)}
        with pytest.raises(InputError, match="ceil_mode needs padding that is symmetric"):
            mil_op("max_pool", {"x": np.zeros((1, 1, 4), np.float32)}, [Type("fp32", (1, 1, 3))], **given)

    @pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
    def test_infinity_and_nan_stay_visible(self, kind: str, agrees: Callable[..., None]) -> None:
        x = np.array([[[np.inf, 1, np.nan, 2, -np.inf, -np.inf]]], np.float16)
        expected = np.array([[[np.inf, np.nan, -np.inf]]], np.float16)
        agrees(kind, {"x": x}, expected, kernel_sizes=[2], strides=[2], pad_type="valid")


class TestLinear:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    @pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 5, 3), (0, 3)])
    @pytest.mark.parametrize("biased", [True, False])
    def test_linear(self, dtype: Any, shape: tuple[int, ...], biased: bool, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, weight, bias = (rng.standard_normal(size).astype(dtype) for size in (shape, (4, 3), (4,)))
        expected = x.astype(np.float32) @ weight.astype(np.float32).T + (bias.astype(np.float32) if biased else 0)
        agrees(
            "linear",
            {"x": x},
            expected.astype(dtype),
            atol=1e-3 if dtype == np.float16 else 1e-5,
            weight=weight,
            bias=bias if biased else None,
        )

    @pytest.mark.parametrize("transpose_x", [False, True])
    @pytest.mark.parametrize("transpose_y", [False, True])
    @pytest.mark.parametrize("batches", [((), ()), ((2,), ()), ((2, 1), (3,)), ((1, 3), (2, 3))])
    def test_matmul(
        self, transpose_x: bool, transpose_y: bool, batches: Any, agrees: Callable[..., None], inferred: Callable[..., Any]
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((*batches[0], *((3, 2) if transpose_x else (2, 3))), np.float32)
        y = rng.standard_normal((*batches[1], *((4, 3) if transpose_y else (3, 4))), np.float32)
        turned = {"transpose_x": transpose_x, "transpose_y": transpose_y}
        agrees("matmul", {"x": x, "y": y}, inferred("matmul", x=x, y=y, **turned), **{k: np.bool_(v) for k, v in turned.items()})

    def test_matmul_of_integers(self, agrees: Callable[..., None]) -> None:
        x = np.arange(6, dtype=np.int32).reshape(2, 3)
        agrees("matmul", {"x": x, "y": x.T.copy()}, x @ x.T)

    EQUATIONS = (
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 3)),
        ("chw,whr->chr", (2, 4, 5), (5, 4, 3)),
        ("bnqd,bnkd->bnqk", (1, 2, 3, 4), (1, 2, 5, 4)),
        ("nchw,nwhu->nchu", (1, 3, 4, 5), (2, 5, 1, 3)),
    )

    @pytest.mark.parametrize(("equation", "first", "second"), EQUATIONS)
    def test_einsum(self, equation: str, first: Any, second: Any, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal(first, np.float32), rng.standard_normal(second, np.float32)
        letters = dict.fromkeys(equation.replace(",", "").replace("->", ""), 1)
        for word, array in zip(equation.split("->")[0].split(","), (x, y), strict=True):
            letters |= {letter: max(size, letters[letter]) for letter, size in zip(word, array.shape, strict=True)}
        wide = [
            np.broadcast_to(array, [letters[letter] for letter in word])
            for word, array in zip(equation.split("->")[0].split(","), (x, y), strict=True)
        ]
        agrees("einsum", {"values": [x, y]}, np.einsum(equation, *wide), equation=equation, atol=1e-5)

    @pytest.mark.parametrize("mask", [None, "bool", "float"])
    def test_attention(self, mask: str | None, agrees: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        query, key, value = (rng.standard_normal(shape, np.float32) for shape in ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)))
        given = {"query": query, "key": key, "value": value}
        seen = rng.random((3, 5)) > 0.3
        if mask:
            given["attn_mask"] = seen if mask == "bool" else rng.standard_normal((3, 5), np.float32)
        expected = F.scaled_dot_product_attention(
            *map(torch.from_numpy, (query, key, value)), torch.from_numpy(given["attn_mask"]) if mask else None
        ).numpy()
        agrees("scaled_dot_product_attention", given, expected)
