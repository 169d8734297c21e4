"""A bundle's request is read as it was written or refused, and nothing in it makes this machine do more than judge."""

from __future__ import annotations

import json
import os
import random
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.frames import MAGIC, frame_bytes
from dtvit_deploy.formats.job.job import Answers, Blob, Job, Latency, Subject, decode_job, encode_job
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.bundle_request import SUFFIX, Request, Wanted, encode_request, file_of, find_request, read_request, told_by
from dtvit_deploy.pipeline.imported import _called
from dtvit_deploy.recipe.judging import Gates, Limits, Parity
from dtvit_deploy.recipe.tables import Data, Recipe, Run
from dtvit_deploy.remote.bundle import job_answered, lines_of

DIGEST, OTHER = "a" * 64, "b" * 64
MUTANTS = 2000


def job(token: str = "bundle") -> Job:
    signature = Signature((TensorSpec("image", (1, 3, 4, 4)),), (TensorSpec("logits", (1, 5)),))
    manifest = Manifest(
        model="m", format="onnx", precision=Precision.FP32, sha256=DIGEST, signature=signature,
        lineage=(Link(kind="onnx", sha256=DIGEST, options={"share": 0.1, "rest": [1e-7, 3]}),),
    )  # fmt: skip
    timed: dict[str, float] = msgspec.to_builtins(MeasureOptions())
    asked = Job(
        agent=DIGEST,
        token=token,
        blobs=(Blob(sha256=DIGEST, bytes=10), Blob(sha256=OTHER, bytes=20)),
        subjects=(Subject(name="m.onnx", runtime="onnxruntime", manifest=manifest, files={"": DIGEST}),),
        tasks=(
            Answers(name="answers", subject=0, threads=1, feeds=(OTHER,), samples=3),
            Latency(name="latency", subjects=(0,), threads=1, feeds=(OTHER,), options=timed),
        ),
    )
    return decode_job(encode_job(asked))


def request(folder: Path, **more: Any) -> Request:
    values: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "job": job(),
        "artefacts": (folder / "out" / "m.onnx",),
        "figures": Wanted(parity=True, layers=None, accuracy=False, latency=True),
        "recipe": Recipe(
            data=Data(evaluation=folder / "images", class_map=Path("/elsewhere/classes.csv")),
            parity=Parity(tolerance={"logits": 0.1}),
            gates=Gates(fp16=Limits(cosine=0.99)),
        ),
    }
    return Request(**{**values, **more})


def written(folder: Path, **more: Any) -> Path:
    one = request(folder, **more)
    path = folder / file_of(one.identity)
    path.write_bytes(encode_request(one, folder))
    return path


def test_it_is_read_as_it_was_written_and_is_the_job_s(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read_request(path) == request(tmp_path)
    assert read_request(path).identity == request(tmp_path).identity
    assert path.name == f"dtvit-deploy-{request(tmp_path).identity[:12]}{SUFFIX}"


def test_what_lies_below_it_is_found_when_all_of_it_was_moved(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    path = written(before)
    before.rename(tmp_path / "after")
    found = read_request(tmp_path / "after" / path.name)
    assert found.artefacts == (tmp_path / "after" / "out" / "m.onnx",)
    assert found.recipe.data.evaluation == tmp_path / "after" / "images"
    assert found.recipe.data.class_map == Path("/elsewhere/classes.csv")


def test_a_path_from_the_working_folder_is_no_other_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archives").mkdir()
    content = encode_request(request(Path()), tmp_path / "archives")
    (tmp_path / "archives" / f"x{SUFFIX}").write_bytes(content)
    monkeypatch.chdir("/")
    assert read_request(tmp_path / "archives" / f"x{SUFFIX}").artefacts == (tmp_path / "out" / "m.onnx",)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("model", "name", "os:getcwd"),
        ("model", "checkpoint", "x.safetensors"),
        ("model", "seed", 7),
        ("data", "calibration", "/etc"),
        ("run", "shard", 7),
        ("export", "keep_fp32", ["head"]),
        ("int8", "allow_leak", True),
    ],
)
def test_it_names_no_network_and_one_that_does_is_refused(tmp_path: Path, table: str, key: str, value: Any) -> None:
    path = written(tmp_path, recipe=Recipe(model=Model(name="os:getcwd"), data=Data(calibration=Path("/etc")), run=Run(shard=7)))
    assert read_request(path).recipe == Recipe()
    content = json.loads(path.read_bytes())
    assert set(content["recipe"]) == {"data", "run", "parity", "profile", "gates"}
    content["recipe"].setdefault(table, {})[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="more than figures of artefacts"):
        read_request(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"artefacts": [', '"artefacts": ["other.onnx", '),
        ('"out/m.onnx"', '"out/other.onnx"'),
        ('"out/m.onnx"', '""'),
        ('"out/m.onnx"', '"out/m.onnx\\u0000"'),
        ('"out/m.onnx"', "7"),
        ('"figures": {', '"figures": {"command": "x", '),
        ('"latency": true', '"latency": "yes"'),
        ('"recipe": {', '"recipe": {"shell": {}, '),
        ('"max_seconds": 300', '"max_seconds": -1'),
        ('"max_seconds": 300', '"more": 1'),
        ('"min_samples": 64', '"min_samples": 1e308'),
        (f'"sha256": "{OTHER}"', f'"sha256": "{"c" * 64}"'),
    ],
)
def test_one_that_contradicts_itself_or_says_more_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = written(tmp_path)
    content = path.read_text()
    assert old in content, content
    path.write_text(content.replace(old, new, 1))
    with pytest.raises(InputError):
        read_request(path)


def test_one_of_another_schema_is_told_so(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 2, "more": 1}))
    with pytest.raises(InputError, match="has schema 2"):
        read_request(path)


