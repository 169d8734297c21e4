"""Small networks of the kinds that people bring and that exporters get wrong; each is `difficult_networks:NAME` to the command line.

Every one is exported to every target, in FP32 and FP16, by `benchmarks/networks.py`; the tests take the same table in parts.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

Made = tuple[nn.Module, dict[str, Tensor]]
NETWORKS: dict[str, dict[str, Callable[[], Made]]] = collections.defaultdict(dict)
"""By kind, then by name: what makes a network and its example inputs."""


def __getattr__(name: str) -> Callable[[], Made]:
    for kind in NETWORKS.values():
        if name in kind:
            return kind[name]
    raise AttributeError(name)


class Then(nn.Module):
    """A convolution, and whatever is done with its 4×7×5 map."""

    def __init__(self, function: Callable[[Tensor], Any], size: tuple[int, int] = (7, 5)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function
        self.size = size

    def forward(self, image: Tensor) -> Any:
        return self.function(self.conv(image))


class Before(nn.Module):
    """Whatever is done with the image, and a convolution."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function

    def forward(self, image: Tensor) -> Any:
        return self.conv(self.function(image))


def _image(module: nn.Module, height: int = 7, width: int = 5) -> Made:
    return module, {"image": torch.randn(1, 3, height, width)}


def _then(kind: str, size: tuple[int, int] = (7, 5), **functions: Callable[[Tensor], Any]) -> None:
    for name, function in functions.items():
        NETWORKS[kind][name] = lambda function=function: _image(Then(function), *size)


def _before(kind: str, **functions: Callable[[Tensor], Any]) -> None:
    for name, function in functions.items():
        NETWORKS[kind][name] = lambda function=function: _image(Before(function))


def _filled(y: Tensor) -> Tensor:
    positive = y > 0
    return torch.zeros_like(positive, dtype=torch.float32).masked_fill_(positive, 2.5) + positive.new_full((7, 1), 0.25, dtype=y.dtype)


_then(
    "element-wise choice",
    softplus=F.softplus,
    softplus_steep=lambda y: F.softplus(y, beta=4, threshold=2),
    leaky_where=lambda y: torch.where(y > 0, y, 0.1 * y),
    where_scalars=lambda y: torch.where(y > y.mean(), 1.0, -0.5) * y,
    masked_fill=lambda y: y.masked_fill(y.mean(1, keepdim=True) > 0, -5.0).softmax(-1),
    hardshrink=lambda y: F.hardshrink(y, 0.2),
    softshrink=lambda y: F.softshrink(y, 0.2),
    threshold=lambda y: F.threshold(y, 0.1, 20.0),
    nan_to_num=lambda y: torch.nan_to_num(y / y.clamp(min=0), nan=0.5, posinf=3.0, neginf=-3.0),
    elu=F.elu,
    exponential_less_one=torch.expm1,
    log_of_one_more=lambda y: torch.log1p(y.abs()),
    celu=lambda y: F.celu(y, 0.7),
    selu=F.selu,
    mish=F.mish,
    hardswish=F.hardswish,
    logsigmoid=F.logsigmoid,
    prelu=lambda y: F.prelu(y, torch.tensor([0.1, -0.2, 0.3, 0.0])),
    rrelu=F.rrelu,
    heaviside=lambda y: torch.heaviside(y.round(), torch.tensor(0.5)) * y,
    sign=lambda y: torch.sign(y.round()) * y,
    clamped_choice=lambda y: torch.where(y.clamp(-0.3, 0.3) == y, y, y.clamp(min=0) * 2),
    huber=lambda y: F.smooth_l1_loss(y, torch.zeros_like(y), reduction="none", beta=0.3),
    maximum=lambda y: torch.maximum(y, torch.minimum(-y, torch.tensor(0.1))),
    logical=lambda y: ((y > 0) & ~(y > 0.5) | (y < -0.5)).float() * y,
    xlogy=lambda y: torch.xlogy(y.relu(), y.relu()),
    top_gate=lambda y: y.where(y >= y.amax((2, 3), keepdim=True) - 0.5, torch.tensor(0.0)),
    constant_mask=lambda y: y.masked_fill(torch.ones(7, 5).tril() == 0, 0.0),
    filled_like=_filled,
    index_of_choice=lambda y: torch.linspace(0, 1, 4)[torch.where(y.mean((2, 3)) > 0, 3, 1)],
)

