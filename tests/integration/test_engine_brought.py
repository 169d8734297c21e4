"""What a device sends back as an engine is one of the job that was asked for, or it is refused, and nothing of it is kept."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import pytest

from dtvit_deploy.agent.building import sent
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, manifest_path, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.passport import ENGINE, LINK, passport_of
from dtvit_deploy.formats.job import made as made_module
from dtvit_deploy.formats.job.frames import ResultsError, frame_bytes, read_frame
from dtvit_deploy.formats.job.job import Build
from dtvit_deploy.formats.job.made import Made
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.pipeline.stages import describe
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.built import brought, built_on
from tensorrt_job import ENGINE as FOLDER
from tensorrt_job import Device, network, written_job

HEADER = b"ftrt" + bytes(20) + bytes((10, 3, 0, 26))


@pytest.fixture
def job(tmp_path: Path) -> Artifact:
    path = written_job(tmp_path)
    _, manifest = network(tmp_path / "net.fp32.onnx")
    describe(path, manifest, Precision.FP32, LINK, {}, {"flavour": "on-device"}, (), rung=Rung.PREPARED)
    return load_artifact(path)


@pytest.fixture
def engine(job: Artifact, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the device has it."""
    device = Device("10", monkeypatch)
    device.plan.header = HEADER
    assert device.run(job.path) == 0
    return job.path.parent / FOLDER


@pytest.fixture
def asked(job: Artifact, tmp_path: Path) -> Asked:
    (tmp_path / "blobs").mkdir()
    asking = Asking(tmp_path / "blobs")
    asking.build(asking.subject(job, "tensorrt"))
    return asking.asked


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with io.BytesIO() as made:
        yield made


def answered(asked: Asked, file: BinaryIO, pieces: list[Any], made: object, conditions: dict[str, str] | None = None) -> Results:
    """What a device says that sends those pieces."""
    results = Results(asked.job, asked.identity, file)
    results.begin()
    task = cast(Build, asked.job.tasks[0])

    def put(kind: Any, **what: Any) -> None:
        frame = read_frame(io.BytesIO(frame_bytes(kind, **what)))
        assert frame is not None
        results.accept(frame)

    assert isinstance(task, Build)
    put("job", body={"job": asked.identity, "device": {"model": "Jetson\x1b[2J Orin", "system": "Linux 5.15"}})
    put("begin", task=0, body={"state": {}})
    put("progress", task=0, body={"fraction": 0.0, "said": "built from 3 layers"})
    for index, piece in enumerate(pieces):
        put("part", task=0, index=index, arrays={"piece": piece if isinstance(piece, np.ndarray) else np.frombuffer(piece, np.uint8)})
    put("done", task=0, body={"state": {}, "conditions": conditions or {"built": "in 3.0 s"}, "made": made})
    put("end", body=results.end)
    return results


def packed(engine: Path) -> tuple[list[bytes], Made]:
    pieces: list[bytes] = []
    return pieces, sent(engine, 1 << 30, pieces.append)


