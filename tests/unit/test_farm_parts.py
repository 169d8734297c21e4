"""The parts of a farm that need no scheduler: addresses, what travels, and whether a worker has the same files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import content_of
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.plan.farm import remote
from dtvit_deploy.plan.farm.address import require_safe
from dtvit_deploy.plan.farm.parcel import Parcel, packed, received
from dtvit_deploy.plan.farm.remote import version
from dtvit_deploy.plan.files import FileState, require_same, require_unchanged, state_of
from dtvit_deploy.plan.graph import Plan, Stage


@pytest.mark.parametrize(
    "address", ["tls://lab:8786", "tls://10.0.0.2:1", "tls://[fe80::1]:8786", "tcp://127.0.0.1:8786", "tcp://localhost:80", "tcp://[::1]:9"]
)
def test_tls_and_the_loopback_are_safe(address: str) -> None:
    assert require_safe(address) == address


@pytest.mark.parametrize(
    "address", ["tcp://lab:8786", "tcp://10.0.0.2:8786", "tcp://0.0.0.0:8786", "tcp://[fe80::1]:9", "tcp://localhost.lab:9"]
)
def test_anything_else_in_the_clear_is_refused_unless_it_is_asked_for(address: str) -> None:
    with pytest.raises(InputError, match="in the clear"):
        require_safe(address)
    assert require_safe(address, insecure=True) == address


@pytest.mark.parametrize(
    "address", ["", "lab:8786", "inproc://1", "ws://lab:8786", "tls://lab", "tls://lab:0", "tls://lab:65536", "tls://a b:1"]
)
def test_what_is_no_address_is_said_to_be_none_even_where_insecure_is_allowed(address: str) -> None:
    with pytest.raises(InputError, match="no scheduler's address"):
        require_safe(address, insecure=True)


def made(cache: Cache, name: str = "a/b.onnx", content: bytes = b"graph") -> Path:
    def build(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / "a.json").write_bytes(b"{}")

    return cache.entry("stage-build", content.decode(), build)


def test_a_result_arrives_as_it_was_and_equal_ones_once(tmp_path: Path) -> None:
    here, there = Cache(tmp_path / "here"), Cache(tmp_path / "there")
    parcel = pickle.loads(pickle.dumps(packed(made(here))))
    folder = received(parcel, there)
    assert content_of(folder) == parcel.content
    assert (folder / "a" / "b.onnx").read_bytes() == b"graph"
    assert parcel.size == 7
    assert received(packed(made(Cache(tmp_path / "third"))), there) == folder


def test_a_result_that_is_not_what_was_sent_or_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "there")
    parcel = packed(made(Cache(tmp_path / "here")))
    with pytest.raises(DeployError, match="not what was sent"):
        received(Parcel(parcel.content, parcel.files | {"a.json": b"[]"}), cache)
    assert cache.held() == []  # and what is right is taken when it comes
    assert content_of(received(parcel, cache)) == parcel.content
    for name in ("../outside", "/outside", "a/../../outside"):
        with pytest.raises(DeployError, match="not in its folder"):
            received(Parcel(name, {name: b""}), cache)
    assert not (tmp_path / "outside").exists()


def test_a_worker_with_another_file_in_the_same_place_is_told_from_one_with_the_same(tmp_path: Path) -> None:
    checkpoint, images = tmp_path / "net.pt", tmp_path / "images"
    checkpoint.write_bytes(b"weights")
    images.mkdir()
    (images / "1.png").write_bytes(b"one")
    known = {checkpoint: state_of(checkpoint, data=False), images: state_of(images, data=True)}
    elsewhere = {path: FileState(state.digest, "another file system's") for path, state in known.items()}
    for path, state in elsewhere.items():
        assert require_same(path, state) == known[path]
    checkpoint.write_bytes(b"others")
    (images / "2.png").write_bytes(b"two")
    for path, state in elsewhere.items():
        with pytest.raises(InputError, match="something else on this worker"):
            require_same(path, state)
    checkpoint.unlink()
    with pytest.raises(InputError, match=r"net\.pt"):
        require_same(checkpoint, elsewhere[checkpoint])


def test_what_changes_meanwhile_is_told_by_a_look(tmp_path: Path) -> None:
    image = tmp_path / "images" / "1.png"
    image.parent.mkdir()
    image.write_bytes(b"one")
    os.utime(image, (1000, 1000))
    known = {str(image.parent): state_of(image.parent, data=True)}
    require_unchanged(known)
    for change in (
        lambda: image.write_bytes(b"two"),
        lambda: image.rename(image.with_name("2.png")),
        lambda: (image.parent / "3.png").touch(),
    ):
        change()
        with pytest.raises(InputError, match="has changed since the run began"):
            require_unchanged(known)


def test_a_pipe_among_images_does_not_hold_planning_up(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"one")
    os.mkfifo(tmp_path / "notes.txt")  # no image: its name counts, and nobody reads it
    before = state_of(tmp_path, data=True)
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(InputError, match="no file"):
        state_of(tmp_path, data=True)
    (tmp_path / "2.png").unlink()
    assert state_of(tmp_path, data=True) == before


def test_the_version_of_a_worker_is_that_of_its_source_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a stage may come to run counts: stages are called by name, and so are found by no import."""
    before = version()
    digest = remote.source_digest
    for module in ("dtvit_deploy.plan.evaluating", "dtvit_deploy.plan.building", "dtvit_deploy.plan.farm.remote"):
        remote.version.cache_clear()
        monkeypatch.setattr(remote, "source_digest", lambda name, changed=module: "another" if name == changed else digest(name))
        assert version() != before
    remote.version.cache_clear()


def test_stages_that_only_shorten_others_are_left_out_for_a_farm() -> None:
    def stage(name: str, **more: tuple[str, ...]) -> Stage:
        return Stage(name, "trace", 0, **more)  # type: ignore[arg-type]

    plan = Plan(
        [
            stage("root"),
            stage("warm", needs=("root",)),
            stage("build", needs=("root",), after=("warm", "root")),
            stage("end", needs=("build",)),
        ]
    )
    assert list(plan.without_helpers().stages) == ["root", "build", "end"]