_then(
    "adaptive pools",
    (14, 14),
    average_3=lambda y: F.adaptive_avg_pool2d(y, 3),
    average_pyramid=lambda y: torch.cat([F.adaptive_avg_pool2d(y, side).flatten(1) for side in (1, 2, 3, 6)], 1),
    average_oblong=lambda y: F.adaptive_avg_pool2d(y, (3, 5)),
    average_keeps_width=lambda y: F.adaptive_avg_pool2d(y, (4, None)),
    average_up=lambda y: F.adaptive_avg_pool2d(y, (17, 20)),
    average_1d=lambda y: F.adaptive_avg_pool1d(y.flatten(2), 9),
    average_1d_whole=lambda y: F.adaptive_avg_pool1d(y.flatten(2), 1),
    average_1d_divides=lambda y: F.adaptive_avg_pool1d(y.flatten(2), 49),
    average_3d=lambda y: F.adaptive_avg_pool3d(y.unsqueeze(2).expand(-1, -1, 4, -1, -1), (3, 3, 7)).flatten(2),
    average_unbatched=lambda y: F.adaptive_avg_pool2d(y[0], 3),
    maximum_3=lambda y: F.adaptive_max_pool2d(y, 3),
    maximum_7=lambda y: F.adaptive_max_pool2d(y, 7),
    maximum_oblong=lambda y: F.adaptive_max_pool2d(y, (5, 1)),
    maximum_1d=lambda y: F.adaptive_max_pool1d(y.flatten(2), 10),
)

_then(
    "pools",
    (13, 17),
    average_of_own_divisor=lambda y: F.avg_pool2d(y, 3, 2, 1, divisor_override=5),
    sums=lambda y: F.avg_pool2d(y, 2, divisor_override=1),
    sums_3d=lambda y: F.avg_pool3d(y.unsqueeze(2).expand(-1, -1, 4, -1, -1), 2, divisor_override=3).flatten(2),
    sums_with_edge=lambda y: F.avg_pool2d(y, (4, 2), (4, 3), (1, 0), ceil_mode=True, divisor_override=2),
    average_with_edge=lambda y: F.avg_pool2d(y, 4, 4, 1, ceil_mode=True),
    average_with_edge_alone=lambda y: F.avg_pool2d(y, 4, 4, 1, ceil_mode=True, count_include_pad=False),
    average_1d_with_edge=lambda y: F.avg_pool1d(y.flatten(2), 5, 3, 2, ceil_mode=True),
    average_3d_with_edge=lambda y: F.avg_pool3d(y.unsqueeze(2).expand(-1, -1, 4, -1, -1), 3, 2, 1, ceil_mode=True).flatten(2),
    average_without_last=lambda y: F.avg_pool2d(y, 2, 3, 1, ceil_mode=True),
    maximum_with_edge=lambda y: F.max_pool2d(y, 4, 4, 1, ceil_mode=True),
    maximum_without_last=lambda y: F.max_pool2d(y, 2, 3, 1, ceil_mode=True),
    maximum_without_one=lambda y: F.max_pool2d(y, 2, (3, 2), (1, 0), ceil_mode=True),
    average_in_double=lambda y: F.avg_pool2d(F.adaptive_avg_pool2d(y.double(), 3), 2, 2, ceil_mode=True).float(),
    maximum_dilated_without_last=lambda y: F.max_pool2d(y[:, :, :6], 2, 3, 1, dilation=2, ceil_mode=True),
    maximum_1d_without_last=lambda y: F.max_pool1d(y.flatten(2)[:, :, :13], 2, 3, 1, ceil_mode=True),
    maximum_dilated=lambda y: F.max_pool2d(y, 3, 2, 1, dilation=2, ceil_mode=True),
)


