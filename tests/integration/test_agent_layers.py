"""Inner tensors are compared on the device: the report is that of this machine, the module is named, and next to nothing travels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.job import Layers
from dtvit_deploy.harness.layers import LayerReport, report_of
from dtvit_deploy.models.reference import Reference as Network
from dtvit_deploy.pipeline import measure
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.remote.asking import Asked, Asking, offered
from dtvit_deploy.remote.recorded import layer_sums
from dtvit_deploy.runtimes.pairing import pairings

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs

pytest.importorskip("openvino")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.norm(self.stem(image).flatten(2).transpose(1, 2))
        answer: Tensor = self.head((tokens + self.mix(tokens).relu()).mean(1))
        return answer


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("program")
    seeded = Link(kind="seeded", sha256="0" * 64)
    inputs = {"image": torch.randn(1, 3, 16, 16)}
    write_program(Network(model="mine:net", module=Net().eval(), inputs=inputs, output_names=("logits",), weights=seeded), folder)
    return read_program_entry(folder)


@pytest.fixture(scope="module")
def artifacts(
    entry: ProgramEntry, tmp_path_factory: pytest.TempPathFactory, vouch: Callable[[Path, Manifest], Artifact]
) -> dict[str, Artifact]:
    cache, guard = Cache(tmp_path_factory.mktemp("cache")), open_material(None, entry.artifact.manifest).guard()
    right = onnx_stage(entry, guard, cache)
    wrong = vouch(spoilt(right, tmp_path_factory.mktemp("spoilt")), right.manifest)
    return {
        "right": right,
        "fp16": float16_stage(right, guard, (), cache),
        "wrong": wrong,
        "right in openvino": openvino_stage(right, Precision.FP32, cache),
        "wrong in openvino": openvino_stage(wrong, Precision.FP32, cache),
    }


def spoilt(artifact: Artifact, folder: Path) -> Path:
    """A copy in which the largest weight of the module ``mix`` is another."""
    model = onnx.load(artifact.path)
    tensor = next(one for one in model.graph.initializer if list(one.dims) == [16, 16] or "mix" in one.name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.argmax(np.abs(values))] *= 1.02
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


class Walk:
    """What the device is asked of one artefact, and the evaluations of the program that stay here."""

    def __init__(self, folder: Path, entry: ProgramEntry, artifact: Artifact, *, taps: Sequence[str] | None = None) -> None:
        self.entry, self.artifact = entry, artifact
        self.bench = measure.Bench(entry, pairings((artifact,)), open_material(None, entry.artifact.manifest), 1, Silent())
        runtime = self.bench.pairings[0].runtime.name
        has = set(offered(artifact, runtime))
        self.taps = tuple(node.name for node in entry.nodes.nodes if node.name in has) if taps is None else tuple(taps)
        reference = measure.Reference.of(self.bench, self.taps)
        precision = artifact.manifest.judged_as
        self.feeds = list(self.bench.material.subset(measure.LAYER_SAMPLES).feeds())
        sessions = (reference.fp32, reference.ideal[reference.floor_of(precision)], reference.fp64)
        self.evaluations = [tuple(measure._inner(one.run(feed), self.taps, self.bench) for one in sessions) for feed in self.feeds]
        folder.mkdir()
        asking = Asking(folder)
        self.task = asking.layers(
            asking.subject(artifact, runtime),
            asking.feeds(self.feeds),
            (each[0] for each in self.evaluations),
            taps=self.taps,
            nodes=entry.nodes,
        )
        self.asked: Asked = asking.asked

    def here(self) -> LayerReport:
        (found,) = measure.layers(self.bench)
        assert found is not None
        return msgspec.structs.replace(found, conditions={}, rung=None)

    def there(self, board: Board) -> tuple[LayerReport, int]:
        """The report by the device's sums, and how many bytes it brought back."""
        results = board.device().perform(self.asked.job, self.asked.blobs)  # type: ignore[arg-type]
        sums, samples = layer_sums(self.asked, results, self.task, self.evaluations)  # type: ignore[arg-type]
        found = report_of(self.entry.nodes, sums, samples, self.artifact.manifest.judged_as)
        return found, results.offset


@pytest.mark.parametrize("which", ["right", "fp16", "wrong", "right in openvino", "wrong in openvino"])
def test_the_report_is_that_of_this_machine_and_names_the_module(
    tmp_path: Path, board: Board, entry: ProgramEntry, artifacts: dict[str, Artifact], which: str
) -> None:
    walk = Walk(tmp_path / "blobs", entry, artifacts[which])
    found, brought = walk.there(board)
    assert found == walk.here()
    assert found.first == ("mix" if "wrong" in which else None)
    assert len(found.layers) >= 0.5 * found.program_tensors
    assert brought < 10_000 * measure.LAYER_SAMPLES  # a few figures for each tensor, where the tensors would be far more
    task = walk.asked.job.tasks[0]
    assert isinstance(task, Layers)
    if walk.artifact.path.is_file():  # the graph with more outputs is not sent: what is added to its bytes is
        assert task.suffix is not None
        assert walk.asked.blobs[task.suffix].stat().st_size < 100 * len(walk.taps)


def test_a_tensor_that_the_artefact_lacks_is_named_before_anything_is_sent(
    tmp_path: Path, entry: ProgramEntry, artifacts: dict[str, Artifact]
) -> None:
    walk = Walk(tmp_path / "first", entry, artifacts["right"])
    asking = Asking(tmp_path)
    with pytest.raises(InputError, match="the graph has no tensor no_such_tensor"):
        asking.layers(
            asking.subject(artifacts["right"], "onnxruntime"),
            asking.feeds(walk.feeds),
            walked(walk.evaluations),
            taps=["no_such_tensor"],
            nodes=entry.nodes,
        )


def walked(evaluations: Sequence[tuple[Outputs, ...]]) -> Iterator[Outputs]:
    return (each[0] for each in evaluations)
