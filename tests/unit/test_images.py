"""Which files are images, which label each has, and which of them a sample takes. No picture is decoded: content is only bytes."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.calibration.images import ImageSet, LabelledImage, leak, open_images, sample
from dtvit_deploy.errors import InputError


def tree(root: Path, *names: str) -> Path:
    """Files whose content is their own name."""
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def labels(images: ImageSet, root: Path) -> dict[str, int | None]:
    return {image.path.relative_to(root).as_posix(): image.label for image in images.images}


def refused(source: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_images(source, **options)
    assert caught.value.remedy
    return str(caught.value)


def test_class_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "cat/b.png", "cat/a.JPG", "ant/deep/er/c.webp", "ant/notes.md", "cat/.hidden.png", ".git/x.png", "._cat.png")
    images = open_images(tmp_path)
    assert labels(images, tmp_path) == {"ant/deep/er/c.webp": 0, "cat/a.JPG": 1, "cat/b.png": 1}
    assert images.classes == ("ant", "cat")
    assert [image.path for image in images.images] == sorted(image.path for image in images.images)


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{number}/x.png" for number in range(12)))
    assert open_images(tmp_path).classes == tuple(str(number) for number in range(12))
    # One name that is no number, and they are names again.
    tree(tmp_path, "ten/x.png")
    assert open_images(tmp_path).classes[:4] == ("0", "1", "10", "11")


def test_names_of_the_checkpoint_decide_the_labels(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png", "ant/b.png")
    images = open_images(tmp_path, classes=("dog", "cat", "ant"))
    assert labels(images, tmp_path) == {"ant/b.png": 2, "cat/a.png": 1}
    assert images.classes == ("dog", "cat", "ant")


def test_an_unknown_class_is_refused_with_both_lists(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png", "lion/b.png")
    message = refused(tmp_path, classes=("dog", "cat"))
    assert "lion" in message
    assert "dog, cat" in message


def test_two_classes_of_one_name_are_ambiguous_only_where_they_are_used(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png")
    assert open_images(tmp_path, classes=("crane", "cat", "crane")).classes == ("crane", "cat", "crane")
    tree(tmp_path, "crane/a.png")
    assert "crane" in refused(tmp_path, classes=("crane", "cat", "crane"))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    tree(tmp_path, "b.png", "a.png", "readme.txt", "docs/notes.md")
    images = open_images(tmp_path, classes=("x", "y"))
    assert labels(images, tmp_path) == {"a.png": None, "b.png": None}
    assert images.classes == ("x", "y")
    assert open_images(tmp_path).classes == ()


def test_an_empty_class_is_refused_only_where_it_would_shift_labels(tmp_path: Path) -> None:
    tree(tmp_path, "ant/a.png", "bee/notes.md", "cat/a.png")
    assert "bee" in refused(tmp_path)
    assert labels(open_images(tmp_path, classes=("ant", "bee", "cat")), tmp_path) == {"ant/a.png": 0, "cat/a.png": 2}


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "stray.png", "cat/a.png")
    message = refused(tmp_path)
    assert "stray.png" in message
    assert "cat" in message


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent")
    assert refused(tmp_path / ("x" * 300))
    assert "holds no files" in refused(tree(tmp_path / "empty"))
    assert "no image among the 3 files" in (message := refused(tree(tmp_path / "papers", "a.pdf", "b.PDF", "deep/LICENSE")))
    assert ".pdf (2)" in message
    assert "no suffix (1)" in message
    assert "is a file" in refused(tree(tmp_path / "one", "a.png") / "a.png")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "cat/a.png", "dog/b.png")
    scandir = os.scandir

    def denied(path: Path) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    message = refused(tmp_path)
    assert message.endswith("dog cannot be read: Permission denied")


def test_links_are_followed_once(tmp_path: Path) -> None:
    elsewhere = tree(tmp_path / "elsewhere", "b.png", "deep/c.png")
    root = tree(tmp_path / "root", "cat/a.png")
    (root / "dog").symlink_to(elsewhere)
    (root / "cat/self").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    (elsewhere / "deep/round").symlink_to(elsewhere)
    (root / "cat/ouroboros.png").symlink_to(root / "cat/ouroboros.png")
    (root / "cat/broken.png").symlink_to(root / "nowhere.png")
    # The two that lead nowhere stay: that they cannot be read should be said, not hidden.
    assert labels(open_images(root), root) == {
        "cat/a.png": 0,
        "cat/broken.png": 0,
        "cat/ouroboros.png": 0,
        "dog/b.png": 1,
        "dog/deep/c.png": 1,
    }


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    tree(tmp_path, "cat.png/a.png")
    assert open_images(tmp_path).classes == ("cat.png",)


def test_a_list_of_paths(tmp_path: Path) -> None:
    tree(tmp_path, "a b.png", "deep/c.dat", "list.txt")
    (tmp_path / "list.txt").write_text(f"deep/c.dat\n\n{tmp_path}/a b.png\n")
    images = open_images(tmp_path / "list.txt")
    assert [(image.path, image.label) for image in images.images] == [(tmp_path / "deep/c.dat", None), (tmp_path / "a b.png", None)]


@pytest.mark.parametrize("written", ["a.png\tdog\nb.png\tcat\n", "\ufeffa.png\tdog\r\nb.png\tcat"])
def test_a_list_with_classes(tmp_path: Path, written: str) -> None:
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "list.txt").write_bytes(written.encode())
    assert labels(open_images(tmp_path / "list.txt"), tmp_path) == {"a.png": 1, "b.png": 0}
    named = open_images(tmp_path / "list.txt", classes=("dog", "emu", "cat"))
    assert labels(named, tmp_path) == {"a.png": 0, "b.png": 2}
    assert named.classes == ("dog", "emu", "cat")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "lists no image"),
        (b"\n \n", "lists no image"),
        (b"a.png\ngone.png\n", r"1 of the 2 .*gone\.png \(line 2\)"),
        (b"a.png\x00\n", "do not exist"),
        (b"a.png\tcat\nb.png\n", "line 2"),
        (b"a.png\tcat\nb.png\tlion\n", "lion"),
        (b"\xff\xfe\xff", "UTF-8|utf-8"),
    ],
)
def test_a_list_that_does_not_hold(tmp_path: Path, written: bytes, said: str) -> None:
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "list.txt").write_bytes(written)
    with pytest.raises(InputError, match=said):
        open_images(tmp_path / "list.txt", classes=("cat",))


def test_the_digest_knows_content_and_labels_only(tmp_path: Path) -> None:
    first = tree(tmp_path / "first", "ant/a.png", "cat/b.png")
    digest = open_images(first).digest
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    (moved / "cat/b.png").rename(moved / "cat/another name.png")
    assert open_images(moved).digest == digest
    assert open_images(moved, classes=("ant", "cat", "dog")).digest != digest
    (moved / "cat/another name.png").write_bytes(b"changed")
    assert open_images(moved).digest != digest

    flat = tree(tmp_path / "flat", "a.png", "b.png")
    assert open_images(flat).digest == open_images(flat, classes=("x",)).digest


def test_swapped_labels_are_another_set(tmp_path: Path) -> None:
    a, b = (tree(tmp_path, name) / name for name in ("a.png", "b.png"))
    one = ImageSet((LabelledImage(a, 0), LabelledImage(b, 1)), ("x", "y"))
    other = ImageSet((LabelledImage(a, 1), LabelledImage(b, 0)), ("x", "y"))
    assert one.digest != other.digest
    assert one.digest == ImageSet(one.images[::-1], ("x", "y")).digest


def test_a_file_that_vanished_is_an_input_error(tmp_path: Path) -> None:
    images = open_images(tree(tmp_path, "cat/a.png"))
    (tmp_path / "cat/a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        _ = images.digest


def test_a_leak_is_found_under_another_name(tmp_path: Path) -> None:
    train = open_images(tree(tmp_path / "train", "cat/a.png", "dog/b.png"))
    held_out = tree(tmp_path / "held-out", "cat/new.png")
    (held_out / "cat/copy.png").write_bytes((tmp_path / "train/dog/b.png").read_bytes())
    assert leak(train, open_images(held_out)) == (held_out / "cat/copy.png",)
    (held_out / "cat/copy.png").unlink()
    assert leak(train, open_images(held_out)) == ()


def made_up(sizes: list[int], root: str = "/data") -> ImageSet:
    """Classes of these sizes, without files; the last class is that of images without a label."""
    names = [(f"{root}/{label}/{i}.png", label) for label, size in enumerate(sizes) for i in range(size)]
    return ImageSet(tuple(LabelledImage(Path(path), label) for path, label in names), tuple(map(str, range(len(sizes)))))


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8), count=st.integers(1, 60), seed=st.integers(0, 2**40), data=st.data())
@settings(deadline=None)
def test_a_sample_is_balanced_seeded_and_blind_to_order(sizes: list[int], count: int, seed: int, data: st.DataObject) -> None:
    images = made_up(sizes)
    taken = sample(images, count, seed=seed)
    assert len(taken) == min(count, len(images))
    assert taken.classes == images.classes
    # In the given order, nothing twice.
    positions = [images.images.index(image) for image in taken.images]
    assert positions == sorted(set(positions))
    # A class has fewer than another only because it has no more to give, or by one that could not be shared out.
    shares = Counter(image.label for image in taken.images)
    most = max(shares.values(), default=0)
    assert all(shares[label] >= min(size, most - 1) for label, size in enumerate(sizes))

    shuffled = ImageSet(tuple(data.draw(st.permutations(images.images))), images.classes)
    assert set(sample(shuffled, count, seed=seed).images) == set(taken.images)
    elsewhere = sample(made_up(sizes, "/mnt/other/place"), count, seed=seed)
    assert [image.path.parts[-2:] for image in elsewhere.images] == [image.path.parts[-2:] for image in taken.images]


def test_a_sample_is_the_same_in_every_version() -> None:
    assert [str(image.path) for image in sample(made_up([4, 4, 4]), 5, seed=7).images] == [
        "/data/0/1.png",
        "/data/0/2.png",
        "/data/1/3.png",
        "/data/2/1.png",
        "/data/2/3.png",
    ]


def test_another_seed_takes_others() -> None:
    images = made_up([100, 100])
    drawn = {sample(images, 10, seed=seed).images for seed in range(20)}
    assert len(drawn) == 20
    # Which classes get the odd ones out is drawn as well: no class is always the poorer.
    odd = Counter(image.label for seed in range(60) for image in sample(made_up([9, 9, 9]), 1, seed=seed).images)
    assert set(odd) == {0, 1, 2}


def test_images_without_labels_are_sampled_too() -> None:
    images = ImageSet(tuple(LabelledImage(Path(f"/{i}.png"), None) for i in range(10)))
    assert len(sample(images, 3)) == 3


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="0 images"):
        sample(made_up([3]), 0)
