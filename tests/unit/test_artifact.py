from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtvit_deploy.artifacts.artifact import (
    LARGEST_MANIFEST,
    SCHEMA,
    Link,
    Manifest,
    encode_json,
    load_artifact,
    manifest_path,
    read_json,
    sha256_of,
    write_json,
)
from dtvit_deploy.artifacts.given import named_artifacts
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError

CONTENT = b"the weights and the graph"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MANIFEST = Manifest(
    model="any",
    format="onnx",
    precision=Precision.FP16,
    sha256=DIGEST,
    signature=Signature((TensorSpec("image", (1, 3, 4, 4)),), (TensorSpec("logits", (1, 5)),)),
    lineage=(Link(kind="checkpoint", sha256="1" * 64), Link(kind="float16", sha256=DIGEST, notes=("kept",), options={"keep": ["a"]})),
    classes=("cat", "Übergröße"),
    preprocessing={"crop": [4, 4]},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An artefact with its manifest."""
    path = tmp_path / "model.fp16.onnx"
    path.write_bytes(CONTENT)
    write_json(manifest_path(path), MANIFEST)
    return path


def rewrite(path: Path, change: dict[str, Any]) -> None:
    beside = manifest_path(path)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | change))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_artifact(path)
    return str(caught.value)


def test_an_artefact_is_found_with_what_was_written_of_it(path: Path) -> None:
    found = load_artifact(path)
    assert (found.path, found.name, found.manifest) == (path, "model.fp16.onnx", MANIFEST)
    link = found.manifest.parent("checkpoint")
    assert link is not None
    assert link.sha256 == "1" * 64
    assert found.manifest.parent("engine") is None


@pytest.mark.parametrize("changed", [CONTENT + b"\0", CONTENT[:-1], b"", CONTENT.replace(b"w", b"W")])
def test_one_that_was_changed_is_not_mistaken_for_it(path: Path, changed: bytes) -> None:
    path.write_bytes(changed)
    assert refusal(path) == (
        f"{path} was changed after export: its SHA-256 is {hashlib.sha256(changed).hexdigest()[:16]}…, the manifest says {DIGEST[:16]}…"
    )


@pytest.mark.parametrize(
    ("asked", "file", "title"),
    [
        ({}, "any.fp16.mlpackage", "Core ML FP16"),
        ({"weights": "palette6"}, "any.fp16.palette6.mlpackage", "Core ML FP16 palette6"),
        ({"layout": "ane"}, "any.fp16.ane.mlpackage", "Core ML FP16 ane"),
        ({"layout": "ane", "weights": "../6"}, "any.fp16.ane.6.mlpackage", "Core ML FP16 ane ../6"),
        ({"int8": "ane", "weights": ["palette6"]}, "any.fp16.mlpackage", "Core ML FP16"),
    ],
)
def test_packages_of_two_kinds_never_share_a_name(asked: dict[str, Any], file: str, title: str) -> None:
    """Or the second export into a folder would take the place of the first, and a report would call both the same."""
    links = tuple(Link(kind=kind, sha256=DIGEST, options={"layout": "x86", kind: value}) for kind, value in asked.items())
    found = msgspec.structs.replace(MANIFEST, format="mlpackage", lineage=(*MANIFEST.lineage, *links))
    assert (found.file_name, found.title) == (file, title)


def test_a_lineage_must_end_in_the_artefact_itself(path: Path) -> None:
    other = Link(kind="float16", sha256="2" * 64)
    for lineage in ((MANIFEST.lineage[0], other), (*MANIFEST.lineage, other)):
        write_json(manifest_path(path), msgspec.structs.replace(MANIFEST, lineage=lineage))
        assert refusal(path) == (
            f"the lineage in {path}.json does not lead to {path.name}: its last step, float16, made SHA-256 {'2' * 16}…, not {DIGEST[:16]}…"
        )


def test_both_files_are_needed_and_the_missing_one_is_named(path: Path) -> None:
    manifest_path(path).rename(path.with_name("elsewhere.json"))
    assert refusal(path) == f"model.fp16.onnx has no manifest: {path}.json does not exist"
    path.unlink()
    assert refusal(path) == f"there is no artefact at {path}"


def test_a_folder_is_no_artefact_and_no_manifest(path: Path) -> None:
    assert refusal(path.parent) == f"{path.parent.name} has no manifest: {path.parent}.json does not exist"
    manifest_path(path).unlink()
    manifest_path(path).mkdir()
    assert "has no manifest" in refusal(path)


def test_a_folder_and_what_a_shell_makes_of_a_star_stand_for_the_artefacts(path: Path) -> None:
    other = path.with_name("model.fp32.onnx")
    other.write_bytes(CONTENT)
    write_json(manifest_path(other), MANIFEST)
    (path.parent / "report.json").write_text("{}")
    folder, everything = path.parent, sorted(path.parent.iterdir())
    assert named_artifacts([folder]) == [path, other]
    assert named_artifacts(everything[:-1]) == [path, other]
    assert named_artifacts([other, manifest_path(other), folder]) == [other, path]
    assert named_artifacts([folder / "report.json", folder / "gone"]) == [folder / "report.json", folder / "gone"]


def test_a_folder_without_artefacts_and_a_report_are_named_for_what_they_are(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"the folder {tmp_path / 'empty'} holds no artefacts"):
        named_artifacts([tmp_path / "empty"])
    report = path.with_name("report.json")
    report.write_text('{"command": "run", "subjects": []}')
    with pytest.raises(InputError, match=r"report\.json is a report, and no artefact"):
        named_artifacts([path, report])
    lost = tmp_path / "net.openvino"
    lost.mkdir()
    assert named_artifacts([lost]) == [lost]  # of which loading says that its manifest is missing


def test_who_gives_any_folder_is_told_what_an_artefact_is(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError) as caught:
        load_artifact(tmp_path / "plain")
    assert str(caught.value.remedy).endswith("a file or a folder, with its manifest beside it (plain.json)")


def test_an_artefact_that_cannot_be_read_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dtvit_deploy.artifacts.artifact.sha256_of", denied)  # root may read everything, so a mode would not do
    assert refusal(path) == f"{path} cannot be read: Permission denied"


@pytest.mark.parametrize("more", [{}, {"invented": "later"}, {"signature": "in another form"}])
def test_another_schema_is_told_apart_from_a_broken_manifest(path: Path, more: dict[str, Any]) -> None:
    rewrite(path, {"schema": SCHEMA + 1} | more)
    assert refusal(path) == f"{path}.json has schema {SCHEMA + 1}; this version reads schema {SCHEMA}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"invented": 1}, "unknown field `invented`"),
        ({"sha256": 7}, "Expected `str`, got `int` - at `$.sha256`"),
        ({"precision": "fp8"}, "Invalid enum value 'fp8'"),
        ({"rung": "proved"}, "Invalid enum value 'proved'"),
        ({"lineage": {}}, "Expected `array`, got `object` - at `$.lineage`"),
        ({"signature": {"inputs": [{"name": "x", "shape": ["N"]}], "outputs": []}}, "Expected `int`, got `str`"),
        ({"schema": "1"}, "Expected `int`, got `str` - at `$.schema`"),
        ({"classes": "cat"}, "Expected `array`, got `str`"),
        ({"lineage": []}, "Expected `array` of length >= 1 - at `$.lineage`"),
        (
            {"signature": {"inputs": [{"name": "x", "shape": [1, 0]}], "outputs": []}},
            "Expected `int` >= 1 - at `$.signature.inputs[0].shape[1]`",
        ),
        (
            {"signature": {"inputs": [], "outputs": [{"name": "x", "shape": [-1]}]}},
            "Expected `int` >= 1 - at `$.signature.outputs[0].shape[0]`",
        ),
        (
            {"signature": {"inputs": [{"name": "x", "shape": [1 << 20] * 2}], "outputs": []}},
            "got 1,099,511,627,776 - at `$.signature.inputs`",
        ),
        ({"signature": {"inputs": [{"name": "x", "shape": [], "dtype": "(2,"}], "outputs": []}}, "at `$.signature.inputs[0].dtype`"),
    ],
)
def test_a_field_of_another_kind_is_refused_and_named(path: Path, change: dict[str, Any], said: str) -> None:
    rewrite(path, change)
    assert refusal(path).startswith(f"{path}.json is not a manifest: ")
    assert said in refusal(path)


def test_a_field_that_is_missing_is_named(path: Path) -> None:
    manifest_path(path).write_text('{"model": "any"}')
    assert "missing required field `format`" in refusal(path)


DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b'{"schema": NaN}',
        b'{"schema": 1} {"schema": 1}',
        DEEP,
        b'{"later": ' + DEEP + b"}",
        encode_json(MANIFEST).replace(b'"crop": [', b'"deep": ' + DEEP + b', "crop": ['),
        encode_json(MANIFEST)[:-10],
    ],
    ids=lambda content: repr(content[:24]),
)
def test_what_is_no_manifest_is_refused_without_a_traceback(path: Path, content: bytes) -> None:
    manifest_path(path).write_bytes(content)
    assert refusal(path).startswith(f"{path}.json is not a manifest: ")


def test_a_manifest_of_gigabytes_is_not_read(path: Path) -> None:
    with manifest_path(path).open("r+b") as file:
        file.truncate(LARGEST_MANIFEST + 1)  # sparse: it takes no space
    assert refusal(path) == f"{path}.json is 16,777,217 bytes; no manifest is that large"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # each writes it anew
@given(st.data())
def test_no_damage_of_a_manifest_gives_anything_but_a_refusal_or_a_manifest(path: Path, data: st.DataObject) -> None:
    content = bytearray(encode_json(MANIFEST))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    manifest_path(path).write_bytes(content)
    try:
        load_artifact(path)
    except InputError as error:
        assert error.remedy  # noqa: PT017 - that it may be raised is the test


def test_equal_values_give_equal_bytes_whatever_their_order() -> None:
    assert encode_json({"b": 1, "a": [1, 2]}) == encode_json({"a": [1, 2], "b": 1}) == b'{\n  "a": [\n    1,\n    2\n  ],\n  "b": 1\n}\n'


def test_writing_replaces_in_one_step_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    write_json(path, Link(kind="old", sha256="0"))
    write_json(path, MANIFEST.lineage[1])
    assert read_json(path, Link) == MANIFEST.lineage[1]
    assert list(tmp_path.iterdir()) == [path]


@given(st.binary(max_size=4096))
def test_the_digest_is_that_of_the_whole_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "digested"
    path.write_bytes(content * 600)  # longer than a piece
    assert sha256_of(path) == hashlib.sha256(content * 600).hexdigest()


@pytest.mark.parametrize("kind", ["pipe", "folder that is a link", "link that leads nowhere"])
def test_what_a_digest_would_not_cover_has_no_place_in_a_folder(tmp_path: Path, kind: str) -> None:
    folder, odd = tmp_path / "net.mlpackage", tmp_path / "net.mlpackage/inside/odd"
    odd.parent.mkdir(parents=True)
    (folder / "plain").write_bytes(b"1")
    (folder / "link").symlink_to(folder / "plain")  # covered by what it leads to
    before = sha256_of(folder)
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(tmp_path if kind.startswith("folder") else tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"net\.mlpackage holds inside/odd, which is neither a file nor a folder"):
        sha256_of(folder)
    odd.unlink()
    assert sha256_of(folder) == before


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ((), "net.fp16.onnx"),
        ((Link(kind="float16", sha256=DIGEST, options={"cpu": "x86-64"}),), "net.fp16.onnx"),
        ((Link(kind="float16", sha256=DIGEST, options={"cpu": "arm64"}),), "net.fp16.arm64.onnx"),
        (
            (Link(kind="float16", sha256=DIGEST, options={"cpu": "arm64"}), Link(kind="portable", sha256=DIGEST)),
            "net.fp16.arm64.onnx",
        ),
        ((Link(kind="float16", sha256=DIGEST, options={"cpu": 7}),), "net.fp16.onnx"),
    ],
)
def test_a_graph_for_another_cpu_is_another_file(links: tuple[Link, ...], name: str) -> None:
    """Exported into one folder, neither takes the place of the other."""
    root = Link(kind="program", sha256=DIGEST)
    made = Manifest(
        model="net", format="onnx", precision=Precision.FP16, sha256=DIGEST, signature=Signature((), ()), lineage=(root, *links)
    )
    assert made.file_name == name
    assert made.title == "ONNX FP16"