class Attention(nn.Module):
    """Scaled dot-product attention over 6 tokens in 2 heads of 4, with whatever mask the tokens give."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], heads: int = 2) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)
        self.attend, self.heads = attend, heads

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, 8 // self.heads)).movedim(2, 0).transpose(2, 3)
        query, key, value = (one.flatten(0, 1) if self.heads == 1 else one for one in qkv.unbind(0))
        answer = self.attend(query, key, value, tokens)
        return self.head(answer if self.heads == 1 else answer.transpose(1, 2).flatten(2))


def _attention(heads: int = 2, **functions: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    for name, function in functions.items():
        NETWORKS["attention"][name] = lambda function=function: (Attention(function, heads), {"tokens": torch.randn(2, 6, 8)})


class Encoder(nn.Module):
    """nn.MultiheadAttention with a padding mask that comes in as an input; a length of 0, as zeros feed it, leaves nothing to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        padded = torch.arange(6) >= length[:, None]
        return self.attention(tokens, tokens, tokens, key_padding_mask=padded, need_weights=False)[0]


def _some(tokens: Tensor) -> Tensor:
    """A mask of one head, of which the first row is empty."""
    return (tokens[:, :, :6] > 0.3)[:, None] & (torch.arange(6) > 0)[:, None]


attend = F.scaled_dot_product_attention
_attention(
    attention_plain=lambda q, k, v, x: attend(q, k, v),
    attention_scaled=lambda q, k, v, x: attend(q, k, v, scale=0.1),
    attention_causal=lambda q, k, v, x: attend(q, k, v, is_causal=True),
    attention_causal_few_queries=lambda q, k, v, x: attend(q[:, :, :3], k, v, is_causal=True),
    attention_constant_mask=lambda q, k, v, x: attend(q, k, v, torch.ones(6, 6, dtype=torch.bool).tril(-1)),
    attention_masked_rows=lambda q, k, v, x: attend(q, k, v, _some(x)),
    attention_all_masked=lambda q, k, v, x: attend(q, k, v, torch.zeros(6, 6, dtype=torch.bool)),
    attention_padding=lambda q, k, v, x: attend(q, k, v, (x.mean(-1) > 0)[:, None, None]),
    attention_bias=lambda q, k, v, x: attend(q, k, v, x[:, None, :, :6] * 0.3),
    attention_infinite_bias=lambda q, k, v, x: attend(q, k, v, torch.zeros(6, 6).masked_fill(torch.ones(6, 6).tril(-1) == 0, -torch.inf)),
    attention_lowest_bias=lambda q, k, v, x: attend(q, k, v, (x[:, None, :, :6] < 0) * torch.finfo(torch.float32).min),
    attention_low_rows=lambda q, k, v, x: attend(q, k, v, (x[:, None, :, :1] < 0) * -1e5 + x[:, None, :, :6]),
    attention_grouped=lambda q, k, v, x: attend(q, k[:, :1], v[:, :1], enable_gqa=True),
    attention_large=lambda q, k, v, x: attend(q * 100, k * 100, v, _some(x)),
)
_attention(
    1,
    attention_3d=lambda q, k, v, x: attend(q, k, v),
    attention_3d_causal=lambda q, k, v, x: attend(q, k, v, is_causal=True),
    attention_3d_masked=lambda q, k, v, x: attend(q, k, v, _some(x)[:, 0]),
    attention_3d_cross=lambda q, k, v, x: attend(q[:, :2], k, v),
    attention_2d=lambda q, k, v, x: attend(q[0], k[0], v[0])[None],
)