def test_it_wants_a_figure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wants no figure"):
        read_request(written(tmp_path, figures=Wanted(parity=False, layers=None, accuracy=False, latency=False)))


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"[" * 10_000, b"\xff", b'{"schema": 1}'])
def test_what_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"x{SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_request(path)


def test_what_is_no_file_or_too_large_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{SUFFIX}")
    with (tmp_path / f"large{SUFFIX}").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe", "large", "nowhere"):
        with pytest.raises(InputError, match="no file, or larger"):
            read_request(tmp_path / f"{name}{SUFFIX}")


def mutant(rng: random.Random, content: bytes) -> bytes:
    """Some bytes others; or, of what it says, something else, gone or doubled."""
    if rng.random() < 0.5:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        return bytes(changed)
    value = json.loads(content)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    kind = rng.randrange(3)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[rng.choice(["", "more", "schema", "type"])] = place[key]
    else:
        place[key] = rng.choice([None, -1, 1e300, True, "", "..", "/", [], {}, [[]], "\x1b[2J", 2**63])
    return json.dumps(value).encode()


def test_two_thousand_mutants_are_refused_or_say_what_a_request_may_say(tmp_path: Path) -> None:
    path = written(tmp_path)
    content, rng = path.read_bytes(), random.Random(0)
    mine, refused = read_request(path), 0
    for _ in range(MUTANTS):
        path.write_bytes(mutant(rng, content))
        try:
            found = read_request(path)
        except InputError:
            refused += 1
            continue
        assert found.recipe == told_by(found.recipe)
        assert [each.name for each in found.artefacts] == [one.name for one in found.job.subjects]
        assert found.job == mine.job or found.identity != mine.identity
    assert MUTANTS / 3 < refused < MUTANTS


class TestFinding:
    def test_is_by_the_job_whatever_the_file_is_called(self, tmp_path: Path) -> None:
        written(tmp_path, job=job("another"))
        path = written(tmp_path)
        assert find_request(request(tmp_path).identity, [tmp_path])[0] == path
        path.rename(tmp_path / f"mine{SUFFIX}")
        (tmp_path / f"broken{SUFFIX}").write_bytes(b"{")
        assert find_request(request(tmp_path).identity, [tmp_path / "nowhere-at-all", tmp_path][1:])[0].name == f"mine{SUFFIX}"

    def test_says_where_it_looked_and_what_is_there(self, tmp_path: Path) -> None:
        other = written(tmp_path, job=job("another"))
        with pytest.raises(InputError, match=f"not in {tmp_path}.*there are {other.name}"):
            find_request(DIGEST, [tmp_path])
        with pytest.raises(InputError, match="whose request is not in"):
            find_request(DIGEST, [other])

    def test_does_not_pass_over_its_own_that_was_damaged(self, tmp_path: Path) -> None:
        path = written(tmp_path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match="is not a bundle's request"):
            find_request(request(tmp_path).identity, [tmp_path])


class TestWhichJob:
    def test_is_the_first_thing_that_results_say(self, tmp_path: Path) -> None:
        (tmp_path / "results").write_bytes(MAGIC + frame_bytes("job", body={"job": DIGEST}) + b"half a fra")
        assert job_answered(tmp_path / "results") == DIGEST

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            MAGIC,
            MAGIC + b"\0\0",
            MAGIC + frame_bytes("begin", task=0),
            MAGIC + frame_bytes("job", body={}),
            MAGIC + frame_bytes("job", body={"job": "../../x"}),
            MAGIC + frame_bytes("job", body={"job": [DIGEST]}),
            MAGIC + frame_bytes("job", body={"job": DIGEST + "\n"}),
        ],
    )
    def test_is_not_guessed(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "results").write_bytes(content)
        with pytest.raises(InputError):
            job_answered(tmp_path / "results")


@pytest.mark.parametrize(
    "name", ["board.tar", "-x.tar", "--to-command=x", "a b", "$(x)", "`x`", "it's", '"', ";x", "*", "~", "#", "ü", "!x"]
)
def test_the_line_for_the_device_names_one_file_whatever_it_is_called(name: str) -> None:
    there, back = lines_of(DIGEST, name)
    folder = f"dtvit-deploy-{DIGEST[:12]}"
    unpacked = ["[", "-e", f"{folder}/whole", "]", "||"]  # which is not done again beneath who still reads it
    assert shlex.split(there) == [*unpacked, "tar", "xf", f"./{name}" if name.startswith("-") else name, "&&", "sh", f"{folder}/run.sh"]
    assert back == f"dtvit-deploy-{DIGEST[:12]}/results.dtvit"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"host": "orin-1"}, "orin-1"),
        ({"host": "localhost", "model": "Raspberry Pi 5 Model B Rev 1.0"}, "Raspberry-Pi-5-Model-B-Rev-1.0"),
        ({"host": "<b>../../x</b>\x1b[2J; rm"}, "b-..-..-x-b-2J-rm"),
        ({"host": "local"}, "device"),
        ({"host": "…", "model": "---"}, "device"),
        ({"host": "a" * 500}, "a" * 64),
        ({}, "device"),
    ],
)
def test_a_device_is_called_as_it_calls_itself_in_letters_of_a_name(facts: dict[str, str], name: str) -> None:
    assert _called(facts) == name
