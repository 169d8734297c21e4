"""Whole networks through saved packages, against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dtvit_deploy.artifacts.artifact import Artifact, Link  # noqa: E402
from dtvit_deploy.artifacts.cache import Cache  # noqa: E402
from dtvit_deploy.artifacts.target import Precision  # noqa: E402
from dtvit_deploy.calibration.feeds import random_feeds  # noqa: E402
from dtvit_deploy.models.options import Model  # noqa: E402
from dtvit_deploy.models.reference import Reference  # noqa: E402
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage, read_program_entry, write_program  # noqa: E402
from dtvit_deploy.runtimes.base import SessionOptions  # noqa: E402
from dtvit_deploy.runtimes.mil.runtime import MilRuntime  # noqa: E402
from dtvit_deploy.runtimes.torch.interpreter import Arithmetic  # noqa: E402
from dtvit_deploy.runtimes.torch.session import TorchRuntime, TorchSession, read_program  # noqa: E402
from packages import converted  # noqa: E402

Convert = Callable[[Artifact, Precision, Path], Artifact]
LARGEST = {Precision.FP32: 1e-4, Precision.FP16: 2e-2}
"""|Δ| against torch; for FP16 against its ideal evaluation, whose roundings fall elsewhere where operators were merged."""
IDEAL = {Precision.FP32: Arithmetic.FP32, Precision.FP16: Arithmetic.FP16}


def session(artifact: Artifact, taps: tuple[str, ...] = ()) -> Any:
    return MilRuntime().load(artifact, SessionOptions(threads=1, taps=taps))


def in_torch(program: Artifact, arithmetic: Arithmetic = Arithmetic.FP32, taps: tuple[str, ...] = (), threads: int = 1) -> TorchSession:
    return TorchSession(read_program(program), program.manifest.signature, SessionOptions(threads=threads, taps=taps), arithmetic)


def entry_of(make: Callable[[], nn.Module], shape: tuple[int, ...], folder: Path) -> ProgramEntry:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = make()
    folder.mkdir(exist_ok=True)
    made = Link(kind="seeded", sha256="0" * 64)
    for each in module.modules():  # as after training: a batch norm that does nothing hides what is wrong with it
        if isinstance(each, nn.BatchNorm2d):
            for tensor in (each.weight, each.bias, each.running_mean, each.running_var):
                tensor.data.uniform_(0.5, 1.5)
    write_program(
        Reference(model="mine:net", module=module.eval(), inputs={"image": torch.randn(shape)}, output_names=(), weights=made), folder
    )
    return read_program_entry(folder)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    """The variant with operators that the digits' network has not; that one is verified as the command line makes it."""
    return program_stage(Model(name="dualtoken-vit-s-normal-star", input_size=(64, 64)), Cache(tmp_path_factory.mktemp("traced")))


class TestOurNetworks:
    @pytest.mark.slow
    @pytest.mark.parametrize("precision", [pytest.param(Precision.FP32, marks=pytest.mark.thorough), Precision.FP16], ids=str)
    def test_a_saved_package_answers_as_torch_does(self, traced: ProgramEntry, precision: Precision, tmp_path: Path) -> None:
        program, artifact = traced.artifact, converted(traced, precision, tmp_path / "net.mlpackage")
        known = set(TorchRuntime().tensors(program))
        offered = tuple(name for name in MilRuntime().tensors(artifact) if name in known)
        assert len(offered) > 0.6 * len(known)
        plain, tapped = in_torch(program), in_torch(program, IDEAL[precision], offered)
        with session(artifact, offered) as mil:
            for feeds in random_feeds(program.manifest.signature, 2):
                answer, ideal = mil.run(feeds), tapped.run(feeds)
                logits = plain.run(feeds)["logits"]
                assert answer["logits"].dtype == np.float32
                assert np.abs(answer["logits"] - ideal["logits"]).max() <= LARGEST[precision]
                assert answer["logits"].argmax() == logits.argmax()
                for name in offered:  # a wrong name is a wrong tensor, not a rounded one; seeded weights give subnormal numbers too
                    error = np.linalg.norm(answer[name].astype(np.float64) - ideal[name])
                    size, least = np.linalg.norm(ideal[name].astype(np.float64)), 2.0**-24 * np.sqrt(ideal[name].size)
                    assert error <= (1e-4 * size if precision is Precision.FP32 else 3e-2 * size + least), name
                    assert answer[name].dtype == (np.float32 if precision is Precision.FP32 else np.float16)


class Squeeze(nn.Module):
    """Channels weighed by what is in them, with the hard sigmoid of mobile networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu6(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    """MobileNetV3's block: depth-wise between two 1×1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
            nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
            Squeeze(16), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Residual(nn.Module):
    """ResNet's, with a shortcut of its own and pooling that pads."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.BatchNorm2d(12),
            nn.LeakyReLU(0.1),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2),
            nn.BatchNorm2d(12),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return F.elu(self.body(x) + self.shortcut(x))


class Next(nn.Module):
    """ConvNeXt's: channels last for the layer norm and the two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8, 1e-6)
        self.wide, self.narrow, self.scale = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y), approximate="tanh"))).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """What segmentation and super-resolution add: sizes up by four ways, and parts put together."""

    def __init__(self) -> None:
        super().__init__()
        self.transposed, self.shuffle, self.slope = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), nn.PixelShuffle(2), nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
            F.interpolate(x, scale_factor=2.0, mode="nearest"),
            self.slope(self.transposed(x)),
            self.shuffle(F.pad(x, (1, 0, 0, 1), mode="reflect")[:, :, :-1, 1:]),
        ]
        return torch.cat(parts, 1)


class Head(nn.Module):
    """Attention, group norm, comparisons, indices."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = F.silu(self.norm(x)).flatten(2).transpose(1, 2)
        tokens = F.scaled_dot_product_attention(tokens[:, None], tokens[:, None], F.softplus(tokens)[:, None])[:, 0]
        score = torch.where(tokens > 0.5, tokens, tokens.abs().sqrt()).clamp(-2, 2).mean(1)
        logits = self.head(F.normalize(score, dim=-1)).log_softmax(-1)
        best, at = logits.topk(2)
        return {"logits": logits, "best": best, "at": at, "sum": torch.cumsum(logits, -1).amax(-1)}


BLOCKS: dict[str, Callable[[], nn.Module]] = {"mobile": Inverted, "residual": Residual, "next": Next, "decoder": Decoder, "head": Head}


class TestOtherNetworks:
    @pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16], ids=str)
    @pytest.mark.parametrize("block", BLOCKS)
    def test_blocks_of_others_answer_as_in_torch(self, block: str, precision: Precision, translated: Convert, tmp_path: Path) -> None:
        program = entry_of(BLOCKS[block], (1, 8, 9, 9), tmp_path / "program").artifact
        artifact = translated(program, precision, tmp_path)
        reference = in_torch(program, IDEAL[precision])
        with session(artifact) as mil:
            for feeds in random_feeds(program.manifest.signature, 2):
                expected, answer = reference.run(feeds), mil.run(feeds)
                assert answer.keys() == expected.keys()
                for name, values in expected.items():
                    assert (answer[name].shape, answer[name].dtype) == (values.shape, values.dtype)
                    scale = max(1.0, float(np.abs(values).max()))
                    np.testing.assert_allclose(answer[name], values, atol=LARGEST[precision] * scale, rtol=0, err_msg=name)