class Namesake(nn.Module):
    """Has parameters of the names that a rewrite would give to constants of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_0, self.pool_0 = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(7, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        one = (tokens + self.mask_0)[:, None]
        pooled = F.adaptive_avg_pool1d(tokens.transpose(1, 2), 4)
        return torch.cat([attend(one, one, one, is_causal=True)[:, 0, :4], pooled.transpose(1, 2)], 1) * self.pool_0.sum()


NETWORKS["attention"]["attention_namesake"] = lambda: (Namesake(), {"tokens": torch.randn(2, 6, 8)})
NETWORKS["attention"]["attention_padding_input"] = lambda: (
    Encoder(),
    {"tokens": torch.randn(2, 6, 8), "length": torch.tensor([4, 1])},
)


class Stack(nn.Module):
    """Two encoder layers over tokens some of which are padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        return self.layers(tokens, src_key_padding_mask=torch.arange(6) >= length[:, None])


NETWORKS["attention"]["encoder_stack"] = lambda: (Stack(), {"tokens": torch.randn(2, 6, 8), "length": torch.tensor([4, 1])})


class Region(nn.Module):
    """Attends and pools where gradients or autocast are switched, inside forward."""

    def __init__(self, region: Callable[[], Any], inner: Callable[[], Any] = torch.enable_grad) -> None:
        super().__init__()
        self.conv, self.region, self.inner = nn.Conv2d(3, 4, 3), region, inner

    def forward(self, image: Tensor) -> Tensor:
        with self.region():
            tokens = self.conv(image).flatten(2)
            attended = attend(tokens, tokens, tokens, is_causal=True)
            with self.inner():
                pooled = F.adaptive_avg_pool1d(attended, 4)
        return pooled * 2


def no_autocast() -> Any:
    return torch.autocast("cpu", enabled=False)


NETWORKS["regions"] |= {
    "no_grad": lambda: _image(Region(torch.no_grad)),
    "enable_grad": lambda: _image(Region(torch.enable_grad)),
    "inference_mode": lambda: _image(Region(torch.inference_mode)),
    "autocast_off": lambda: _image(Region(no_autocast)),
    "autocast_off_twice": lambda: _image(Region(no_autocast, no_autocast)),
    "autocast_off_in_grad": lambda: _image(Region(torch.enable_grad, no_autocast)),
}


class Pair(NamedTuple):
    logits: Tensor
    boxes: Tensor


@dataclasses.dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()


class ModelOutput(collections.OrderedDict[str, Any]):
    """As Hugging Face's: a dict with attributes, without what is None."""

    def __init__(self, **fields: Any) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})


class Strided(nn.Module):
    """Hands out a constant buffer of whole numbers, as detectors do with their strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("strides", torch.tensor([8, 16, 32]))
        self.register_buffer("valid", torch.tensor([True, False]))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"y": self.conv(image), "strides": self.strides, "valid": self.valid, "anchors": torch.arange(4) * 0.5}


class Through(nn.Module):
    """Hands the image through beside its features, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"same": image, "y": self.conv(image), "flat": image.flatten(1)}


_then(
    "outputs",
    one_twice=lambda y: {"y": y, "z": y},
    one_three_times=lambda y: (y.relu(), y.relu(), y, y.neg(), y),
    nested_lists=lambda y: {"features": [y, y[:, :, ::2], y.mean((2, 3))]},
    nested_tuples=lambda y: (y, (y.relu(), (y.sum((1, 2, 3)),))),
    dict_of_dicts=lambda y: {"boxes": {"xy": y.mean(2), "wh": y.amax(2)}, "score": y.sigmoid()},
    list_of_dicts=lambda y: [{"logits": y.mean((2, 3))}, {"logits": y.amax((2, 3))}],
    named_tuple=lambda y: Pair(y.mean((2, 3)), y.flatten(2)),
    dataclass=lambda y: Answer(y.mean((2, 3)), hidden=(y, y.relu())),
    model_output=lambda y: ModelOutput(logits=y.mean((2, 3)), loss=None, hidden_states=(y, y.relu())),
    top_k=lambda y: y.flatten(1).topk(3),
    integer_constant=lambda y: {"y": y, "strides": torch.tensor([8, 16, 32])},
    boolean_constant=lambda y: (y, torch.ones(2, 3, dtype=torch.bool)),
    scalar_constant=lambda y: {"y": y, "stride": torch.tensor(8), "gain": torch.tensor(0.5)},
    constant_twice=lambda y: (y, torch.arange(3), torch.arange(3)),
    whole_numbers=lambda y: {"label": y.mean((2, 3)).argmax(1), "label32": y.mean((2, 3)).argmax(1).int()},
    optional=lambda y: {"y": y, "loss": None},
)
NETWORKS["outputs"]["buffers_out"] = lambda: _image(Strided())
NETWORKS["outputs"]["input_out"] = lambda: _image(Through())


