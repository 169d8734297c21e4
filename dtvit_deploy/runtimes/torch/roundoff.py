"""How far correct rounding alone may move an answer: the program evaluated in FP64 with an error planted wherever a runtime would round.

A difference between two runs says what rounding did on one feed in two orders of summation, and on a picture of zeros or of one colour
torch may be exact by luck while a runtime that is as right is not. Planting errors (Monte Carlo arithmetic: Parker 1997; Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, chapter 2) asks the program instead: an error grows where it grows in the network, through a
difference of nearly equal numbers or a division by a small one, and what the network forgives is forgiven.

* Every computed value moves by one unit roundoff, up or down. Equal values move alike, as they do in a runtime: on a picture of one colour
  errors repeat over all its pixels, and do not average out.
* A sum of n terms moves by √n of them (the growth of a random walk), of the result and of the terms, so that a sum whose terms cancel has
  the error of its terms. Where a feed holds few distinct values, equal terms are added again and again, and each addition errs the same
  way: there it is n over the number of partial sums that a runtime keeps (:data:`PARTIAL_SUMS`).
* An elementary function moves by one unit more: a runtime's own is right to a last place or so, not correctly rounded.
* What one operator does inside counts: a normalisation is taken apart into its mean and its variance by torch's own decompositions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch._decomp import get_decompositions
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.runtimes.torch.session import TorchSession

_aten = torch.ops.aten
_INSIDE = get_decompositions(
    [
        *(_aten.native_layer_norm, _aten.native_group_norm, _aten._softmax, _aten._log_softmax, _aten.logsumexp),
        *(_aten._native_batch_norm_legit, _aten._native_batch_norm_legit_no_training, _aten._fused_rms_norm),
        *(_aten.var, _aten.var_mean, _aten.std, _aten.std_mean, _aten._scaled_dot_product_flash_attention_for_cpu),
        *(_aten.elu, _aten.softplus, _aten.log_sigmoid_forward),
    ]
)


def _variance(values: Any, axes: Any, correction: float = 1.0, *, output_dtype: Any = None) -> Any:
    """What torch's decompositions of deviations end in, and compute as a whole."""
    axes = list(axes) if axes is not None else list(range(values.ndim))
    count = math.prod(values.shape[axis] for axis in axes)
    apart = values - _aten.mean.dim(values, axes, True)
    return _aten.sum.dim_IntList(apart * apart, axes) / max(count - correction, 0)


_INSIDE |= {
    torch.ops.prims.var.default: _variance,
    _aten.expm1.default: lambda x: _aten.exp(x) - 1,
    _aten.log1p.default: lambda x: _aten.log(x + 1),
}
"""Operators that hide a sum or a difference, taken apart. Of `expm1` and `log1p`, which ONNX does not have, runtimes lose what is below the
last place of 1."""
_PASSED_ON = frozenset(
    {
        *("_to_copy", "abs", "alias", "amax", "amin", "arange", "argmax", "argmin", "argsort", "as_strided", "broadcast_in_dim"),
        *("cat", "ceil", "clamp", "clamp_max", "clamp_min", "clone", "constant_pad_nd", "copy", "detach", "embedding", "empty"),
        *("empty_like", "empty_strided", "expand", "fill", "flip", "floor", "full", "full_like", "gather", "hardtanh", "index"),
        *("index_select", "lift_fresh", "lift_fresh_copy", "masked_fill", "max", "max_pool2d_with_indices", "maximum", "min"),
        *("minimum", "neg", "new_empty", "new_full", "new_zeros", "ones", "ones_like", "permute", "pixel_shuffle"),
        *("pixel_unshuffle", "reflection_pad2d", "relu", "repeat", "replication_pad2d", "roll", "round", "scalar_tensor"),
        *("scatter", "select", "select_scatter", "sign", "slice", "slice_scatter", "sort", "split", "split_with_sizes"),
        *("squeeze", "stack", "t", "topk", "transpose", "unbind", "unfold", "unsqueeze", "upsample_nearest2d", "where", "zeros"),
        *("zeros_like"),
    }
)
"""Operators whose results are values that were there, or their negatives: nothing is rounded."""
_ELEMENTARY = frozenset(
    {"cos", "erf", "exp", "exp2", "gelu", "log", "log2", "log10", "pow", "rsqrt", "sigmoid", "silu", "sin", "tan", "tanh"}
)
_SIGN = torch.iinfo(torch.int64).min
_KEPT_BITS = 18
"""Of a double's mantissa these last bits are noise of FP64 itself: values that differ there alone are taken for equal."""
_MIXED = -7046029254386353131
"""An odd multiplier (2⁶⁴ divided by the golden ratio), whose product's sign depends on every bit of the other factor."""
SPREAD = 3**-0.5
"""Root mean square of a rounding error in units of the largest, where errors are spread evenly."""
PARTIAL_SUMS = 32
"""ONNX Runtime's global pool over 112×112 equal values was off by 470 roundings, in 12,544 additions."""
FEW_VALUES = 16
"""A feed with as many distinct values, or fewer, repeats its errors."""
ORDINARY = 0.25
"""Share of it all that counts on other feeds: there the artefacts that were measured reached 0.04 to 0.3 (docs/adr/0020)."""


class RoundingNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Plants errors in whatever is evaluated in FP64 while it is entered."""

    def __init__(self, unit: float, draw: int, *, repeating: bool) -> None:
        """Prepare.

        Args:
            unit: unit roundoff of the precision that is asked about.
            draw: which of the many ways that errors may fall.
            repeating: whether the feed makes equal errors repeat.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._unit, self._draw, self._repeating = unit if repeating else unit * ORDINARY, draw, repeating
        self._generator = torch.Generator().manual_seed(draw)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _INSIDE:
            with self:
                return _INSIDE[func](*args, **kwargs)
        with self:  # linear, matmul, … are made of others
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        name = func._schema.name.partition("::")[2].rstrip("_")
        if name in ("view", "_unsafe_view"):  # a decomposition may leave its result in another order of memory
            return args[0].reshape(args[1])
        terms = _terms(name, args, kwargs)
        roundings = max(math.sqrt(terms), terms / PARTIAL_SUMS if self._repeating else 0.0)
        if name in _ELEMENTARY:
            roundings += 1
        if terms > 1:
            args = self._with_moved_terms(name, args, math.sqrt(terms))
        value = func(*args, **kwargs)
        if name in _PASSED_ON:
            return value
        if isinstance(value, (tuple, list)):
            return type(value)(self._moved(one, roundings) for one in value)
        return self._moved(value, roundings)

    def _moved(self, value: Any, times: float) -> Any:
        """Each value moved by so many roundings, equal ones alike."""
        if not isinstance(value, torch.Tensor) or value.dtype is not torch.float64:
            return value
        bits = value.view(torch.int64)
        signs = (bits >> _KEPT_BITS).add_(self._draw).mul_(_MIXED).bitwise_and_(_SIGN)
        return torch.add(value, signs.bitwise_xor_(bits).view(torch.float64), alpha=self._unit * SPREAD * times)

    def _with_moved_terms(self, name: str, args: tuple[Any, ...], times: float) -> tuple[Any, ...]:
        """The arguments with each term of the sum moved by itself."""
        place = 1 if name in ("addmm", "addmv", "baddbmm", "addbmm") else 0
        terms = args[place]
        if not isinstance(terms, torch.Tensor) or terms.dtype is not torch.float64:
            return args
        noise = torch.rand(terms.shape, generator=self._generator, dtype=torch.float32).mul_(2).sub_(1)
        return (*args[:place], torch.addcmul(terms, terms, noise.double(), value=self._unit * times), *args[place + 1 :])


def _terms(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many terms an operator adds for each value of its result; 1 for one that adds none."""
    first = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if first is None or not first.numel():
        return 1
    if name in ("mm", "bmm", "mv", "dot", "linear", "matmul"):
        return first.shape[-1]
    if name in ("addmm", "addmv", "baddbmm", "addbmm"):
        return int(args[1].shape[-1])
    if name in ("convolution", "_convolution"):
        weight, transposed, groups = args[1], args[6], args[8]
        return int(weight[:, 0].numel() // groups if transposed else weight[0].numel())
    if name in ("mean", "sum", "nansum", "prod", "linalg_vector_norm", "norm"):
        dim = kwargs.get("dim", args[2 if "norm" in name else 1] if len(args) > (2 if "norm" in name else 1) else None)
        dims = [dim] if isinstance(dim, int) else list(dim or range(first.ndim))
        return math.prod(first.shape[axis] for axis in dims)
    if name in ("cumsum", "cumprod", "logcumsumexp"):
        return first.shape[args[1]] if first.ndim else 1
    if name.startswith(("avg_pool", "_adaptive_avg_pool", "adaptive_avg_pool")):
        if name.startswith("avg"):
            return math.prod(args[1])
        return math.prod(-(-side // out) for side, out in zip(reversed(first.shape), reversed(args[1]), strict=False))
    return 4 if name.startswith("upsample") and "nearest" not in name else 1


def moved_by_rounding(session: TorchSession, feeds: Feeds, unit: float, draw: int) -> Outputs:
    """What a session in FP64 answers when every operation errs by about ``unit``, relatively.

    Args:
        session: of :attr:`dtvit_deploy.runtimes.torch.session.Arithmetic.FP64`.
        feeds: arrays by input name.
        unit: unit roundoff, 2⁻²⁴ of FP32.
        draw: another number gives errors with other signs.
    """
    floats = [array for array in feeds.values() if array.dtype.kind == "f"]
    repeating = bool(floats) and all(np.unique(array).size <= FEW_VALUES < array.size for array in floats)
    with RoundingNoise(unit, draw, repeating=repeating):
        return session.run(feeds)
