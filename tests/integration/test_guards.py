"""FP16: what keeps a division from 0 may be smaller than FP16 holds; that is no overflow, and an overflow is no guard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from judged import Judged, judged, picture

GUARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm plus epsilon": lambda f: f / (f.norm(dim=1, keepdim=True) + 1e-8),
    "normalize": lambda f: nn.functional.normalize(f, dim=1),
    "root of a variance": lambda f: f / (f.pow(2).mean(1, keepdim=True) + 1e-10).sqrt(),
    "share of a sum": lambda f: f / f.sum(1, keepdim=True).clamp(min=1e-9),
}


class Guarded(nn.Module):
    """Features that are all 0 for a picture of zeros."""

    def __init__(self, guard: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.guard = nn.Conv2d(3, 8, 4, 4, bias=False), nn.Linear(8, 5), guard

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.head(self.guard(self.conv(image).relu().mean((2, 3))))
        return answer


@pytest.fixture(params=GUARDS)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Judged:
    torch.manual_seed(0)
    return judged(Guarded(GUARDS[request.param]), picture(), tmp_path)


def test_a_right_artefact_is_not_called_an_overflow(guarded: Judged) -> None:
    for one in guarded.compared(guarded.float16()):
        assert "no longer finite" not in one.reason
        # Of next to nothing FP16 has no digits left: there it may be said that it cannot carry the network, and nothing else.
        assert one.passed or (one.feeds == "tiny" and one.reason.startswith("fp16 cannot carry this network: its own noise floor"))


def test_where_fp16_itself_changes_what_the_guard_gives_it_says_so_and_not_that_it_overflows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = judged(Guarded(lambda f: (f + 1e-9).log() * 0.01), picture(), tmp_path)
    (zeros,) = (one for one in made.compared(made.float16()) if one.feeds == "zeros")
    assert zeros.reason.startswith("fp16 cannot carry this network: its own noise floor")


def test_one_that_overflows_fails(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = judged(Guarded(GUARDS["norm plus epsilon"]), picture(), tmp_path)

    def overflow(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        (maker,) = (node for node in model.graph.node if output in node.output)
        maker.output[0] = "before"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3e38, np.float32), "huge"))
        model.graph.node.extend(
            [helper.make_node("Mul", ["before", "huge"], ["grown"]), helper.make_node("Mul", ["grown", "huge"], [output])]
        )

    found = made.compared(made.changed(overflow))
    assert not any(one.passed for one in found)
    assert all("NaN or infinite" in one.reason for one in found)