class Counts(nn.Module):
    """Counts its calls, which changes no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(image)


def _normalised(x: Tensor) -> Tensor:
    x[:, 0] -= 0.5
    x[:, 1:].mul_(0.25)
    return x


def _masked_in_place(x: Tensor) -> Tensor:
    x[x < 0] = 0.0
    return x


def _rows_masked(x: Tensor) -> Tensor:
    y = x.clone()
    y.permute(2, 3, 0, 1)[x.mean(1)[0] < 0] = torch.tensor([0.3])
    x[x.mean((2, 3)) > 0] = 1
    return y + x


def _rows(x: Tensor) -> Tensor:
    x[:, :, 0] = x[:, :, 1] * 2
    return x


def _through_view(x: Tensor) -> Tensor:
    x.flatten(1).transpose(0, 1).add_(1.0)
    return x


class Marked(nn.Module):
    """Adds to a copy of its own weights, by a view of it, what the picture says."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, image: Tensor) -> Tensor:
        weight = self.weight * 2
        weight[1].add_(image.mean())
        return image @ weight.T


def _into_zeros(x: Tensor) -> Tensor:
    whole = torch.zeros(1, 3, 7, 5)
    whole[:, :, ::2] = x[:, :, ::2]
    return whole


def _into_sums(x: Tensor) -> Tensor:
    sums = torch.ones(3, 7, 5)
    sums.view(21, 5)[2].add_(x.flatten()[:5])
    return x + sums


def _after_dropout(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5, training=False).sub_(0.5)


_before(
    "in place",
    into_zeros=_into_zeros,
    into_sums=_into_sums,
    after_dropout=_after_dropout,
    normalised=lambda x: x.sub_(0.5).div_(0.25),
    clamped=lambda x: x.clamp_(-0.5, 0.5),
    filled=lambda x: x.masked_fill_(x < 0, 0.1),
    assigned=_normalised,
    rows_assigned=_rows,
    rows_masked=_rows_masked,
    mask_assigned=_masked_in_place,
    through_view=_through_view,
    copied=lambda x: x.copy_(x.flip(-1)),
    activated=lambda x: F.relu(x, inplace=True),
    typed_alike=lambda x: x.type_as(torch.zeros(())).sub_(0.5),
    out_argument=lambda x: torch.mul(x, 2.0, out=x),
)
NETWORKS["in place"] |= {
    "relu_first": lambda: _image(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3))),
    "hardswish_first": lambda: _image(nn.Sequential(nn.Hardswish(inplace=True), nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True))),
    "counts": lambda: _image(Counts()),
    "own_weights": lambda: _image(Marked()),
}


