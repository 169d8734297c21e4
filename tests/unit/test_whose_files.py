"""Files that somebody else owns, can write or can point elsewhere: not used from the cache, and no part of an artefact."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
ANOTHER = 12345


def build(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "result").write_text("done")
    (folder / "inner" / "more").write_text("done")


def open_to_a_group(entry: Path) -> None:
    (entry / "result").chmod(0o664)


def open_to_all(entry: Path) -> None:
    (entry / "inner" / "more").chmod(0o602)


def open_folder(entry: Path) -> None:
    (entry / "inner").chmod(0o777)


def link_of_the_same_content(entry: Path) -> None:
    (entry / "result").rename(entry.parent / "elsewhere")
    (entry / "result").symlink_to(entry.parent / "elsewhere")


def link_beside_what_is_listed(entry: Path) -> None:
    (entry / "also").symlink_to("/etc/hostname")


def of_another(entry: Path) -> None:
    os.chown(entry / "result", ANOTHER, -1)


def listing_of_another(entry: Path) -> None:
    os.chown(entry / ".files", ANOTHER, -1)


def folder_of_another(entry: Path) -> None:
    os.chown(entry / "inner", ANOTHER, -1)


SPOILT = [open_to_a_group, open_to_all, open_folder, link_of_the_same_content, link_beside_what_is_listed]
OTHERS = [of_another, listing_of_another, folder_of_another]


@pytest.mark.parametrize("spoil", [*SPOILT, *(pytest.param(each, marks=root_only) for each in OTHERS)], ids=lambda spoil: spoil.__name__)
def test_an_entry_that_others_may_have_changed_is_built_again(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    cache, built = Cache(tmp_path / "cache"), []

    def counted(folder: Path) -> None:
        built.append(folder)
        build(folder)

    entry = cache.entry("stage", 1, counted)
    assert cache.entry("stage", 1, counted) == entry
    assert len(built) == 1
    spoil(entry)
    assert cache.find("stage", lambda _: True) is None
    assert cache.entry("stage", 1, counted) == entry
    assert len(built) == 2
    assert (entry / "result").read_text() == "done"
    assert cache.find("stage", lambda _: True) == entry


def test_a_umask_that_opens_files_to_a_group_does_not_open_those_of_the_cache(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        entry = Cache(tmp_path / "cache").entry("stage", 1, build)
    finally:
        os.umask(before)
    assert all(inside.stat().st_mode & 0o022 == 0 for inside in entry.rglob("*"))


@root_only
@pytest.mark.parametrize("place", ["the root itself", "a folder above it"])
def test_a_root_behind_somebody_elses_link_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "real" / "cache").mkdir(parents=True, mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / ("cache" if place == "the root itself" else ""))
    cache = Cache(link if place == "the root itself" else link / "cache")
    assert cache.entry("stage", 1, build)  # a link of one's own is fine
    os.chown(link, ANOTHER, -1, follow_symlinks=False)
    looks = (lambda: cache.find("stage", bool), lambda: cache.entries("stage"))
    for use in (lambda: cache.entry("stage", 1, build), lambda: cache.entry("stage", 2, build), *looks):
        with pytest.raises(InputError, match=rf"reached through a link of another user \(number {ANOTHER}\), {link}"):
            use()


@pytest.mark.parametrize("kind", ["openvino", "mlpackage", "trt", "rtx", "trtjob"])
@pytest.mark.parametrize("way", ["absolute", "relative", "through a link inside"])
def test_a_link_out_of_an_artefacts_folder_is_refused(kind: str, way: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / f"net.{kind}", tmp_path / "elsewhere.bin"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.xml").write_text("graph")
    outside.write_text("constants")
    target = {"absolute": outside, "relative": Path("../../elsewhere.bin"), "through a link inside": Path("first")}[way]
    (folder / "inner" / "model.bin").symlink_to(target)
    if way == "through a link inside":
        (folder / "inner" / "first").symlink_to("../../elsewhere.bin")
    with pytest.raises(InputError, match=rf"net\.{kind} holds a link that leads out of it: inner/") as caught:
        sha256_of(folder)
    assert "files in the place of links" in str(caught.value.remedy)


def test_a_link_within_it_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "net.openvino"
    folder.mkdir()
    (folder / "a").write_text("constants")
    (folder / "model.bin").symlink_to("a")
    assert sha256_of(folder)


def test_an_artefact_that_is_itself_reached_through_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("constants")
    (tmp_path / "net.openvino").symlink_to("real")
    assert sha256_of(tmp_path / "net.openvino") == sha256_of(tmp_path / "real")
