"""What is counted on stretches of samples adds up to what one pass counts, at every point at which ranges are noted."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.counts import COUNTED, Counts, Observed, Terms, points, stretches
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set
from dtvit_deploy.pipeline.observation import Observation
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.shards import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNATURE = Signature((TensorSpec("image", (1, 3, 4, 4)),), (TensorSpec("logits", (1, 3)),))
MANIFEST = Manifest(
    model="tiny",
    format="program",
    precision=Precision.FP32,
    sha256="a" * 64,
    signature=SIGNATURE,
    lineage=(Link(kind="program", sha256="a" * 64),),
)
PROGRAM = ProgramEntry(Artifact(Path("program.pt2"), MANIFEST), NodeMap([]), Path("model.onnx"))
TERMS = Terms(tuple(Observed(name, "", "aten", 64) for name in "xyz"), ("x",), "0" * 64)
TOTAL = 21
"""With points at 8, 16 and 21."""


def values(image: int) -> NDArray[np.float32]:
    """(3, 64) of an image: one tensor grows with every image, one reaches infinity at last, and one is 0 for long."""
    drawn = np.random.RandomState(image).standard_normal((3, 64)).astype(np.float32)
    drawn[0] *= 2.0**image
    drawn[1, 0] = np.inf if image == TOTAL - 1 else drawn[1, 0]
    drawn[2] *= image > 12
    return drawn


def counted(start: int, stop: int, terms: Terms = TERMS) -> Counts:
    counts = Counts(terms, start)
    for image in range(start, stop):
        tensors = values(image)
        counts.histograms.add(tensors.ravel(), tensors.min(1), tensors.max(1))
        counts.stop += 1
        counts.flat += image % 5 == 0
    return counts


def chosen() -> CalibrationSet:
    return random_set(SIGNATURE, TOTAL, 0)


def observation() -> Observation:
    return Observation(PROGRAM, chosen(), percentile=99.9, threads=1)


def everything(found: Observation) -> tuple[bytes, ...]:
    arrays = found.counts.histograms.arrays()
    return (found.curve.tobytes(), str((found.counts.stop, found.counts.flat)).encode(), *(array.tobytes() for array in arrays.values()))


@pytest.fixture(scope="module")
def whole() -> tuple[bytes, ...]:
    """Counted image by image into one, with the ranges noted on the way, as a single process does it."""
    found = observation()
    found._begin(TERMS)
    for image in range(TOTAL):
        one = values(image)
        found.counts.histograms.add(one.ravel(), one.min(1), one.max(1))
        found.counts.stop += 1
        found.counts.flat += image % 5 == 0
        found._note()
    return everything(found)


@given(cuts=st.lists(st.integers(0, TOTAL), max_size=6).map(sorted))
@settings(deadline=None, max_examples=40)
def test_any_cut_gives_the_same_bytes_as_one_pass(whole: tuple[bytes, ...], cuts: list[int]) -> None:
    found, ends = observation(), points(TOTAL, 8)
    shards = list(zip([0, *cuts], [*cuts, TOTAL], strict=True))  # some are empty
    found.take([pickle.loads(pickle.dumps(counted(*part))) for part in stretches(*shard, ends)] for shard in shards)
    assert everything(found) == whole


def test_counts_that_cannot_be_written_to_are_merged_all_the_same() -> None:
    """Arrays that came over a network often are views of what was received."""
    after, other = counted(3, 9), counted(3, 9)
    for array in after.histograms.arrays().values():
        array.flags.writeable = False
    first, second = counted(0, 3), counted(0, 3)
    for found, more in ((first, after), (second, other)):
        found.merge(more)
    assert all(np.array_equal(first.histograms.arrays()[name], array) for name, array in second.histograms.arrays().items())
    assert first.histograms.exponents[0] > counted(0, 3).histograms.exponents[0], "this test needs bins that are widened"


def test_what_is_sent_of_few_images_is_a_fraction_of_what_is_held() -> None:
    counts = counted(0, 8)
    assert len(pickle.dumps(counts)) < counts.histograms.counts.nbytes / 3
    again = pickle.loads(pickle.dumps(counts))
    assert again.histograms.counts.dtype == np.int64
    again.merge(counted(8, 10))  # and goes on counting


class TestRefused:
    @pytest.mark.parametrize("start", [0, 2, 4])
    def test_samples_that_do_not_follow(self, start: int) -> None:
        with pytest.raises(ValueError, match="do not follow sample 2"):
            counted(0, 3).merge(counted(start, 6))

    @pytest.mark.parametrize(
        "other",
        [
            Terms(TERMS.tensors, ("x",), "1" * 64),
            Terms(TERMS.tensors, ("y",), TERMS.digest),
            Terms(TERMS.tensors[::-1], ("x",), TERMS.digest),
        ],
    )
    def test_samples_observed_under_other_terms(self, other: Terms) -> None:
        with pytest.raises(InputError, match="samples 3 to 5 were observed otherwise") as caught:
            counted(0, 3).merge(counted(3, 6, other))
        assert caught.value.remedy

    @pytest.mark.parametrize("shards", [[], [[]], [[(0, 8)]], [[(0, 8), (8, 16)], [(16, 20)]], [[(8, 16), (16, 21)]]])
    def test_samples_that_are_missing(self, shards: list[list[tuple[int, int]]]) -> None:
        with pytest.raises(ValueError, match=r"expected|follow"):
            observation().take([counted(*part) for part in shard] for shard in shards)

    def test_a_stretch_over_a_point_at_which_ranges_are_noted(self) -> None:
        with pytest.raises(ValueError, match="not cut where ranges are noted"):
            observation().take([[counted(0, 9), counted(9, TOTAL)]])


@given(start=st.integers(0, 50), length=st.integers(0, 50), many=st.integers(1, 60))
def test_shards_are_of_nearly_equal_length_and_none_is_empty(start: int, length: int, many: int) -> None:
    found = cut(start, start + length, many)
    lengths = [stop - first for first, stop in found]
    assert [first for first, _ in found] == [start, *(stop for _, stop in found)][:-1]
    assert found[-1][1] == start + length
    assert len(found) == max(min(many, length), 1)
    assert max(lengths) - min(lengths) <= 1


def test_points_double_and_end_with_all() -> None:
    assert [points(total, 8) for total in (2, 8, 9, 32, 33)] == [[2], [8], [8, 9], [8, 16, 32], [8, 16, 32, 33]]
    assert stretches(5, 21, [8, 16, 21]) == [(5, 8), (8, 16), (16, 21)]
    assert stretches(9, 15, [8, 16, 21]) == [(9, 15)]
    assert stretches(21, 21, [8, 16, 21]) == [(21, 21)]


@given(st.integers(1, 10**7))
def test_at_most_so_many_values_are_counted_and_every_channel_is_met(number: int) -> None:
    tensor = Observed("x", "", "aten", number)
    assert 1 <= tensor.counted <= COUNTED
    assert np.gcd(tensor.stride, number) == 1
