"""A job's folder that others can write: the script follows no link, keeps to its folder, takes only what was exported."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtvit_deploy.artifacts.artifact import load_artifact, sha256_of
from dtvit_deploy.export.tensorrt import on_device_build as build
from tensorrt_job import ENGINE, JOB, Device, load, written_job

Make = Callable[..., Path]
Place = tuple[str | int, ...]


@pytest.fixture
def make_job(tmp_path: Path) -> Make:
    return functools.partial(written_job, tmp_path)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device("10", monkeypatch)


def rewritten(job: Path, place: Place, value: object) -> None:
    """Change one thing in job.json, and vouch for it; bytes are written as they are."""
    path = job / "job.json"
    data: Any = json.loads(path.read_text())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = "HERE" if isinstance(value, bytes) else value
    text = json.dumps(data)
    path.write_text(text.replace('"HERE"', value.decode()) if isinstance(value, bytes) else text)
    (job / "job.json.sha256").write_text(sha256_of(path))


WRONG: dict[str, tuple[Place, object, str]] = {
    "a name that leads out": (("name",), "../../etc/net", "is no name of a folder"),
    "an absolute name": (("name",), "/tmp/net", "is no name of a folder"),
    "a hidden name": (("name",), ".ssh", "is no name of a folder"),
    "a name with a line end": (("name",), "net\n", "is no name of a folder"),
    "a name of no end": (("name",), "n" * 10_000, "is no name of a folder"),
    "no name": (("name",), ..., "name is missing"),
    "a number for a name": (("name",), 7, "name is not of type str"),
    "another schema": (("schema",), 2, "schema is 2; this script reads 1"),
    "a key that nobody knows": (("run",), "rm", "'run' is not known"),
    "a file elsewhere": (("files", "../x"), "0" * 64, "'../x' is not a path within this folder"),
    "an absolute file": (("files", "/etc/passwd"), "0" * 64, "'/etc/passwd' is not a path within this folder"),
    "a file behind a dot": (("files", "golden/./../../x"), "0" * 64, "is not a path within this folder"),
    "no digest": (("files", "graph.onnx"), "abc", "graph.onnx has no SHA-256"),
    "no graph": (("files", "graph.onnx"), ..., "graph.onnx or build.py is not listed"),
    "golden input elsewhere": (("golden", "inputs", 0, "file"), "/dev/zero", "is no file of this job"),
    "golden of another size": (("golden", "samples"), 4, "does not hold 4 samples of x"),
    "golden without samples": (("golden", "samples"), 0, "0 samples"),
    "true for a number": (("golden", "samples"), True, "samples is not of type int"),
    "an endless shape": (("golden", "inputs", 0, "shape"), [2**40, 2**40], "the shape of 'x' cannot be"),
    "a negative shape": (("golden", "inputs", 0, "shape"), [1, -4], "the shape of 'x' cannot be"),
    "an unknown type": (("golden", "outputs", 0, "dtype"), "float128", "type 'float128' is not known"),
    "an infinite tolerance": (("golden", "outputs", 0, "tolerance"), b"1e999", "nothing finite says how near"),
    "NaN for a tolerance": (("golden", "outputs", 0, "tolerance"), b"NaN", "NaN is no number"),
    "no limit at all": (("golden", "outputs", 0, "tolerance"), None, "nothing finite says how near"),
    "an option that nobody knows": (("options", "plugin"), "x.so", "'plugin' is not known"),
    "an option out of bounds": (("options", "optimization_level"), 99, "optimization_level is 99"),
    "a node of two words": (("nodes", 0), ["a", "b"], "nodes: each has"),
    "a lineage of nothing": (("manifest", "lineage"), [], "its lineage is empty"),
    "a link that is a word": (("manifest", "lineage", 0), "onnx", "manifest.lineage is no object"),
    "a deep nest": (("options",), b"[" * 100_000, "is no job that this script can take"),
}


@pytest.mark.parametrize(("place", "value", "said"), WRONG.values(), ids=WRONG)
def test_a_job_is_read_strictly(
    place: Place,
    value: object,
    said: str,
    make_job: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    rewritten(job, place, value)
    before = sorted(job.parent.iterdir())
    assert load(job / "build.py").main([]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert (told.count("\n"), len(told) < 600) == (1, True)
    assert sorted(job.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["graph.onnx", "golden/input.0", "golden", "job.json"])
def test_a_link_in_the_job_is_not_followed(
    name: str,
    make_job: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    (job / name).rename(tmp_path / "elsewhere")
    (job / name).symlink_to(tmp_path / "elsewhere")
    assert load(job / "build.py").main([]) == 2
    assert "in the place of links" in capsys.readouterr().err


def test_what_lies_at_fixed_names_is_not_written_through(make_job: Make, device: Device, tmp_path: Path) -> None:
    """Links that somebody puts where the script is about to write."""
    job, secret = make_job(), tmp_path / "secret"
    secret.write_text("of root")
    for name in (f".{ENGINE}.json.part", f".{JOB}.timing.part", f"{JOB}.timing", f".{ENGINE}.partial", f"{ENGINE}.json"):
        (job.parent / name).symlink_to(secret)
    assert device.run(job) == 0
    assert secret.read_text() == "of root"
    assert load_artifact(job.parent / ENGINE)
    assert not (job.parent / f"{JOB}.timing").is_symlink()  # the script's own took its place


@pytest.mark.parametrize("kind", ["dangling", "to a folder"])
def test_a_link_in_the_place_of_the_engine_is_not_of_this_job(
    kind: str,
    make_job: Make,
    device: Device,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    (tmp_path / "theirs").mkdir()
    (job.parent / ENGINE).symlink_to(tmp_path / ("theirs" if kind == "to a folder" else "nowhere"))
    assert device.run(job) == 2
    assert "is not of this job" in capsys.readouterr().err
    assert not list((tmp_path / "theirs").iterdir())


@pytest.mark.parametrize("kind", ["pipe", "a deep nest", "a list"])
def test_what_stands_beside_an_engine_and_is_no_manifest_is_not_of_this_job(
    kind: str,
    make_job: Make,
    device: Device,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    (job.parent / ENGINE).mkdir()
    manifest = job.parent / f"{ENGINE}.json"
    if kind == "pipe":
        os.mkfifo(manifest)  # reading it would never end
    else:
        manifest.write_text("[" * 100_000 if kind == "a deep nest" else "[]")
    assert device.run(job) == 2
    assert "is not of this job" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["link", "open to others", "another name", "folder", "pipe"])
def test_timings_that_others_may_have_put_there_are_not_taken(
    spoil: str,
    make_job: Make,
    device: Device,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = make_job()
    timings = job.parent / f"{JOB}.timing"
    assert device.run(job, "--build-only") == 0
    assert device.run(job, "--build-only") == 0
    assert "earlier build" in capsys.readouterr().out
    content = timings.read_bytes()
    if spoil == "open to others":
        timings.chmod(0o666)
    elif spoil == "another name":
        os.link(timings, tmp_path / "known by another name")
    else:
        timings.unlink()
        if spoil == "link":
            (tmp_path / "theirs").write_bytes(content)
            timings.symlink_to(tmp_path / "theirs")
        elif spoil == "folder":
            timings.mkdir()
        else:
            os.mkfifo(timings)
    assert device.run(job, "--build-only") == 0
    said = capsys.readouterr().out
    assert "earlier build" not in said
    assert "is not used: it is" in said


def test_files_are_new_and_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.write(tmp_path / "a", b"one")
    build.write(tmp_path / "a", b"two")
    monkeypatch.setattr(build.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        build.write(tmp_path / "a", b"three")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]