class Centred(nn.Module):
    """A parametrization of one's own: every filter has mean 0 and length 1."""

    def forward(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return centred / centred.flatten(1).norm(dim=1)[:, None, None, None]


class Standardised(nn.Conv2d):
    """Weight standardisation inside forward, which no library knows of."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


def _deprecated_weight_norm(layer: nn.Module) -> None:
    """By a hook before forward, as networks of before torch 2.1 have it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(layer)


def _conv(change: Callable[[nn.Module], object]) -> Callable[[], Made]:
    def make() -> Made:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        change(network[0])
        return _image(network)

    return make


def _linear(change: Callable[[nn.Module], object]) -> Callable[[], Made]:
    def make() -> Made:
        network = nn.Sequential(nn.Flatten(), nn.Linear(105, 8), nn.LayerNorm(8), nn.Linear(8, 8))
        change(network[3])
        return _image(network)

    return make


NETWORKS["parametrizations"] |= {
    "weight_norm": _conv(parametrizations.weight_norm),
    "weight_norm_hook": _conv(_deprecated_weight_norm),
    "weight_norm_all": _linear(lambda layer: parametrizations.weight_norm(layer, dim=None)),  # type: ignore[arg-type]
    "spectral_norm": _conv(parametrizations.spectral_norm),
    "spectral_norm_hook": _linear(torch.nn.utils.spectral_norm),
    "orthogonal": _linear(parametrizations.orthogonal),
    "orthogonal_cayley": _linear(lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley")),  # type: ignore[arg-type]
    "own_parametrization": _conv(lambda layer: parametrize.register_parametrization(layer, "weight", Centred())),
    "several_parametrizations": _conv(
        lambda layer: [parametrize.register_parametrization(layer, "weight", one) for one in (Centred(), nn.Tanh())]
    ),
    "pruned": _conv(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),  # type: ignore[no-untyped-call]
    "weight_standardised": lambda: _image(nn.Sequential(Standardised(3, 4, 3), nn.ReLU())),
}


class Chosen(nn.Module):
    """Takes its path by what it sees."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 2 if image.sum() > 0 else image


_then(
    "dynamic",
    picked=lambda y: y[y > 0],
    places=lambda y: torch.nonzero(y > 0).float(),
    repeated=lambda y: y.flatten().repeat_interleave(torch.where(y.flatten() > 0, 2, 1)),
    cut=lambda y: y[:, :, : torch.sym_min((y > 0).sum().item(), 7)].exp(),  # type: ignore[no-untyped-call]
    unique=lambda y: y.round().unique(),
    random=lambda y: F.dropout(y, 0.5, training=True),
    text=lambda y: {"y": y, "name": "cat"},
)
NETWORKS["dynamic"]["branch"] = lambda: _image(Chosen())

_then(
    "gaps of one translator",
    running_product=lambda y: y.cumprod(-1),
    inverse=lambda y: torch.linalg.inv(y[0, 0, :3, :3] + 5 * torch.eye(3)),
    antialiased=lambda y: F.interpolate(y, (4, 3), mode="bilinear", antialias=True),
    scattered_sums=lambda y: torch.zeros(1, 4, 5).scatter_add(2, y.flatten(2)[:, :, :6].abs().long().clamp(max=4), y.flatten(2)[:, :, :6]),
)

EVERYWHERE = ("onnx", "openvino", "trt", "coreml")
REFUSED: dict[tuple[str, str], str] = {
    **{
        (name, target): "not static|cannot be exported|cannot translate|not the graph that its manifest describes"
        for name in ("picked", "places", "repeated", "cut", "unique", "branch")
        for target in EVERYWHERE
    },
    **{("random", target): "is not deterministic in eval" for target in EVERYWHERE},
    **{("text", target): "a str in 'name'" for target in EVERYWHERE},
    **{("running_product", target): "cannot be translated to ONNX" for target in EVERYWHERE[:3]},
    **{("inverse", target): "cannot be translated to ONNX" for target in EVERYWHERE[:3]},
    ("inverse", "coreml"): "coremltools cannot translate",
    ("antialiased", "openvino"): "OpenVINO ignores what the network asks for: antialias",
    ("antialiased", "trt"): "resizing with antialiasing is not supported",
    ("antialiased", "coreml"): "ignores what the network asks for: antialias",
    ("scattered_sums", "rtx"): "Unsupported reduction type",  # by its parser; the folder for a Jetson is made
    ("scattered_sums", "coreml"): "coremltools cannot translate scatter_add",
    **{(name, "coreml"): "Core ML has no bool for inputs and outputs" for name in ("boolean_constant", "buffers_out")},
}
"""What cannot be carried, by name and target (or kind of engine), and what the message must say."""
