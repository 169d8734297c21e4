"""A device that becomes slower under a load: what it does at first and what it comes to are told apart, and why it is not VALID."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, measure
from dtvit_deploy.harness.latency.sustained import sustained
from dtvit_deploy.runtimes.fake import FakeClock

MINUTE = MeasureOptions(sustained_seconds=60)


def loaded(
    slowdown: Callable[[float], float], options: MeasureOptions = MINUTE, *, runs_ms: tuple[float, ...] = (10.0, 20.0)
) -> list[Measurement]:
    """Candidates of so many milliseconds on a machine that takes ``slowdown`` of its seconds under load as long as usual."""
    clock = FakeClock()
    runs = {str(index): lambda ms=ms: clock.advance(ms / 1e3 * slowdown(clock.now())) for index, ms in enumerate(runs_ms)}
    found = measure(runs, options, clock.now)
    return [found[name] for name in runs]


def hot(seconds: float) -> float:
    """A clock that falls by 30 % after 20 s of load."""
    return 1 / 0.7 if seconds > 20 else 1.0


class TestAHotDevice:
    def test_burst_and_sustained_are_told_apart_and_the_measurement_is_invalid_by_its_drift(self) -> None:
        for one, usual in zip(loaded(hot), (10, 20), strict=True):
            found = one.sustained
            assert found is not None
            assert found.burst_ms == pytest.approx(usual)
            assert found.sustained_ms == pytest.approx(usual / 0.7)
            assert found.ratio == pytest.approx(1 / 0.7)
            assert one.status == "INVALID"
            assert one.reasons[0].startswith("drift: the median went +43%")
            assert one.stamps_s[-1] > 59

    def test_a_few_seconds_of_the_same_device_would_not_have_shown_it(self) -> None:
        short = loaded(hot, MeasureOptions())[0]
        assert (short.status, short.sustained) == ("VALID", None)
        assert short.p50 == pytest.approx(10)

    def test_a_slow_decline_is_one_too(self) -> None:
        (one, _) = loaded(lambda seconds: 1 + min(seconds, 60) / 100)
        assert one.sustained is not None
        assert one.sustained.ratio is not None
        assert 1.35 < one.sustained.ratio < 1.6
        assert one.why_invalid == "INVALID (drift)"

    def test_one_that_has_cooled_down_again_has_the_ratio_of_its_end(self) -> None:
        (one, _) = loaded(lambda seconds: 1.5 if 20 < seconds < 35 else 1.0)
        assert one.sustained is not None
        assert one.sustained.ratio == pytest.approx(1.0)

    def test_a_steady_device_is_valid_and_its_ratio_is_one(self) -> None:
        for one in loaded(lambda seconds: 1.0):
            assert one.status == "VALID"
            assert one.sustained is not None
            assert one.sustained.ratio == pytest.approx(1.0)
            assert str(one.sustained).endswith("sustained ÷ burst 1.000")


class TestTooFew:
    def test_a_network_of_which_a_second_holds_few_has_its_first_eleven_runs_for_a_burst(self) -> None:
        (one,) = loaded(hot, runs_ms=(500.0,))
        assert one.sustained is not None
        assert one.sustained.burst_samples == 11
        assert one.sustained.burst_seconds == pytest.approx(5.5)
        assert one.sustained.ratio == pytest.approx(1 / 0.7)

    def test_too_few_samples_are_told_as_that_and_not_as_drift(self) -> None:
        found = sustained([3000.0] * 20, [3.0 * index for index in range(20)], 60)
        assert found.ratio is None
        assert found.reason == "too few samples: 11 at the beginning and 6 at the end, and a median needs 11 of its own"
        assert "not told: too few samples" in str(found)

    def test_parts_that_overlap_are_no_two_parts(self) -> None:
        assert sustained([1000.0] * 12, [float(index) for index in range(12)], 12).reason.startswith("too few samples: 11 at the beginning")

    def test_a_load_that_ended_early_is_told_as_that(self) -> None:
        found = sustained([10.0] * 200, [0.01 * index for index in range(200)], 60)
        assert (found.ratio, found.reason) == (None, "the load lasted 2 of 60 s")

    def test_one_sample_is_no_error_and_no_ratio(self) -> None:
        assert sustained([10.0], [0.0], 60).ratio is None

    def test_samples_without_their_beginnings_are_refused(self) -> None:
        with pytest.raises(InputError, match="2 latency samples, and the beginning of 1"):
            sustained([1.0, 2.0], [0.0], 60)


class TestTheLoad:
    @pytest.mark.parametrize("longest", [64, 100, 1000])
    def test_it_lasts_however_many_samples_are_kept_and_those_lie_evenly(self, longest: int) -> None:
        found = loaded(lambda seconds: 1.0, MeasureOptions(sustained_seconds=60, max_samples=longest))
        one, other = found
        count = len(one.samples_ms)
        assert longest / 2 <= count <= longest
        assert len(other.samples_ms) == count
        apart = one.stamps_s[-1] / (count - 1)
        assert one.stamps_s[-1] > 60 - 2 * apart
        assert all(abs(stamp - index * apart) < 0.06 for index, stamp in enumerate(one.stamps_s))
        first = [mine < its for mine, its in zip(one.stamps_s, other.stamps_s, strict=True)]
        assert sum(first) == pytest.approx(count / 2, abs=2 * count**0.5)  # as often before the other one as behind it
        assert all(abs(a - b) < 0.06 for a, b in zip(one.stamps_s, other.stamps_s, strict=True))  # of the same rounds

    def test_no_limit_on_a_candidate_s_own_seconds_ends_it(self) -> None:
        found = loaded(lambda seconds: 1.0, MeasureOptions(sustained_seconds=60, max_seconds=5))
        assert all(one.stamps_s[-1] > 59 for one in found)

    @pytest.mark.parametrize(
        "options", [{"sustained_seconds": -1}, {"sustained_seconds": float("inf")}, {"sustained_seconds": 60, "max_samples": 63}]
    )
    def test_a_load_that_cannot_be_is_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InputError):
            MeasureOptions(**({"min_samples": 1} | options))  # type: ignore[arg-type]
