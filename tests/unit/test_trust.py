"""Whose engines are executed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.cli.app import app
from dtvit_deploy.formats.engine.options import BuildOptions
from dtvit_deploy.formats.engine.passport import ENGINE, LINK, Passport
from dtvit_deploy.pipeline.trust import with_trust

STAGES = {"trt": "tensorrt", "rtx": "rtx"}


def write(folder: Path, format: str, content: bytes = b"native code", **passport: Any) -> Path:  # noqa: A002 - the manifest's word
    """An engine's folder and a manifest that fits it, as anyone can write them."""
    path = folder / f"model.{format}"
    path.mkdir(parents=True)
    (path / ENGINE).write_bytes(content)
    digest, tensor = sha256_of(path), TensorSpec("x", (1, 2))
    words: dict[str, Any] = {"library": STAGES[format], "version": "10.3.0", "capabilities": ("8.9",), "platform": "linux x86_64"}
    words |= {"engine": sha256_of(path / ENGINE), "bytes": len(content), "graph": "0" * 64}
    link = Link(kind=LINK, sha256=digest, options={"passport": msgspec.to_builtins(Passport(**words | passport))})
    signature = Signature((tensor,), (tensor,))
    manifest = Manifest(model="any", format=format, precision=Precision.FP16, sha256=digest, signature=signature, lineage=(link,))
    write_json(manifest_path(path), manifest)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def exported(cache: Cache, out: Path, format: str) -> Path:  # noqa: A002 - the manifest's word
    """What `export` leaves: an entry in the cache, and a copy of it under another name."""
    entry = cache.entry(STAGES[format], {"any": "key"}, lambda part: write(part, format) and None)
    out.mkdir()
    path = out / f"net.fp16.{format}"
    shutil.copytree(entry / f"model.{format}", path)
    shutil.copyfile(manifest_path(entry / f"model.{format}"), manifest_path(path))
    return path


@pytest.mark.parametrize("format", ["trt", "rtx"])
def test_what_this_user_exported_here_is_trusted(cache: Cache, tmp_path: Path, format: str) -> None:  # noqa: A002
    artifact = load_artifact(exported(cache, tmp_path / "out", format))
    assert not artifact.trusted
    assert with_trust(artifact, cache, trust=False).trusted


@pytest.mark.parametrize(
    ("content", "passport"),
    [(b"other code", {}), (b"native code", {"options": BuildOptions(version_compatible=True)}), (b"native code", {"engine": "f" * 64})],
    ids=["other bytes", "a passport that allows more", "a passport of other bytes"],
)
def test_what_differs_from_it_is_not(cache: Cache, tmp_path: Path, content: bytes, passport: dict[str, Any]) -> None:
    exported(cache, tmp_path / "out", "trt")
    stranger = load_artifact(write(tmp_path / "strangers", "trt", content, **passport))
    assert not with_trust(stranger, cache, trust=False).trusted
    assert with_trust(stranger, cache, trust=True).trusted


def test_an_entry_that_was_changed_vouches_for_nothing(cache: Cache, tmp_path: Path) -> None:
    artifact = load_artifact(exported(cache, tmp_path / "out", "trt"))
    (entry,) = cache.root.glob("tensorrt-*")
    (entry / "model.trt" / ENGINE).write_bytes(b"other codes")
    assert not with_trust(artifact, cache, trust=False).trusted


def test_without_a_cache_nothing_is_trusted_and_nothing_fails(cache: Cache, tmp_path: Path) -> None:
    assert not with_trust(load_artifact(write(tmp_path / "strangers", "rtx")), cache, trust=False).trusted


@pytest.mark.parametrize(("words", "trusted"), [((), False), (("--trust",), True)], ids=["by itself", "--trust"])
@pytest.mark.parametrize("command", ["verify", "evaluate", "profile", "bundle"])
def test_the_commands_take_the_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: tuple[str, ...], trusted: bool
) -> None:
    from typer.testing import CliRunner

    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    seen: list[Artifact] = []

    def stop(artifacts: list[Artifact], *_: object) -> None:
        seen.extend(artifacts)
        raise SystemExit(0)

    monkeypatch.setattr("dtvit_deploy.pipeline.opened.open_material", lambda *_: None)
    for place in ("origin", "opened"):  # a bundle is made of all that is opened; others ask devices in between
        monkeypatch.setattr(f"dtvit_deploy.pipeline.{place}.reference_of", stop)
    path = write(tmp_path / "strangers", "trt")
    CliRunner().invoke(app, [command, str(path), *words, "--data", str(tmp_path)])
    assert [artifact.trusted for artifact in seen] == [trusted]


def test_whatever_an_export_keeps_in_the_cache_is_trusted_in_every_format() -> None:
    """What is not would be tried again each time, in a process of its own, by whoever made it."""
    from dtvit_deploy.pipeline import trust
    from dtvit_deploy.runtimes.registry import BY_FORMAT

    assert set(trust.STAGES) == set(BY_FORMAT) - {"program"}  # an exported program is never loaded from outside the cache
