"""Tools of a device are asked for what no file tells; one that hangs, ends or stops in the middle of a line is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import captured
from captured import program, until_told
from dtvit_deploy.devices.state import raspberry, tegrastats, tools


def test_tegrastats_is_read_as_it_goes_on(programs: Path, tmp_path: Path) -> None:
    line = captured.told("tegrastats-thor-r39.txt")
    (tmp_path / "first").write_text(line)
    (tmp_path / "second").write_text(line.replace("VIN 28710mW", "VIN 41000mW"))
    os.mkfifo(tmp_path / "more")
    program(
        programs,
        "tegrastats",
        f'cat {tmp_path}/first; read -r any < {tmp_path}/more; cat {tmp_path}/second; printf "VIN 9"; exec sleep 600',
    )
    (source,) = tegrastats.sources([])
    names = [one.name for one in source.channels]
    assert {"VIN", "EMC clock", "cpu temperature", "gpu temperature"} <= set(names)
    assert set(source.read()) == {None}  # nothing new since then
    with (tmp_path / "more").open("w") as go:
        go.write("on\n")
    found = dict(zip(names, until_told(source), strict=True))
    assert (found["VIN"], found["cpu temperature"], found["gpu temperature"]) == (41000.0, 34.312, None)
    assert set(source.read()) == {None}
    source.close()


def test_what_files_tell_already_is_not_taken_of_tegrastats_again(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_text(captured.told("tegrastats-orin-super-r36.txt"))
    program(programs, "tegrastats", f"cat {tmp_path}/line; exec sleep 600")
    (source,) = tegrastats.sources(["power", "temperature", "clock"])
    assert [one.name for one in source.channels] == ["EMC clock", "GPU clock"]
    source.close()


@pytest.mark.parametrize("script", ["exit 1", "echo usage: tegrastats", "printf 'RAM 1/2MB VIN 5mW/5mW'", "exec sleep 600"])
def test_a_tool_that_tells_nothing_whole_gives_no_channel(programs: Path, script: str) -> None:
    program(programs, "tegrastats", script)
    assert tegrastats.sources([]) == []


def test_a_tool_that_ends_in_the_middle_tells_nothing_any_more(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_text(captured.told("tegrastats-nano-r32.txt"))
    program(programs, "tegrastats", f"cat {tmp_path}/line")
    (source,) = tegrastats.sources([])
    assert set(source.read()) == {None}
    source.close()


def test_a_raspberry_pi_without_the_file_is_asked_by_its_tool(programs: Path, tmp_path: Path) -> None:
    listed = [line for line in captured.lines("raspberry-pi-4.tree") if "get_throttled" not in line]
    tree = captured.Tree(tmp_path / "board", listed)
    assert raspberry.sources(tree.root) == []  # there is no such program
    program(programs, "vcgencmd", '[ "$1" = get_throttled ] && echo throttled=0x50005')
    (source,) = raspberry.sources(tree.root)
    assert list(source.read()) == [1.0, 0.0, 1.0, 0.0] * 2
    assert source.every > 0.5
    program(programs, "vcgencmd", "echo VCHI initialization failed; exit 255")
    assert set(source.read()) == {None}


def test_a_program_that_hangs_is_ended(programs: Path) -> None:
    program(programs, "nvpmodel", "exec sleep 600")
    assert tools.said("nvpmodel", "-q", seconds=0.2) is None
    assert tools.said("no-such-program-of-a-device") is None
    program(programs, "nvpmodel", "printf 'NV Power Mode: 30W\\n2\\n'; exit 3")
    assert tools.said("nvpmodel", "-q") == "NV Power Mode: 30W\n2\n"
