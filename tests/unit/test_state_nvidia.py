"""NVIDIA GPUs of a PC tell by nvidia-smi: every field is of one place in one line, what a GPU has not is missing, and one that is held back
makes a latency INVALID."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import captured
from captured import program, until_told
from dtvit_deploy.devices.state import nvidia
from dtvit_deploy.harness.state.judging import remarks, spoilt
from dtvit_deploy.harness.state.record import Channel, Watched

MODERN, OLD = nvidia.FORMS[0], nvidia.FORMS[2]
REASONS = [what for what, _ in nvidia.REASONS.values()]


def reasons(gpu: int, *on: str) -> dict[str, float]:
    return {f"GPU {gpu}: {what}": float(what in on) for what in REASONS}


CAPTURES: dict[str, tuple[nvidia.Form, dict[str, float]]] = {
    "nvidia-smi-r570.txt": (
        MODERN,
        {"GPU 0 temperature": 71, "GPU 0 SM clock": 2505, "GPU 0 memory clock": 10501, "GPU 0 board power": 318420}
        | {"GPU 1 temperature": 88, "GPU 1 memory temperature": 94, "GPU 1 SM clock": 1410, "GPU 1 memory clock": 1593}
        | {"GPU 1 board power": 249700}
        | reasons(0, "at its power limit")
        | reasons(1, "hardware slowdown", "software thermal slowdown", "power brake"),
    ),
    "nvidia-smi-r470.txt": (OLD, {"GPU 0 temperature": 43, "GPU 0 SM clock": 300, "GPU 0 memory clock": 405} | reasons(0)),
    "nvidia-smi-laptop-r550.txt": (MODERN, {"GPU 0 temperature": 62, "GPU 0 SM clock": 1740, "GPU 0 memory clock": 7001}),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_every_figure_is_read_and_what_a_gpu_has_not_is_no_channel(name: str) -> None:
    form, expected = CAPTURES[name]
    assert nvidia.values(captured.told(name), form) == pytest.approx(expected)
    assert {one.name for one in nvidia.channels(captured.told(name), form)} == expected.keys()
    assert f"--query-gpu={form.query} " in (captured.FOLDER / name).read_text() or "query as in" in (captured.FOLDER / name).read_text()


def fields() -> Iterator[tuple[str, int, int]]:
    for name in CAPTURES:
        for row, line in enumerate(captured.lines(name)):
            yield from ((name, row, place) for place, field in enumerate(line.split(", ")) if place > 1 and not field.startswith("["))


@pytest.mark.parametrize(("name", "row", "place"), list(fields()))
def test_a_field_is_of_one_place_in_one_line(name: str, row: int, place: int) -> None:
    form, expected = CAPTURES[name]
    lines = [line.split(", ") for line in captured.lines(name)]
    lines[row][place] = "[N/A]"
    found = nvidia.values("".join(", ".join(line) + "\n" for line in lines), form)
    wanted = {one.called for one in form.figures[place - 2 : place - 1]} or set(REASONS)
    lost = {f"GPU {row} {what}" for what in wanted} | {f"GPU {row}: {what}" for what in wanted}
    assert found == pytest.approx({called: value for called, value in expected.items() if called not in lost})
    assert len(found) < len(expected)


NONE = ("[N/A],", "[Not Supported],", "[GPU is lost],", "ERR!,", "-1,", "nan,", "1e3,")


def damaged(text: str, rng: random.Random) -> str:
    """What a pipe, a driver that lost its GPU, or another release may make of it."""
    at = rng.randrange(len(text) + 1)
    words = text.split(" ")
    place = rng.randrange(len(words))
    ways = [
        text[:at],
        text[at:],
        text[:at] + text[at:].partition("\n")[2],
        text[:at] + rng.choice("\0x?µ \tÿ") + text[at:],
        " ".join(words[:place] + words[place + 1 :]),
        " ".join(words[: place + 1] + words[place:]),
        " ".join([*words[:place], rng.choice(NONE), *words[place + 1 :]]),
        text + text,
        text.replace(rng.choice([", ", "0x", "\n", ","]), rng.choice(["", ","]), 1),
        'Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.\n' + text,
    ]  # fmt: skip
    return rng.choice(ways)


def test_two_thousand_damages_give_no_wrong_number() -> None:
    rng = random.Random(14)
    missing = 0
    for number in range(2000):
        name = list(CAPTURES)[number % len(CAPTURES)]
        form, right = CAPTURES[name]
        spoilt_text = damaged(captured.told(name), rng)
        reports, _ = nvidia.whole_reports(spoilt_text)
        for told in (spoilt_text, *reports):
            found = nvidia.values(told, form)
            assert all(value == pytest.approx(right[called]) for called, value in found.items() if called in right), spoilt_text
            assert found.keys() <= right.keys(), spoilt_text
        missing += len(found) < len(right)
    assert 200 < missing < 2000


def test_a_report_is_whole_when_its_last_gpu_has_spoken() -> None:
    first, second = (f"{line}\n" for line in captured.lines("nvidia-smi-r570.txt"))
    assert nvidia.whole_reports(first) == ([], first)
    assert nvidia.whole_reports(first + second[:-1]) == ([], first + second[:-1])
    assert nvidia.whole_reports(first + second + first) == ([first + second], first)
    assert nvidia.whole_reports(second + first) == ([], second + first)  # the end of one report and the beginning of another
    newer = first.replace("71", "72")
    assert nvidia.whole_reports(first + second + newer + second) == ([first + second, newer + second], "")


def test_a_slowdown_between_two_readings_is_seen_and_figures_are_the_newest(programs: Path, tmp_path: Path) -> None:
    line = "0, 1, {}, [N/A], 1740, 7001, 90.00, 0x{:016x}\n"
    (tmp_path / "first").write_text(line.format(60, 0))
    (tmp_path / "more").write_text(line.format(61, 0) + line.format(91, 0x20) + line.format(62, 0))
    os.mkfifo(tmp_path / "go")
    program(programs, "nvidia-smi", f"cat {tmp_path}/first; read -r any < {tmp_path}/go; cat {tmp_path}/more; exec sleep 600")
    (source,) = nvidia.sources()
    (tmp_path / "go").write_text("on\n")
    found = dict(zip([one.name for one in source.channels], until_told(source), strict=True))
    assert (found["GPU 0 temperature"], found["GPU 0: software thermal slowdown"], found["GPU 0: power brake"]) == (62.0, 1.0, 0.0)
    source.close()


def test_a_tool_that_floods_its_pipe_is_read_no_further_than_it_must_be(programs: Path) -> None:
    program(programs, "nvidia-smi", 'exec yes "0, 1, 60, [N/A], 1740, 7001, 90.00, 0x0000000000000000"')
    (source,) = nvidia.sources()
    assert until_told(source)[0] == 60.0
    source.close()


def test_it_is_read_as_it_goes_on(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_text(captured.told("nvidia-smi-r570.txt"))
    program(programs, "nvidia-smi", f"while :; do cat {tmp_path}/line; sleep 0.05; done")
    (source,) = nvidia.sources()
    found = dict(zip([one.name for one in source.channels], until_told(source), strict=True))
    assert found == pytest.approx(CAPTURES["nvidia-smi-r570.txt"][1])
    source.close()


def test_a_driver_that_does_not_know_a_word_is_asked_in_older_ones(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_text(captured.told("nvidia-smi-r470.txt"))
    refusing = 'case "$*" in *instant*) echo \'Field "power.draw.instant" is not a valid field to query.\'; exit 2;; esac'
    program(programs, "nvidia-smi", f"{refusing}; cat {tmp_path}/line; exec sleep 600")
    (source,) = nvidia.sources()
    assert "power" not in {one.kind for one in source.channels}
    assert {one.name for one in source.channels} == CAPTURES["nvidia-smi-r470.txt"][1].keys()
    source.close()


@pytest.mark.parametrize(
    "script", ["echo NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.; exit 9", "exit 1"]
)
def test_without_a_driver_there_is_nothing(programs: Path, script: str) -> None:
    program(programs, "nvidia-smi", script)
    assert nvidia.sources() == []
    assert nvidia.facts() == {}


def test_facts_are_those_that_are_told() -> None:
    told = captured.told("nvidia-smi-once-r570.txt")
    assert nvidia.told_once(told) == {
        "GPUs": "NVIDIA GeForce RTX 4090, driver 570.124.06; NVIDIA A100-PCIE-40GB, driver 570.124.06",
        "GPU power limit": "450 W",
        "GPU persistence": "enabled; disabled",
    }
    assert nvidia.told_once(told.replace("450.00", "[N/A]")).keys() == {"GPUs", "GPU persistence"}
    assert nvidia.told_once("No devices were found\n") == nvidia.told_once(None) == {}
    assert nvidia.told_once(told.splitlines()[0]) == {}  # which was cut


def watched(bits: int) -> Watched:
    line = f"0, 1, 60, [N/A], 1740, 7001, 90.00, 0x{bits:016x}\n"
    values = nvidia.values(line)
    series = [Channel(**{**_as(one), "values": (values[one.name],) * 3}) for one in nvidia.channels(line)]
    return Watched(times_s=(-0.1, 0.5, 1.1), sampled_s=1.0, channels=tuple(series))


def _as(one: Channel) -> dict[str, object]:
    return {field: getattr(one, field) for field in one.__struct_fields__}


@pytest.mark.parametrize(
    ("bits", "word"), [(0x8, "hardware slowdown"), (0x20, "software thermal"), (0x40, "hardware thermal"), (0x80, "power brake")]
)
def test_a_gpu_that_is_held_back_makes_a_latency_invalid(bits: int, word: str) -> None:
    (reason,) = spoilt(watched(bits))
    assert reason.startswith(f"throttled: GPU 0: {word}")
    assert reason.endswith("(nvidia-smi)")


@pytest.mark.parametrize("bits", [0x0, 0x1, 0x2, 0x10, 0x100])
def test_idle_clocks_and_those_that_were_asked_for_are_no_harm(bits: int) -> None:
    assert (spoilt(watched(bits)), remarks(watched(bits))) == ([], [])


def test_at_its_power_limit_a_gpu_is_in_any_long_load_which_is_a_note() -> None:
    assert spoilt(watched(0x4)) == []
    assert remarks(watched(0x4)) == ["GPU 0: at its power limit in 1 of 1 readings while sampling"]


@pytest.mark.parametrize(
    "last", ["exit 9", "exec sleep 600", "while :; do echo '{}'; sleep 0.1; done".format("0, 1" + ", [GPU is lost]" * 6)]
)
def test_a_tool_that_ends_hangs_or_loses_its_gpu_makes_a_latency_invalid(programs: Path, tmp_path: Path, last: str) -> None:
    line = "0, 1, 60, [N/A], 1740, 7001, 90.00, 0x0000000000000000"
    program(programs, "nvidia-smi", f"for i in 1 2 3 4 5; do echo '{line}'; sleep 0.1; done; touch {tmp_path}/done; {last}")
    (source,) = nvidia.sources()
    values, times = [until_told(source)], [-0.1]
    until = time.monotonic() + 60
    while not (tmp_path / "done").exists() and time.monotonic() < until:
        time.sleep(0.05)
    source.read()
    for at in range(8):
        values.append(list(source.read()))
        times.append(0.4 + at * 0.5)
    series = [msgspec.structs.replace(one, values=tuple(each)) for one, *each in zip(source.channels, *values, strict=True)]
    source.close()
    (reason,) = spoilt(Watched(times_s=tuple(times), sampled_s=3.5, channels=tuple(series)))
    assert reason == "watcher: GPU 0: hardware slowdown and 3 others did not answer for 3.6 s from -0.1 s on (nvidia-smi)"


def test_a_limit_of_power_that_was_changed_meanwhile_makes_two_devices() -> None:
    found = watched(0)
    moved = Watched(times_s=found.times_s, sampled_s=1.0, before={"GPU power limit": "450 W"}, after={"GPU power limit": "300 W"})
    assert spoilt(moved) == ["settings: GPU power limit was 450 W and became 300 W"]
