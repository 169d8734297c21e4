"""What a device tells of layers and peaks is read as it was written, or refused, whoever made it up."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.expected import MOST_PROFILED, MOST_RUNS
from dtvit_deploy.formats.job.frames import MAGIC, ResultsError, frame_bytes
from dtvit_deploy.formats.job.job import Blob, Job, MeasurePeaks, ProfileLayers, Subject, decode_job, encode_job, job_id
from dtvit_deploy.formats.job.results import Results, read_results
from dtvit_deploy.harness.roofline import Peak, Peaks
from dtvit_deploy.remote.asking import Asked
from dtvit_deploy.remote.profiled import layers_told, peaks_told
from dtvit_deploy.runtimes.carried_layers import MOST_LEADS, MOST_LETTERS, layer_arrays, layers_of
from dtvit_deploy.runtimes.layer_times import Layer, Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

DIGEST, OTHER = "a" * 64, "b" * 64
MUTANTS = 3000
TOLD = Told(
    [
        Layer("conv", "Convolution", "jit_avx2", ("conv", "relu"), [1.0, 2.0, 1.5], ("relu_out", "head")),
        Layer("reorder_1", "Reorder", "", (), [0.25]),
        Layer("head", "MatMul", "brgemm", ("head",), [3.0, 3.5], ("head",)),
    ],
    [5.0, 6.0, 5.5],
)
PEAKS = Peaks(
    products=(
        Peak(precision="fp32", gflops=100.0, runtime="onnxruntime 1.32.0", size="1024×1024×1024", median_gflops=99.0, runs=6),
        Peak(precision="int8", gflops=400.0, runtime="openvino 2026.4.1", size="2048×2048×2048", median_gflops=400.0, runs=6),
    ),
    copy_gb_s=20.0,
    copy_mib=256,
    threads=2,
    taken="2026-12-01T04:00:00+00:00",
)


def job() -> Job:
    signature = Signature((TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),))
    manifest = Manifest(
        model="m",
        format="onnx",
        precision=Precision.FP32,
        sha256=DIGEST,
        signature=signature,
        lineage=(Link(kind="onnx", sha256=DIGEST),),
    )
    return Job(
        agent=DIGEST,
        blobs=(Blob(sha256=DIGEST, bytes=10), Blob(sha256=OTHER, bytes=20)),
        subjects=(Subject(name="m.onnx", runtime="onnxruntime", manifest=manifest, files={"": DIGEST}),),
        tasks=(ProfileLayers(name="layer times", subject=0, threads=2, feeds=(OTHER,)), MeasurePeaks(threads=2)),
    )


JOB = job()
NAME = job_id(encode_job(JOB))


def told(arrays: Arrays | None = None, peaks: object = None) -> Results:
    """Results in which a device says that."""
    bodies = [
        frame_bytes("job", body={"job": NAME}),
        frame_bytes("begin", task=0),
        frame_bytes("part", task=0, arrays=layer_arrays(TOLD) if arrays is None else arrays),
        frame_bytes("done", task=0),
        frame_bytes("begin", task=1),
        frame_bytes("part", task=1, body={"peaks": msgspec.to_builtins(PEAKS) if peaks is None else peaks}),
        frame_bytes("done", task=1),
    ]
    written = Results(JOB, NAME, io.BytesIO())
    written.begin()
    content = MAGIC + b"".join(bodies)
    written._pass(content[len(MAGIC) :])
    written.frames = len(bodies)
    return read_results(JOB, NAME, io.BytesIO(content + frame_bytes("end", body=written.end)))


ASKED = Asked(JOB, {}, {})


def test_what_was_told_is_read() -> None:
    results = told()
    assert layers_told(ASKED, results, 0) == TOLD
    assert peaks_told(ASKED, results, 1) == PEAKS


def test_a_job_with_such_tasks_comes_back_and_has_the_device_for_itself() -> None:
    assert decode_job(encode_job(JOB)) == JOB
    assert JOB.timed
    for tasks in ((JOB.tasks[0],), (JOB.tasks[1],)):
        assert msgspec.structs.replace(JOB, tasks=tasks).timed
    beyond = msgspec.structs.replace(JOB, tasks=(msgspec.structs.replace(JOB.tasks[0], subject=1),))
    with pytest.raises(InputError, match="subject 1"):
        decode_job(encode_job(beyond))


def test_nothing_and_names_of_any_length_come_back() -> None:
    assert layers_of(layer_arrays(Told([], [1.0]))) == Told([], [1.0])
    long = Layer("n" * 5000, "", "", (), [1.0], tuple(map(str, range(1000))))
    (found,) = layers_of(layer_arrays(Told([long], [1.0]))).layers
    assert found.name == "n" * MOST_LETTERS
    assert found.leads_to == tuple(map(str, range(MOST_LEADS)))  # the nearest


def test_what_is_more_than_is_sent_is_refused_there() -> None:
    with pytest.raises(InputError, match="more than is sent"):
        layer_arrays(Told([Layer("n", "", "", (), [1.0])] * (MOST_PROFILED + 1), [1.0]))


def test_no_word_of_it_reaches_a_terminal_as_a_command() -> None:
    arrays = layer_arrays(Told([Layer("a\x1b[31m", "t\nt", "k\x00", ("m\x07",), [1.0])], [1.0]))
    (layer,) = layers_of(arrays).layers
    assert "".join((layer.name, layer.type, layer.kernel, *layer.made_of)).isprintable()
    product = msgspec.structs.replace(PEAKS.products[0], runtime="r\x1b[2J" + "x" * 5000)
    found = peaks_told(ASKED, told(peaks=msgspec.to_builtins(msgspec.structs.replace(PEAKS, products=(product,)))), 1)
    assert found.products[0].runtime.isprintable()
    assert len(found.products[0].runtime) <= 100


def with_words(text: str) -> Arrays:
    return layer_arrays(TOLD) | {"words": np.frombuffer(text.encode(), np.uint8)}


def row(*places: object) -> str:
    return '{"names":["a","b"],"layers":[' + ",".join(map(str, places)) + "]}"


ONE = "[0,1,1,[0],[]]"
WRONG: dict[str, Callable[[], Arrays]] = {
    "no time": lambda: layer_arrays(TOLD) | {"times_ms": np.array([1.0, 2, 1, 1, 3, np.nan])},
    "an endless time": lambda: layer_arrays(TOLD) | {"times_ms": np.array([1.0, 2, 1, 1, 3, np.inf])},
    "a negative time": lambda: layer_arrays(TOLD) | {"times_ms": np.array([1.0, 2, 1, 1, 3, -1])},
    "no whole run": lambda: layer_arrays(TOLD) | {"whole_ms": np.zeros(0)},
    "a whole run of no time": lambda: layer_arrays(TOLD) | {"whole_ms": np.array([np.nan])},
    "a time too few": lambda: layer_arrays(TOLD) | {"times_ms": np.ones(5)},
    "a time too many": lambda: layer_arrays(TOLD) | {"times_ms": np.ones(7)},
    "a count too few": lambda: layer_arrays(TOLD) | {"counts": np.array([3, 3])},
    "a layer without times": lambda: layer_arrays(TOLD) | {"counts": np.array([0, 4, 2])},
    "a negative count": lambda: layer_arrays(TOLD) | {"counts": np.array([8, -4, 2])},
    "counts beyond all bounds": lambda: layer_arrays(TOLD) | {"counts": np.array([2**62, 2**62, 2**63 - 1])},
    "no JSON": lambda: with_words("{"),
    "no text": lambda: layer_arrays(TOLD) | {"words": np.full(9, 255, np.uint8)},
    "no words": lambda: with_words(""),
    "a nest": lambda: with_words("[" * 100_000),
    "layers too few": lambda: with_words(row(ONE)),
    "a name that is not there": lambda: with_words(row(ONE, ONE, "[0,1,2,[],[]]")),
    "one that it leads to": lambda: with_words(row(ONE, ONE, "[0,1,1,[],[7]]")),
    "a name before the first": lambda: with_words(row(ONE, ONE, "[-1,1,1,[],[]]")),
    "a place that is none": lambda: with_words(row(ONE, ONE, "[0.5,1,1,[],[]]")),
    "a layer of another form": lambda: with_words(row(ONE, ONE, "[0,1,1]")),
    "a field too many": lambda: with_words('{"names":[],"layers":[],"more":0}'),
    "a name too long": lambda: with_words('{"names":["' + "n" * 1001 + '"],"layers":[]}'),
}


@pytest.mark.parametrize("what", WRONG)
def test_layer_times_that_are_none_are_refused(what: str) -> None:
    with pytest.raises(ResultsError, match="layer times from the device are none"):
        layers_told(ASKED, told(WRONG[what]()), 0)


SHAPES: dict[str, Callable[[], Arrays]] = {
    "an array too few": lambda: {name: each for name, each in layer_arrays(TOLD).items() if name != "counts"},
    "an array too many": lambda: layer_arrays(TOLD) | {"more": np.ones(1)},
    "another type": lambda: layer_arrays(TOLD) | {"counts": np.array([3.0, 1, 2])},
    "another shape": lambda: layer_arrays(TOLD) | {"times_ms": np.ones((2, 3))},
    "more runs than are made": lambda: layer_arrays(TOLD) | {"whole_ms": np.ones(MOST_RUNS + 1)},
    "more layers than there are": lambda: layer_arrays(TOLD) | {"counts": np.ones(MOST_PROFILED + 1, np.int64)},
    "more words than are said": lambda: layer_arrays(TOLD) | {"words": np.zeros((8 << 20) + 1, np.uint8)},
}


@pytest.mark.parametrize("what", SHAPES)
def test_arrays_that_nobody_asked_for_are_refused_before_they_are_read(what: str) -> None:
    with pytest.raises(ResultsError, match="not what was asked for"):
        told(SHAPES[what]())


def changed(**fields: object) -> object:
    return msgspec.to_builtins(PEAKS) | fields


def product(**fields: object) -> object:
    first, second = msgspec.to_builtins(PEAKS)["products"]
    return changed(products=[first | fields, second])


NO_PEAKS: dict[str, object] = {
    "nothing": {},
    "text": "fast",
    "a list": [1],
    "a field too few": {"products": []},
    "a field too many": changed(more=1),
    "other threads": changed(threads=1),
    "no bandwidth": changed(copy_gb_s=0.0),
    "a negative bandwidth": changed(copy_gb_s=-1.0),
    "a bandwidth beyond all bounds": changed(copy_gb_s=1e300),
    "no time": changed(taken="today"),
    "a time with more behind it": changed(taken=PEAKS.taken + "\x1b[31m"),
    "an unknown precision": product(precision="fp4"),
    "a precision twice": product(precision="int8"),
    "no rate": product(gflops=0.0, median_gflops=0.0),
    "a median above the fastest": product(median_gflops=101.0),
    "no median": product(median_gflops=0.0),
    "a rate that is text": product(gflops="100"),
    "no runs": product(runs=0),
    "a size that is none": product(size="<b>"),
}


@pytest.mark.parametrize("what", NO_PEAKS)
def test_peaks_that_are_none_are_refused(what: str) -> None:
    with pytest.raises(ResultsError, match="what the device can do is not told"):
        peaks_told(ASKED, told(peaks=NO_PEAKS[what]), 1)


def test_arrays_beside_peaks_are_refused() -> None:
    results = Results(JOB, NAME, io.BytesIO())
    results.begin()
    for content in (frame_bytes("job", body={"job": NAME}), frame_bytes("begin", task=1)):
        results.accept(one_frame(content))
    with pytest.raises(ResultsError, match="not what was asked for"):
        results.accept(one_frame(frame_bytes("part", task=1, arrays={"more": np.ones(1)})))


def one_frame(content: bytes) -> Any:
    from dtvit_deploy.formats.job.frames import read_frame

    return read_frame(io.BytesIO(content))


def test_changed_words_and_numbers_are_refused_or_harmless() -> None:
    dice, arrays, refused = random.Random(0), layer_arrays(TOLD), 0
    for _ in range(MUTANTS):
        mutant = {name: each.copy() for name, each in arrays.items()}
        for _ in range(dice.randint(1, 3)):
            one = dice.choice(list(mutant.values())).view(np.uint8)
            one[dice.randrange(len(one))] = dice.randrange(256)
        try:
            found = layers_of(mutant)
        except ValueError:
            refused += 1
            continue
        assert all(np.isfinite(layer.times_ms).all() and layer.times_ms and layer.name.isprintable() for layer in found.layers)
    assert MUTANTS / 10 < refused < MUTANTS