def told(made: Made, **other: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(made)
    return found | other


def placed(asked: Asked, results: Results, folder: Path) -> Artifact:
    return brought(asked, results, 0, folder / "brought.trt", name="orin", address="ssh://orin")


def rewritten(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Have the device's manifest say something else, and be consistent in itself."""
    path = manifest_path(engine)
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_it_is_put_together_of_any_pieces(
    asked: Asked, engine: Path, file: BinaryIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtvit_deploy.agent.building.PIECE", 100)
    pieces, made = packed(engine)
    assert len(pieces) > 10
    assert {len(piece) for piece in pieces[:-1]} == {100}
    monkeypatch.setattr("dtvit_deploy.formats.job.expected.PIECE", 100)
    found = placed(asked, answered(asked, file, pieces, told(made)), tmp_path)
    assert sha256_of(found.path) == sha256_of(engine)
    built = built_on(found.manifest)
    assert built is not None
    assert (built.on, built.took) == ("orin", "in 3.0 s")
    assert built.processor == "Jetson�[2J Orin"
    assert not found.trusted
    assert passport_of(found.manifest) == passport_of(load_artifact(engine).manifest)


def test_pieces_that_are_not_those_that_were_sent_are_refused(asked: Asked, engine: Path, file: BinaryIO, tmp_path: Path) -> None:
    pieces, made = packed(engine)
    (whole,) = pieces
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    entry = {"model.engine": 1}
    wrong: list[tuple[list[Any], object]] = [
        ([flipped], told(made)),
        ([whole[:-1]], told(made)),
        ([whole, b"x"], told(made)),
        ([], told(made)),
        ([whole], None),
        ([whole], told(made, sha256="0" * 64)),
        ([whole], told(made, manifest=0)),
        ([whole], told(made, manifest=made.manifest + 1)),
        ([whole], told(made, files={**made.files, "../escaped": 0})),
        ([whole], told(made, files={**made.files, "run.sh": 0})),
        ([whole], told(made, files={})),
        ([whole], told(made, files={name: size for name, size in made.files.items() if name not in entry})),
        ([whole], told(made, files={"model.engine": 1 << 40})),
        ([whole], told(made, more=1)),
        ([np.frombuffer(whole, np.uint8).reshape(1, -1)], told(made)),
        ([np.frombuffer(whole, np.int8)], told(made)),
        ([np.zeros(0, np.uint8), whole], told(made)),
    ]
    for sent_pieces, body in wrong:
        with pytest.raises(ResultsError):
            answered(asked, io.BytesIO(), sent_pieces, body)
    assert not list(tmp_path.glob("brought*"))


def test_more_than_was_asked_for_is_not_taken(asked: Asked, engine: Path, tmp_path: Path) -> None:
    pieces, made = packed(engine)
    less = msgspec.structs.replace(asked.job.tasks[0], most=made.bytes - 1)
    bounded = asked._replace(job=msgspec.structs.replace(asked.job, tasks=(less,)))
    with pytest.raises(ResultsError, match="are the most"):
        answered(bounded, io.BytesIO(), pieces, told(made))
    with pytest.raises(InputError, match="are asked for at most"):
        sent(engine, made.bytes - 1, pieces.append)


def _link(manifest: dict[str, Any]) -> dict[str, Any]:
    link: dict[str, Any] = manifest["lineage"][-1]
    return link


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another network": lambda manifest: manifest.update(model="other"),
    "other classes": lambda manifest: manifest.update(classes=["b", "a"]),
    "another precision": lambda manifest: manifest.update(precision="fp16"),
    "another signature": lambda manifest: manifest["signature"]["inputs"][0].update(name="y"),
    "another checkpoint": lambda manifest: manifest["lineage"][0].update(sha256="d" * 64),
    "a longer past": lambda manifest: manifest["lineage"].insert(1, manifest["lineage"][0]),
    "another job": lambda manifest: _link(manifest)["options"].update(job="e" * 64),
    "no job": lambda manifest: _link(manifest)["options"].pop("job"),
    "no passport": lambda manifest: _link(manifest)["options"].pop("passport"),
    "another library": lambda manifest: _link(manifest)["options"]["passport"].update(library="tensorrt-rtx"),
    "another release": lambda manifest: _link(manifest)["options"]["passport"].update(version="10.4.0"),
    "other options": lambda manifest: _link(manifest)["options"]["passport"]["options"].update(version_compatible=True),
    "another graph": lambda manifest: _link(manifest)["options"]["passport"].update(graph="f" * 64),
    "another engine": lambda manifest: _link(manifest)["options"]["passport"].update(engine="f" * 64),
    "another folder": lambda manifest: manifest.update(sha256="f" * 64),
    "unchecked": lambda manifest: manifest.update(rung="built"),
    "better than it can be": lambda manifest: manifest.update(rung="executed"),
    "something besides": lambda manifest: manifest.update(runs="sh"),
    "a later schema": lambda manifest: manifest.update(schema=2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_of_something_else_is_refused(asked: Asked, engine: Path, file: BinaryIO, tmp_path: Path, what: str) -> None:
    rewritten(engine, CHANGES[what])
    pieces, made = packed(engine)
    with pytest.raises(ResultsError):
        placed(asked, answered(asked, file, pieces, told(made)), tmp_path)


def test_bytes_that_are_no_engine_are_refused_whatever_vouches_for_them(asked: Asked, engine: Path, file: BinaryIO, tmp_path: Path) -> None:
    (engine / ENGINE).write_bytes(b"#!/bin/sh\n")

    def vouch(manifest: dict[str, Any]) -> None:
        manifest["sha256"] = _link(manifest)["sha256"] = sha256_of(engine)
        digest = hashlib.sha256(b"#!/bin/sh\n").hexdigest()
        _link(manifest)["options"]["passport"].update(engine=digest, bytes=10)

    rewritten(engine, vouch)
    pieces, made = packed(engine)
    with pytest.raises(InputError, match="engine"):
        placed(asked, answered(asked, file, pieces, told(made)), tmp_path)


def test_a_part_has_a_bound(asked: Asked, engine: Path, file: BinaryIO, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, made = packed(engine)
    monkeypatch.setattr("dtvit_deploy.formats.job.expected.PIECE", len(pieces[0]) - 1)
    with pytest.raises(ResultsError, match="not what was asked for"):
        answered(asked, file, pieces, told(made))
    assert made_module.PIECE == 16 << 20
