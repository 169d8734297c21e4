"""Top-1 is compared of class scores, and of no embedding, box or angle, whatever the network returns beside them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn

from checking import checked
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.compared import parity
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.runtimes.pairing import pairings
from judged import Judged, judged, picture


class Several(nn.Module):
    """An embedding, a box and class scores, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.box, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        embedding = self.stem(image).mean((2, 3))
        return {"embedding": embedding, "bbox": self.box(embedding), "logits": self.head(embedding)}


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.stem(image).mean((2, 3))}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    return judged(Several(), picture(16), tmp_path_factory.mktemp("several"))


def compared(network: Judged, called_scores: tuple[str, ...] | None = None) -> set[str]:
    """Outputs whose greatest entries were compared."""
    bench = Bench(network.program, pairings((network.artifact,)), network.material, 1, Silent(), called_scores=called_scores)
    return {one.output for one in parity(bench, 2, adversarial=False)[0] if one.agreement is not None}


def as_int8(network: Judged) -> Artifact:
    """The artefact under the name of INT8, which is what it is held to."""
    manifest = msgspec.structs.replace(network.artifact.manifest, precision=Precision.INT8)
    return msgspec.structs.replace(network.artifact, manifest=manifest)


def test_of_several_rows_the_class_scores_alone_decide(several: Judged) -> None:
    assert compared(several) == {"logits"}
    assert compared(several, ("embedding",)) == {"embedding"}
    assert compared(several, ()) == set()


def test_int8_of_class_scores_still_needs_real_input(several: Judged) -> None:
    report = checked(several.program, [as_int8(several)], several.material)
    assert report.verdict is not None
    assert [gate.name for gate in report.verdict.failed] == [f"{several.artifact.name}: top-1 agreement on real input (give --data)"]
    assert not any("class scores" in note for note in report.notes)


def test_int8_of_an_embedding_is_held_to_its_sqnr_and_the_report_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = judged(Embeds(), picture(16), tmp_path)
    report = checked(network.program, [as_int8(network)], network.material)
    assert report.verdict is not None
    assert report.verdict.passed, report.verdict.reason
    (note,) = (note for note in report.notes if "class scores" in note)
    assert note == (
        "no top-1 is compared, and INT8 is held to its SQNR alone: nothing says that 'embedding' is class scores; --class-scores NAME says"
        " so, and --class-scores none that there are none (in a recipe: parity.class_scores)"
    )


def test_what_is_no_output_cannot_be_called_class_scores(several: Judged) -> None:
    with pytest.raises(InputError, match="'probs' cannot be class scores"):
        checked(several.program, [several.artifact], several.material, class_scores=("probs",))
