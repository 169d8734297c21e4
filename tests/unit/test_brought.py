"""Answers that came by a file are taken for what was sent and for nothing else, whoever made up the request and the results."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.frames import MAGIC, frame_bytes
from dtvit_deploy.formats.job.job import Answers, Job, Latency, Layers, decode_job, encode_job, job_id
from dtvit_deploy.formats.job.results import Results, read_results
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.harness.latency.starts import Start, Taken, starts_of
from dtvit_deploy.harness.state.carried import state_arrays
from dtvit_deploy.harness.state.record import Watched
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.brought import Brought
from dtvit_deploy.remote.request import ask_for
from dtvit_deploy.runtimes.base import SessionOptions

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

MUTANTS = 500
FEEDS: list[Feeds] = [{"x": np.full((1, 4), index, np.float32)} for index in range(3)]
HERE = {"processor": "one", "architecture": "aarch64"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two, which nothing here looks into: they are known by their bytes."""
    found = []
    for name in ("one.onnx", "two.openvino"):
        path = tmp_path_factory.mktemp("artifact") / name
        path.write_bytes(name.encode())
        signature = Signature((TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),))
        digest = sha256_of(path)
        manifest = Manifest(
            model="m",
            format="onnx",
            precision=Precision.FP32,
            sha256=digest,
            signature=signature,
            lineage=(Link(kind="onnx", sha256=digest),),
        )
        found.append(Artifact(path, manifest))
    return found


@pytest.fixture(scope="module")
def job(artifacts: list[Artifact], tmp_path_factory: pytest.TempPathFactory) -> Job:
    asking = Asking(tmp_path_factory.mktemp("blobs"))
    subjects = list(zip(artifacts, ("onnxruntime", "openvino"), strict=True))
    ask_for(asking, subjects, FEEDS, threads=1, timed=MeasureOptions(), apart=True)
    return asking.asked.job


