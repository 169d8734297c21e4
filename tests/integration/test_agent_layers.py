"""Inner tensors are compared on the device: the report is that of this machine, the module is named, and next to nothing travels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from blamed import changed, program
from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact, Manifest
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.job import Layers
from dtvit_deploy.harness.layers import LayerReport, report_of
from dtvit_deploy.pipeline import measure
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.remote.asking import Asked, Asking, offered
from dtvit_deploy.remote.recorded import layer_sums
from dtvit_deploy.runtimes.pairing import pairings

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs

pytest.importorskip("openvino")


SPOILT = "blocks.0.out"
"""The module that is to be named."""


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    return program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def artifacts(
    entry: ProgramEntry, tmp_path_factory: pytest.TempPathFactory, vouch: Callable[[Path, Manifest], Artifact]
) -> dict[str, Artifact]:
    cache, guard = Cache(tmp_path_factory.mktemp("cache")), open_material(None, entry.artifact.manifest).guard()
    right = onnx_stage(entry, guard, cache)
    wrong = vouch(changed(right, SPOILT, tmp_path_factory.mktemp("spoilt"), 0.01), right.manifest)
    return {
        "right": right,
        "fp16": float16_stage(right, guard, (), cache),
        "wrong": wrong,
        "right in openvino": openvino_stage(right, Precision.FP32, cache),
        "wrong in openvino": openvino_stage(wrong, Precision.FP32, cache),
    }


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
        self.evaluations = [tuple(measure.inner_tensors(one.run(feed), self.taps, self.bench) for one in sessions) for feed in self.feeds]
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
    assert found.first == (SPOILT if "wrong" in which else None)
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
