"""Results files are read whole or refused, whatever has become of them."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
import zlib
from collections.abc import Callable
from struct import pack

import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.frames import DTYPES, LARGEST_FRAME, MAGIC, CutOffError, Frame, ResultsError, frame_bytes, read_frame
from dtvit_deploy.formats.job.job import Answers, Blob, Build, Job, Latency, Layers, State, Subject, decode_job, encode_job, job_id
from dtvit_deploy.formats.job.made import COMES_BACK, made_of
from dtvit_deploy.formats.job.results import Results, read_results
from dtvit_deploy.formats.job.words import clean, last_line, shown

DIGEST, OTHER = "a" * 64, "b" * 64
MUTANTS = 5000


def job() -> Job:
    signature = Signature((TensorSpec("image", (1, 3, 4, 4)),), (TensorSpec("logits", (1, 5)), TensorSpec("best", (1,), "int64")))
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
        tasks=(
            State(),
            Answers(name="answers", subject=0, threads=1, feeds=(OTHER,), samples=3),
            Layers(
                name="layers",
                subject=0,
                threads=1,
                feeds=(OTHER,),
                samples=1,
                taps=("conv", "relu"),
                outputs=(("linear", "logits"), ("argmax", "best")),
                reference=(OTHER,),
            ),
            Latency(name="latency", subjects=(0,), threads=1, feeds=(OTHER,), options={"max_samples": 100}),
            Build(name="engine", subject=0, most=1000),
        ),
    )


JOB = job()
ENGINE = b"{}" + b"ftrt" + bytes(range(200))
"""A manifest and an engine, as far as frames go."""
MADE = {"sha256": hashlib.sha256(ENGINE).hexdigest(), "manifest": 2, "files": {"model.engine": len(ENGINE) - 2}}
NAME = job_id(encode_job(JOB))
Bodies = list[bytes]


def frames() -> Bodies:
    """What a device writes, but for the end."""
    rng = np.random.default_rng(0)
    answers = [{"logits": rng.standard_normal((1, 5), np.float32), "best": np.array([index])} for index in range(3)]
    series = {"samples_ms": rng.random(70), "stamps_s": np.arange(70.0)}
    return [
        frame_bytes("job", body={"job": NAME, "device": {"processor": "one"}}),
        frame_bytes("waiting", body={"holder": "somebody"}),
        frame_bytes("begin", task=0, body={"state": {}}),
        frame_bytes("done", task=0, body={"state": {}}),
        frame_bytes("begin", task=1, body={"state": {"load": "0.5"}}),
        *(frame_bytes("part", task=1, index=index, arrays=answer) for index, answer in enumerate(answers)),
        frame_bytes("done", task=1, body={"conditions": {"runtime": "onnxruntime 1"}, "state": {}}),
        frame_bytes("begin", task=2),
        frame_bytes("part", task=2, arrays={"noise": np.array([0.0, 1.5, np.nan, np.inf])}),
        frame_bytes("done", task=2),
        frame_bytes("begin", task=3),
        frame_bytes("progress", task=3, body={"fraction": 0.5}),
        frame_bytes("part", task=3, arrays=series, body={"tick_ms": 1e-4}),
        frame_bytes("part", task=3, index=1, arrays={"times_s": np.arange(7.0), "values": np.ones((7, 3)), "blocks": np.ones((11, 4))}),
        frame_bytes("done", task=3),
        frame_bytes("begin", task=4),
        frame_bytes("progress", task=4, body={"fraction": 0.0, "said": "built"}),
        frame_bytes("part", task=4, arrays={"piece": np.frombuffer(ENGINE, np.uint8)}),
        frame_bytes("done", task=4, body={"made": MADE}),
    ]


def written(bodies: Bodies) -> bytes:
    """A whole file, whose end fits it whatever is in it."""
    results = Results(JOB, NAME, io.BytesIO())
    results.begin()
    content = MAGIC + b"".join(bodies)
    results._pass(content[len(MAGIC) :])
    results.frames = len(bodies)
    return content + frame_bytes("end", body=results.end)


WHOLE = written(frames())


def read(content: bytes) -> Results:
    return read_results(JOB, NAME, io.BytesIO(content))


def test_what_was_written_is_read() -> None:
    results = read(WHOLE)
    assert [float(part["logits"][0, 0]) for part in results.parts(1)] == [
        float(np.frombuffer(frame.content[:4], "<f4")[0]) for frame in map(_frame, frames()[5:8])
    ]
    assert results.part(1, 2)["best"] == [2]
    assert results.outcomes[1].facts == {"runtime": "onnxruntime 1"}
    assert results.device == {"processor": "one"}
    np.testing.assert_array_equal(next(results.parts(2))["noise"], [0.0, 1.5, np.nan, np.inf])


def _frame(content: bytes) -> Frame:
    found = read_frame(io.BytesIO(content))
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1,) * 8])
def test_every_type_and_shape_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    found = _frame(frame_bytes("part", arrays={"x": array})).arrays()["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_task_that_began_again_counts_from_there() -> None:
    bodies = frames()
    bodies[6:6] = [frame_bytes("begin", task=1), bodies[5]]
    results = read(written(bodies))
    assert len(results.outcomes[1].parts) == 3
    assert results.part(1, 0)["best"] == [0]


def test_a_task_that_failed_raises_its_error_when_it_is_asked_for() -> None:
    bodies = frames()
    bodies[5:9] = [frame_bytes("failed", task=1, body={"message": "no \x1b[31mroom\n", "remedy": "free some", "exit_code": 3})]
    results = read(written(bodies))
    with pytest.raises(MissingError, match=r"no �\[31mroom") as raised:
        list(results.parts(1))
    assert raised.value.remedy == "free some"
    assert len(list(results.parts(3))) == 2


WRONG: dict[str, Callable[[Bodies], Bodies]] = {
    "nothing": lambda bodies: [],
    "another job": lambda bodies: [frame_bytes("job", body={"job": OTHER}), *bodies[1:]],
    "no job first": lambda bodies: bodies[1:],
    "the job twice": lambda bodies: [bodies[0], *bodies],
    "a result without a beginning": lambda bodies: [*bodies[:4], *bodies[5:]],
    "a result too few": lambda bodies: [*bodies[:7], *bodies[8:]],
    "a result too many": lambda bodies: [*bodies[:8], bodies[7], *bodies[8:]],
    "results in another order": lambda bodies: [*bodies[:5], bodies[6], bodies[5], *bodies[7:]],
    "a task that there is not": lambda bodies: [*bodies[:2], frame_bytes("begin", task=9), *bodies[2:]],
    "a task that ended, again": lambda bodies: [*bodies, frame_bytes("begin", task=1)],
    "a task too few": lambda bodies: bodies[:-4],
    "another shape": lambda bodies: swapped(bodies, {"logits": np.ones((5,), np.float32), "best": np.array([0])}),
    "another type": lambda bodies: swapped(bodies, {"logits": np.ones((1, 5)), "best": np.array([0])}),
    "another name": lambda bodies: swapped(bodies, {"scores": np.ones((1, 5), np.float32), "best": np.array([0])}),
    "an output too few": lambda bodies: swapped(bodies, {"logits": np.ones((1, 5), np.float32)}),
    "an output too many": lambda bodies: swapped(
        bodies, {"logits": np.ones((1, 5), np.float32), "best": np.array([0]), "more": np.array([0])}
    ),
    "more samples than were asked for": lambda bodies: [
        *bodies[:14],
        frame_bytes("part", task=3, arrays={"samples_ms": np.ones(101), "stamps_s": np.ones(101)}),
        *bodies[15:],
    ],
    "samples without their times": lambda bodies: [
        *bodies[:14],
        frame_bytes("part", task=3, arrays={"samples_ms": np.ones(70), "stamps_s": np.ones(69)}),
        *bodies[15:],
    ],
    "another clock than was asked for": lambda bodies: [
        *bodies[:14],
        frame_bytes("part", task=3, arrays=dict.fromkeys(("samples_ms", "stamps_s", "device_ms"), np.ones(70))),
        *bodies[15:],
    ],
    "a piece too few": lambda bodies: [*bodies[:-2], bodies[-1]],
    "a piece too many": lambda bodies: [
        *bodies[:-1],
        frame_bytes("part", task=4, index=1, arrays={"piece": np.ones(1, np.uint8)}),
        bodies[-1],
    ],
    "another piece": lambda bodies: [
        *bodies[:-2],
        frame_bytes("part", task=4, arrays={"piece": np.frombuffer(ENGINE[::-1], np.uint8)}),
        bodies[-1],
    ],
    "an engine that is not described": lambda bodies: [*bodies[:-1], frame_bytes("done", task=4)],
    "a file that no engine has": lambda bodies: [
        *bodies[:-1],
        frame_bytes("done", task=4, body={"made": {**MADE, "files": {"model.engine": len(ENGINE) - 2, "../x": 0}}}),
    ],
    "a state of other times than its values": lambda bodies: [
        *bodies[:15],
        frame_bytes("part", task=3, index=1, arrays={"times_s": np.ones(6), "values": np.ones((7, 3)), "blocks": np.ones((0, 4))}),
        *bodies[16:],
    ],
    "a state of more channels than there can be": lambda bodies: [
        *bodies[:15],
        frame_bytes("part", task=3, index=1, arrays={"times_s": np.ones(7), "values": np.ones((7, 61)), "blocks": np.ones((0, 4))}),
        *bodies[16:],
    ],
    "a state whose blocks are none": lambda bodies: [
        *bodies[:15],
        frame_bytes("part", task=3, index=1, arrays={"times_s": np.ones(7), "values": np.ones((7, 3)), "blocks": np.ones((2, 3))}),
        *bodies[16:],
    ],
    "samples in the place of the state": lambda bodies: [
        *bodies[:15],
        frame_bytes("part", task=3, index=1, arrays={"samples_ms": np.ones(70), "stamps_s": np.ones(70)}),
        *bodies[16:],
    ],
    "a fraction beyond the whole": lambda bodies: [*bodies[:13], frame_bytes("progress", task=3, body={"fraction": 7}), *bodies[14:]],
    "facts that are none": lambda bodies: [frame_bytes("job", body={"job": NAME, "device": [1]}), *bodies[1:]],
}


def swapped(bodies: Bodies, arrays: dict[str, np.ndarray]) -> Bodies:
    return [*bodies[:5], frame_bytes("part", task=1, arrays=arrays), *bodies[6:]]


@pytest.mark.parametrize("what", WRONG)
def test_what_was_not_asked_for_is_refused_though_its_end_fits(what: str) -> None:
    with pytest.raises(ResultsError):
        read(written(WRONG[what](frames())))


def test_what_follows_the_end_is_refused() -> None:
    with pytest.raises(ResultsError, match="follows its end"):
        read(WHOLE + frame_bytes("waiting"))


def raw(payload: bytes, length: int | None = None) -> bytes:
    return pack(">II", len(payload) if length is None else length, zlib.crc32(payload)) + payload


@pytest.mark.parametrize(
    "frame",
    [
        raw(b"{}\n"),
        raw(b""),
        raw(b"x", LARGEST_FRAME + 1),
        raw(b'{"kind":"part"}'),
        raw(b"[" * 100_000 + b"\n"),
        raw(b'{"kind":"run","body":{}}\n'),
        raw(b'{"kind":"part","more":1}\n'),
        raw(b'{"kind":"part","arrays":[["x","object",[1]]]}\n' + bytes(8)),
        raw(b'{"kind":"part","arrays":[["x","float32",[-1]]]}\n'),
        raw(b'{"kind":"part","arrays":[["x","float32",[67108864,67108864,67108864]]]}\n'),
        raw(b'{"kind":"part","arrays":[["x","float32",[1]]]}\n' + bytes(5)),
        raw(b'{"kind":"part","arrays":[["x","int8",[1]],["x","int8",[1]]]}\n' + bytes(2)),
        raw(b'{"kind":"part","arrays":[' + b",".join([b'["x","int8",[0]]'] * 65) + b"]}\n"),
        raw(b'{"kind":"part","arrays":[["x","int8",[1,1,1,1,1,1,1,1,1]]]}\n' + bytes(1)),
        raw(b'{"kind":"part","body":{"x":' + b'"' + b"y" * (1 << 20) + b'"}}\n'),
        raw(b'{"kind":"part","index":1e400}\n'),
    ],
)
def test_a_frame_that_claims_what_none_may_is_refused(frame: bytes) -> None:
    with pytest.raises(ResultsError):
        read_frame(io.BytesIO(frame))


def test_a_truth_value_that_is_neither_is_refused() -> None:
    frame = _frame(raw(b'{"kind":"part","arrays":[["x","bool",[1]]]}\n' + b"\x02"))
    with pytest.raises(ResultsError, match="neither true nor false"):
        frame.arrays()


def test_a_length_that_is_a_lie_takes_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(CutOffError):
        read_frame(io.BytesIO(raw(b"x", LARGEST_FRAME)))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


SHAPES: dict[int, list[dict[str, tuple[str, tuple[int, ...]]]]] = {
    1: [{"logits": ("float32", (1, 5)), "best": ("int64", (1,))}],
    2: [{"noise": ("float64", (4,))}],
    3: [
        *(dict.fromkeys(("samples_ms", "stamps_s"), ("float64", (count,))) for count in range(1, 101)),
        {"times_s": ("float64", (7,)), "values": ("float64", (7, 3)), "blocks": ("float64", (11, 4))},
    ],
}
"""What results may look like, by task."""


def mutant(rng: random.Random) -> bytes:
    """The file with some of its bytes others, some gone, doubled or moved; half of the mutants with checksums that fit."""
    bodies = frames()
    kind = rng.randrange(6)
    if kind == 0:
        bodies.insert(rng.randrange(len(bodies) + 1), rng.choice(bodies))
    elif kind == 1:
        del bodies[rng.randrange(len(bodies))]
    elif kind == 2:
        rng.shuffle(bodies)
    if kind < 3:
        return written(bodies)
    if kind < 5:  # within a payload, whose checksum then fits
        place = rng.randrange(len(bodies))
        payload = bytearray(bodies[place][8:])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(payload))
            payload[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            payload = payload or bytearray(b"\n")
        bodies[place] = raw(bytes(payload))
        return written(bodies)
    content = bytearray(WHOLE)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        content[at : at + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
    return bytes(content)


def test_five_thousand_mutants_are_refused_or_read_right() -> None:
    rng = random.Random(0)
    refused = 0
    for _ in range(MUTANTS):
        try:
            results = read(mutant(rng))
        except ResultsError:
            refused += 1
            continue
        # A mutant with checksums of its own is another device's word; what was asked for is what is there all the same.
        for task, count in ((1, 3), (2, 1), (3, 2)):
            try:
                parts = list(results.parts(task))
            except (InputError, MissingError):
                continue
            assert len(parts) == count
            assert all({name: (array.dtype.name, array.shape) for name, array in part.items()} in SHAPES[task] for part in parts)
        if results.outcomes[4].ended == "done":
            content = b"".join(part["piece"].tobytes() for part in results.parts(4))
            made = made_of(results.outcomes[4].made)
            assert (made.bytes, made.sha256) == (len(content), hashlib.sha256(content).hexdigest())
            assert set(made.files) <= set(COMES_BACK)
    assert MUTANTS / 2 < refused < MUTANTS


def test_bytes_that_changed_on_the_way_never_pass() -> None:
    rng = random.Random(1)
    for _ in range(500):
        content = bytearray(WHOLE)
        at = rng.randrange(len(content))
        content[at] ^= 1 << rng.randrange(8)
        with pytest.raises(ResultsError):
            read(bytes(content))


def test_a_file_that_ends_early_is_cut_off_wherever_that_is() -> None:
    for length in range(0, len(WHOLE), 37):
        with pytest.raises(ResultsError):
            read(WHOLE[:length])


def test_text_from_elsewhere_is_of_one_line_printable_and_cut() -> None:
    assert clean("a\nb\x1b[2J\u202e" + "x" * 5000) == "a b�[2J�" + "x" * 1992
    assert shown(b"\r\n a\t\tb\x1b[2J\xff\xe2\x80\xa8 c" + b"x" * 5000) == "a b�[2J� c" + "x" * 289 + "…"
    assert last_line(b"why\n \r\n\n") == "why"
    assert last_line(b"") == ""


class TestAJob:
    def test_is_read_as_it_was_written(self) -> None:
        assert decode_job(encode_job(JOB)) == JOB

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (f'"{OTHER}"', f'"{"c" * 64}"'),
            ('"m.onnx"', '"../m.onnx"'),
            ('"m.onnx"', '"..' + '"'),
            ('"m.onnx"', '"a/b"'),
            ('"m.onnx"', '"a\\u0000b"'),
            ('"": "a', '"/etc/x": "a'),
            ('"": "a', '"a/../../x": "a'),
            ('"": "a', '"a//x": "a'),
            ('"": "a', '"..": "a'),
            ('"": "a', '"x/.": "a'),
            ('"subject": 0', '"subject": 1'),
            ('"schema": 1,\n  "sub', '"schema": 2,\n  "sub'),
            ('"threads": 1', '"threads": 0'),
            ('"type": "state"', '"type": "shell"'),
            ('"type": "state"', '"type": "state", "command": "x"'),
            (f'"agent": "{DIGEST}"', '"agent": "x"'),
        ],
    )
    def test_that_contradicts_itself_or_leads_elsewhere_is_refused(self, old: str, new: str) -> None:
        content = encode_job(JOB).decode()
        assert old in content
        with pytest.raises(InputError, match="this is not a job"):
            decode_job(content.replace(old, new, 1).encode())

    @pytest.mark.parametrize("content", [b"", b"null", b"[" * 10_000, b"\xff\xfe", b'{"tasks": []}'])
    def test_that_is_none_is_refused(self, content: bytes) -> None:
        with pytest.raises(InputError, match="this is not a job"):
            decode_job(content)