def test_clocks_are_locked_of_every_latency_of_a_job_that_asks_for_it(artifacts: list[Artifact], job: Job, tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    subjects = list(zip(artifacts, ("onnxruntime", "openvino"), strict=True))
    ask_for(asking, subjects, FEEDS, threads=1, timed=MeasureOptions(), apart=True, lock_clocks=True)
    asked = asking.asked.job
    for found, locks in ((asked, [True, True]), (decode_job(encode_job(asked)), [True, True]), (job, [False, False])):
        assert [task.lock_clocks for task in found.tasks if isinstance(task, Latency)] == locks
    assert job_id(encode_job(asked)) != job_id(encode_job(job))  # figures of one are none of the other's


STARTS = msgspec.to_builtins(starts_of(Taken(first=(Start(load_ms=1.0, first_ms=2.0),))))


def results_of(job: Job, *, device: dict[str, Any] = HERE, failed: Sequence[int] = ()) -> Results:
    """What a device that does such a job writes; ``failed`` are the tasks that it cannot do."""
    identity = job_id(encode_job(job))
    bodies = [frame_bytes("job", body={"job": identity, "device": device})]
    for index, task in enumerate(job.tasks):
        bodies.append(frame_bytes("begin", task=index))
        if index in failed:
            bodies.append(frame_bytes("failed", task=index, body={"message": "it is not there", "exit_code": 3, "remedy": "install it"}))
            continue
        if isinstance(task, Answers):
            answers = (np.full((1, 2), part, np.float32) for part in range(task.samples))
            bodies += [frame_bytes("part", task=index, index=part, arrays={"y": answer}) for part, answer in enumerate(answers)]
        elif isinstance(task, Layers):
            energies = np.full(len(task.tensors), 0.5)
            bodies += [frame_bytes("part", task=index, index=part, arrays={"noise": energies}) for part in range(task.samples)]
        elif isinstance(task, Latency):
            told = {
                "warmup": {"runs": 9, "seconds": 0.1, "change": 0.0, "first_ms": 2.0},
                "tick_ms": 1e-4, "conditions": {}, "starts": STARTS,
            }  # fmt: skip
            series = {"samples_ms": np.full(70, 1.0), "stamps_s": np.arange(70.0)}
            bodies += [frame_bytes("part", task=index, index=part, arrays=series, body=told) for part in range(len(task.subjects))]
            arrays, body = state_arrays(Watched(times_s=(), channels=()), ())
            bodies.append(frame_bytes("part", task=index, index=len(task.subjects), arrays=arrays, body=body))
        bodies.append(frame_bytes("done", task=index, body={"conditions": {"runtime": "r 1"}}))
    written = Results(job, identity, io.BytesIO())
    written.begin()
    content = MAGIC + b"".join(bodies)
    written._pass(content[len(MAGIC) :])
    written.frames = len(bodies)
    return read_results(job, identity, io.BytesIO(content + frame_bytes("end", body=written.end)))


def brought(job: Job, **more: Any) -> Brought:
    return Brought("bench", Asked(job, {}, {}), results_of(job, **more))


def test_each_feed_has_its_own_answer_and_each_artefact_its_time(artifacts: list[Artifact], job: Job) -> None:
    place = brought(job)
    runtimes = place.answered(artifacts, FEEDS, threads=1)
    assert place.unanswered == []
    for artifact, runtime in zip(artifacts, runtimes, strict=True):
        assert runtime is not None
        assert runtime.rung is Rung.ON_DEVICE
        assert runtime.measurement is not None
        assert runtime.measurement.conditions["device"] == "bench"
        with runtime.load(artifact, SessionOptions()) as session:
            assert [session.run(feed)["y"][0, 0] for feed in reversed(FEEDS)] == [2, 1, 0]


def test_what_failed_there_costs_the_others_nothing(artifacts: list[Artifact], job: Job) -> None:
    answers = [index for index, task in enumerate(job.tasks) if isinstance(task, Answers)]
    times = [index for index, task in enumerate(job.tasks) if isinstance(task, Latency)]
    assert len(times) == 2  # one for each runtime
    place = brought(job, failed=(answers[1], times[0]))
    first, second = place.answered(artifacts, FEEDS, threads=1)
    assert first is not None
    assert (first.measurement, second) == (None, None)
    assert {name for name, _ in place.unanswered} == {job.tasks[answers[1]].name, job.tasks[times[0]].name}
    assert all((str(error), error.remedy) == ("it is not there", "install it") for _, error in place.unanswered)


def test_no_time_of_an_emulated_processor_counts_and_none_is_missed(artifacts: list[Artifact], job: Job) -> None:
    times = [index for index, task in enumerate(job.tasks) if isinstance(task, Latency)]
    for failed in ((), times):  # an agent refuses; one that does not is not believed
        place = brought(job, device=HERE | {"emulated": "qemu"}, failed=failed)
        runtimes = place.answered(artifacts, FEEDS, threads=1)
        assert all(one is not None and one.measurement is None and one.rung is Rung.EMULATED_PROCESSOR for one in runtimes)
        assert place.unanswered == []


@pytest.mark.parametrize(
    "feeds",
    [
        FEEDS[:2],
        [*FEEDS, FEEDS[0]],
        FEEDS[::-1],
        [*FEEDS[:2], {"x": np.full((1, 4), 2.0000002, np.float32)}],
        [{"z": feed["x"]} for feed in FEEDS],
    ],
)
def test_samples_that_are_others_now_are_refused(artifacts: list[Artifact], job: Job, feeds: list[Feeds]) -> None:
    with pytest.raises(InputError, match="the samples are not those that were bundled"):
        brought(job).answered(artifacts, feeds, threads=1)


def test_artefacts_that_are_others_now_are_refused(artifacts: list[Artifact], job: Job) -> None:
    with pytest.raises(InputError, match="another artefact than the one that was bundled"):
        brought(job).answered(artifacts[::-1], FEEDS, threads=1)
    named = msgspec.structs.replace(
        artifacts[0].manifest, signature=Signature((TensorSpec("x", (1, 4)),), (TensorSpec("renamed", (1, 2)),))
    )
    with pytest.raises(InputError, match="another artefact"):
        brought(job).answered([Artifact(artifacts[0].path, named), artifacts[1]], FEEDS, threads=1)


def test_a_thread_more_is_another_question(artifacts: list[Artifact], job: Job) -> None:
    with pytest.raises(InputError, match=r"has 1 threads.* 2$"):
        brought(job).answered(artifacts, FEEDS, threads=2)


def test_a_job_that_asks_nothing_about_an_artefact_answers_nothing_about_it(artifacts: list[Artifact], job: Job) -> None:
    tasks = tuple(task for task in job.tasks if not (isinstance(task, Answers) and task.subject == 1))
    with pytest.raises(InputError, match=r"asks nothing like that about two\.openvino"):
        brought(msgspec.structs.replace(job, tasks=tasks)).answered(artifacts, FEEDS, threads=1)


def test_inner_tensors_are_compared_with_those_that_were_sent_and_with_no_others(artifacts: list[Artifact], tmp_path: Path) -> None:
    nodes = NodeMap((Node("conv", "stem", "aten.conv2d.default"), Node("add", "", "aten.add.Tensor", ("conv",))), ("add",))
    reference = [{"conv": np.ones((1, 3), np.float32), "add": np.ones((1, 2), np.float32)}]
    asking = Asking(tmp_path)
    subject, fed = asking.subject(artifacts[1], "openvino"), asking.feeds(FEEDS[:1])
    asking.layers(subject, fed, reference, taps=("conv",), nodes=nodes)
    place = brought(asking.asked.job)

    def sums(tensors: list[Feeds], taps: tuple[str, ...] = ("conv",), feeds: list[Feeds] = FEEDS[:1]) -> dict[str, list[float]]:
        found, samples = place.sums(artifacts[1], "openvino", taps, feeds, [(one, one, one) for one in tensors], nodes, 1)
        assert samples == 1
        return {name: list(values) for name, values in found.items()}

    assert sums(reference) == {"conv": [0.5, 3, 0, 3], "add": [0.5, 2, 0, 2]}
    for other in ([{**reference[0], "conv": np.full((1, 3), 1.0000001, np.float32)}], [{"add": reference[0]["add"]}]):
        with pytest.raises(InputError, match=r"torch computes the inner tensors .* otherwise now") as raised:
            sums(other)
        assert "--no-layers" in str(raised.value.remedy)
    with pytest.raises(InputError, match="otherwise now"):
        sums(reference, ())
    with pytest.raises(InputError, match="the samples are not those"):
        sums(reference, feeds=FEEDS[1:2])


def changed(rng: random.Random, job: Job) -> Job | None:
    """The job with a number, a digest, a name or a task of it others; None where that is no job any more."""
    value = json.loads(encode_job(job))
    tasks = value["tasks"]
    for _ in range(rng.randint(1, 3)):
        task = rng.choice(tasks)
        key = rng.choice(list(task))
        blobs = [blob["sha256"] for blob in value["blobs"]]
        choices = {"subject": [0, 1, 2], "threads": [1, 2], "samples": [1, 2, 4, 3], "feeds": [[], blobs[:1], blobs, [blobs[-1]] * 2]}
        choices["subjects"] = [[0], [1], [0, 0], [1, 0]]
        if key in choices:
            task[key] = rng.choice(choices[key])
        elif key == "options":
            task[key] = rng.choice([{}, {"min_samples": 1}, task[key]])
        if rng.random() < 0.2:
            rng.shuffle(tasks)
        if rng.random() < 0.1 and len(tasks) > 1:
            tasks.remove(rng.choice(tasks))
    try:
        return decode_job(json.dumps(value).encode())
    except InputError:
        return None


def test_a_request_and_results_that_somebody_made_up_together_are_refused_or_read_right(artifacts: list[Artifact], job: Job) -> None:
    rng, refused, taken = random.Random(0), 0, 0
    while refused + taken < MUTANTS:
        other = changed(rng, job)
        if other is None:
            continue
        try:
            place = brought(other)
            for runtime in place.answered(artifacts, FEEDS, threads=1):
                assert runtime is not None
                with runtime.load(artifacts[runtime.subject], SessionOptions()) as session:
                    assert [session.run(feed)["y"][0, 0] for feed in FEEDS] == [0, 1, 2]
            taken += 1
        except DeployError:
            refused += 1
    assert taken > 20
    assert refused > MUTANTS / 3


def test_what_nobody_asked_for_is_not_made_up(artifacts: list[Artifact], job: Job) -> None:
    runtime, _ = brought(job).answered(artifacts, FEEDS, threads=1)
    assert runtime is not None
    assert runtime.kept_as == ""  # by which nothing is kept: another bundle's device may be another
    with pytest.raises(InputError, match="does not ask what the device can do"):
        runtime.peaks(1)
    with pytest.raises(InputError, match=r"asks nothing like that about one\.onnx"):
        runtime.layer_times(artifacts[0], FEEDS[0], 1)


def test_layers_and_peaks_of_other_threads_are_not_taken_for_those_of_these(artifacts: list[Artifact], tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    fed = ask_for(asking, [(artifacts[0], "onnxruntime")], FEEDS, threads=1, timed=None)
    asking.profile_layers(0, fed, threads=2)
    asking.measure_peaks(threads=2)
    (runtime,) = brought(asking.asked.job, failed=(1, 2)).answered(artifacts[:1], FEEDS, threads=1)
    assert runtime is not None
    for ask in (runtime.peaks, lambda threads: runtime.layer_times(artifacts[0], FEEDS[0], threads)):
        with pytest.raises(InputError, match="has 2 threads"):
            ask(1)
        with pytest.raises(DeployError, match="it is not there"):
            ask(2)
