from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import MeasureOptions, measure
from dtvit_deploy.runtimes.base import DeviceTimed, Runtime, Session, SessionOptions
from dtvit_deploy.runtimes.fake import FakeRuntime, FakeSession

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

SIGNATURE = Signature(
    (TensorSpec("image", (1, 3, 4, 4)), TensorSpec("pose", (2,), "int64")),
    (TensorSpec("logits", (1, 5)), TensorSpec("depth", (), "float64")),
)
FEEDS = {"image": np.ones((1, 3, 4, 4), np.float32), "pose": np.array([1, 2])}


def artifact(sha256: str = "0" * 64) -> Artifact:
    manifest = Manifest(
        model="any",
        format="fake",
        precision=Precision.FP16,
        sha256=sha256,
        signature=SIGNATURE,
        lineage=(Link(kind="fake", sha256=sha256),),
    )
    return Artifact(Path("any.fake"), manifest)


def load(runtime: FakeRuntime, sha256: str = "0" * 64, taps: tuple[str, ...] = ()) -> FakeSession:
    return runtime.load(artifact(sha256), SessionOptions(taps=taps, threads=3))


def test_it_is_a_runtime_and_a_session_like_any_other() -> None:
    runtime: Runtime = FakeRuntime()
    with runtime.load(artifact(), SessionOptions(threads=3)) as opened:
        session: Session = opened
        outputs = session.run(FEEDS)
        assert session.signature == SIGNATURE
        assert session.conditions == {"runtime": "fake 1", "threads": "3", "precision": "fp16"}
    assert {name: (values.shape, values.dtype.name) for name, values in outputs.items()} == {
        "logits": ((1, 5), "float32"),
        "depth": ((), "float64"),
    }


def test_it_claims_no_evidence_by_itself() -> None:
    assert FakeRuntime().rung is Rung.BUILT


def test_by_default_it_is_linear_and_follows_from_the_artefact() -> None:
    session, again, other = load(FakeRuntime()), load(FakeRuntime()), load(FakeRuntime(), "1" * 64)
    doubled = {name: 2 * values for name, values in FEEDS.items()}
    once = session.run(FEEDS)["logits"]
    np.testing.assert_allclose(session.run(doubled)["logits"], 2 * once, rtol=1e-6)
    np.testing.assert_array_equal(again.run(FEEDS)["logits"], once)
    assert not np.allclose(other.run(FEEDS)["logits"], once)


def test_a_function_answers_with_outputs_and_the_taps_asked_for() -> None:
    def function(feeds: Feeds) -> Outputs:
        answer: Outputs = {"logits": np.zeros((1, 5)), "depth": np.zeros(())}
        return answer | {"stem": feeds["image"], "unasked": np.zeros(1)}

    runtime = FakeRuntime(function=function, inner=("stem", "unasked"))
    assert runtime.tensors(artifact()) == ("stem", "unasked")
    assert list(load(runtime, taps=("stem",)).run(FEEDS)) == ["logits", "depth", "stem"]
    with pytest.raises(InputError, match="no tensor is called hidden; there are stem, unasked"):
        load(runtime, taps=("hidden",))


def test_what_it_spoils_is_its_own_copy() -> None:
    held: Outputs = {"logits": np.zeros((1, 5)), "depth": np.zeros(())}
    session = load(FakeRuntime(function=lambda feeds: held, nan=True, noise=1))
    assert np.isnan(session.run(FEEDS)["logits"]).any()
    assert not held["logits"].any()


def test_noise_differs_from_run_to_run_and_has_the_given_deviation() -> None:
    answer: Outputs = {"logits": np.zeros((1, 5000), np.float32), "depth": np.zeros(())}
    session = load(FakeRuntime(function=lambda feeds: answer, noise=0.25))
    first, second = session.run(FEEDS)["logits"], session.run(FEEDS)["logits"]
    assert first.std() == pytest.approx(0.25, rel=0.1)
    assert not np.array_equal(first, second)


def test_nan_is_in_every_floating_output() -> None:
    outputs = load(FakeRuntime(nan=True)).run(FEEDS)
    assert all(np.isnan(values).sum() == 1 for values in outputs.values())


def test_it_fails_on_the_run_it_was_told_and_on_no_other() -> None:
    session = load(FakeRuntime(fails_at=1))
    session.run(FEEDS)
    with pytest.raises(RuntimeError, match="run 1 fails"):
        session.run(FEEDS)
    session.run(FEEDS)


def test_a_session_that_was_left_does_not_run() -> None:
    with load(FakeRuntime()) as session:
        pass
    with pytest.raises(RuntimeError, match="was left"):
        session.run(FEEDS)


def test_one_that_is_missing_says_so_and_loads_nothing() -> None:
    runtime = FakeRuntime(missing="no such device")
    assert (runtime.available().version, runtime.available().missing) == (None, "no such device")
    with pytest.raises(MissingError, match="no such device"):
        load(runtime)


def test_its_latency_is_what_the_script_says() -> None:
    runtime = FakeRuntime(latency=lambda run: 0.020 if run else 0.5)
    session = load(runtime)
    found = measure({"fake": lambda: session.run(FEEDS)}, clock=runtime.clock.now)["fake"]
    assert found.first_ms == pytest.approx(500)
    assert (found.p50, found.max) == pytest.approx((20, 20))
    assert found.status == "VALID"
    assert found.device is None
    assert not isinstance(session, DeviceTimed)


def test_a_device_has_a_clock_of_its_own_which_is_read_after_each_sample() -> None:
    runtime = FakeRuntime(latency=lambda run: 0.020, device=lambda run: 0.010 + 0.0001 * run)
    session = load(runtime)
    assert isinstance(session, DeviceTimed)
    device: DeviceTimed = session
    found = measure(
        {"fake": lambda: session.run(FEEDS)},
        MeasureOptions(max_samples=700, min_seconds=20),
        runtime.clock.now,
        devices={"fake": lambda: device.device_ms},
    )["fake"]
    assert found.device is not None
    warm, count = found.warmup_runs, len(found.samples_ms)
    assert found.device.samples_ms == pytest.approx([10 + 0.1 * run for run in range(warm, warm + count)])
    assert found.device.p50 == pytest.approx(10 + 0.1 * (warm + (count - 1) // 2))
    assert found.device.p90 is not None
    assert found.device.p99 is not None
    assert found.device.p50 < found.device.p90 < found.device.p99
    assert found.p50 == pytest.approx(20)
