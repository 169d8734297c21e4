"""Feeds fit the signature whatever they are made from, and a hostile ``.npz`` is refused without being run or unpacked."""

import io
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.decode import decode_image
from dtvit_deploy.calibration.feeds import adversarial_feeds, image_feeds, random_feeds
from dtvit_deploy.calibration.images import ImageSet, LabelledImage, open_images
from dtvit_deploy.calibration.npz import LARGEST_NPZ, load_feeds
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError

PREPROCESSING = Preprocessing(resize=8, crop=(8, 6))
IMAGE = Signature((TensorSpec("pixels", (1, 3, 8, 6)),), (TensorSpec("logits", (1, 4)),))
TWO = Signature(
    (TensorSpec("image", (1, 3, 4, 4)), TensorSpec("where", (2,), "int64")),
    (TensorSpec("logits", (1, 4)),),
)


# Images


def test_one_feed_for_each_image_in_order(tmp_path: Path) -> None:
    for value in (0, 100, 200):
        Image.new("L", (20, 30), value).save(tmp_path / f"{value:03}.png")
    images = open_images(tmp_path)
    feeds = list(image_feeds(images, PREPROCESSING, IMAGE))
    assert len(feeds) == 3
    for image, feed in zip(images.images, feeds, strict=True):
        IMAGE.check(feed)
        assert (feed["pixels"][0] == PREPROCESSING.apply(decode_image(image.path))).all()


def test_images_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    images = ImageSet((LabelledImage(tmp_path / "a.png", None), LabelledImage(tmp_path / "gone.png", None)))
    feeds = image_feeds(images, PREPROCESSING, IMAGE)
    assert next(feeds)["pixels"].shape == (1, 3, 8, 6)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        next(feeds)


@pytest.mark.parametrize(
    "inputs",
    [
        (),
        (TensorSpec("x", (1, 3, 6, 8)),),
        (TensorSpec("x", (2, 3, 8, 6)),),
        (TensorSpec("x", (1, 1, 8, 6)),),
        (TensorSpec("x", (1, 3, 8, 6), "float16"),),
        (TensorSpec("x", (1, 3, 8, 6)), TensorSpec("mask", (1, 4))),
    ],
)
def test_a_network_that_takes_no_such_image_is_refused_at_once(inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(InputError, match="1×3×8×6 float32") as caught:
        image_feeds(ImageSet(()), PREPROCESSING, Signature(inputs, ()))
    assert ".npz" in str(caught.value.remedy)
    assert all(str(spec) in str(caught.value) for spec in inputs)


# .npz files


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@given(
    samples=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "float16", "float64", "int64", "uint8", "bool"]),
    order=st.sampled_from(["C", "F"]),
    swapped=st.booleans(),
    folded=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_what_was_saved_comes_back_as_feeds(
    tmp_path_factory: pytest.TempPathFactory,
    samples: int,
    shape: tuple[int, ...],
    dtype: str,
    order: Any,
    swapped: bool,
    folded: bool,
) -> None:
    values = (np.random.RandomState(0).standard_normal((samples, *shape)) * 9).astype(dtype)
    stored = np.array(values.astype(values.dtype.newbyteorder()) if swapped else values, order=order)
    path = saved(tmp_path_factory.getbasetemp() / "feeds.npz", **{"a/b": stored})
    # A batch of one may be left out of the file.
    spec = TensorSpec("a/b", (1, *shape) if folded else shape, dtype)
    signature = Signature((spec,), ())
    feeds = load_feeds(path, signature)
    assert len(feeds) == samples
    for feed, expected in zip(feeds, values, strict=True):
        signature.check(feed)
        assert isinstance(feed["a/b"], np.ndarray)
        assert feed["a/b"].dtype.isnative
        assert (feed["a/b"].reshape(shape) == expected).all()


def test_several_inputs_are_kept_together(tmp_path: Path) -> None:
    image = np.random.RandomState(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    feeds = load_feeds(saved(tmp_path / "a.npz", where=np.arange(10).reshape(5, 2), image=image), TWO)
    assert [feed["where"].tolist() for feed in feeds] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    for feed in feeds:
        TWO.check(feed)


def test_a_mask_of_infinities_is_a_feed(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("mask", (2,)),), ())
    feeds = load_feeds(saved(tmp_path / "a.npz", mask=np.array([[0, -np.inf]], np.float32)), signature)
    assert feeds[0]["mask"].tolist() == [0, -np.inf]


def refusal(path: Path, signature: Signature = IMAGE) -> str:
    """The message, from little time and memory, with the path and with a remedy that describes the inputs."""
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(InputError) as caught:
            load_feeds(path, signature)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        assert time.process_time() - started < 5
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value)
    assert str(signature.inputs[0]) in str(caught.value.remedy)
    return str(caught.value)


IMAGES = np.zeros((2, 3, 8, 6), np.float32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "the arrays are none"),
        ({"image": IMAGES}, "the arrays are image"),
        ({"pixels": IMAGES, "more": IMAGES}, "the arrays are more, pixels"),
        ({"pixels": IMAGES[:, :, :, :5]}, "2×3×8×5 float32; expected N×1×3×8×6 or N×3×8×6 float32"),
        ({"pixels": IMAGES[0]}, "3×8×6 float32"),
        ({"pixels": np.float32(0)}, "scalar float32"),
        ({"pixels": IMAGES.astype(np.float64)}, "float64"),
        ({"pixels": IMAGES.astype(np.complex64)}, "complex64"),
        ({"pixels": IMAGES.astype("U3")}, "str"),
        ({"pixels": IMAGES[:0]}, "at least 1"),
        ({"pixels": np.where(np.arange(2)[:, None, None, None] == 1, np.float32("nan"), IMAGES)}, "pixels holds NaN in sample 1"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    assert said in refusal(saved(tmp_path / "a.npz", **arrays))


def test_inputs_with_different_numbers_of_samples(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", image=np.zeros((3, 3, 4, 4), np.float32), where=np.zeros((2, 2), np.int64))
    assert "image has 3, where has 2" in refusal(path, TWO)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_inside_is_not_run(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    assert "object" in refusal(saved(tmp_path / "a.npz", pixels=trap))
    assert not (tmp_path / "sprung").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["pixels"]
    assert (tmp_path / "sprung").exists(), "the trap does not work, so the test says nothing"


def test_what_is_no_npz_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.npz")
    assert "is no file" in refusal(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    assert "not a zip file" in refusal(tmp_path / "text.npz")
    (tmp_path / "empty.npz").touch()
    assert refusal(tmp_path / "empty.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    assert "is no file" in refusal(tmp_path / "pipe.npz")
    np.save(tmp_path / "single.npy", IMAGES)
    assert refusal(tmp_path / "single.npy")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, keep: float) -> None:
    path = saved(tmp_path / "a.npz", pixels=IMAGES)
    os.truncate(path, int(path.stat().st_size * keep))
    assert refusal(path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", pixels=IMAGES)
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    assert "CRC" in refusal(path)


def npy_header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(path: Path, content: bytes, name: str = "pixels.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def test_a_zip_that_declares_too_much(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.npz", npy_header((1 << 20, 3, 8, 6)))
    content = path.read_bytes()
    # The size after unpacking, in the central directory, where it is looked up.
    at = content.rindex(b"PK\1\2") + 24
    path.write_bytes(content[:at] + struct.pack("<I", 0xFFFFFFF0) + content[at + 4 :])
    assert refusal(path)
    # Two of them are more than is read at all.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", b"")
        archive.writestr("where.npy", b"")
    content = path.read_bytes()
    for at in (content.index(b"PK\1\2"), content.rindex(b"PK\1\2")):
        content = content[: at + 24] + struct.pack("<I", 0xFFFFFFF0) + content[at + 28 :]
    path.write_bytes(content)
    assert f"at most {LARGEST_NPZ:,}" in refusal(path, TWO)


@pytest.mark.parametrize("samples", [1 << 40, 1 << 62, 1 << 80, -1, 3])
def test_a_header_that_promises_more_than_follows(tmp_path: Path, samples: int) -> None:
    path = zipped(tmp_path / "a.npz", npy_header((samples, 3, 8, 6)) + bytes(IMAGES.nbytes))
    assert "bytes follow" in refusal(path)


def test_zeros_that_compress_well_are_not_unpacked_when_they_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("pixels.npy", "w") as entry:
        entry.write(npy_header((1 << 20, 64)))
        for _ in range(256):
            entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "1048576×64 float32" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(200),
        b"\x93NUMPY\x03\x00" + bytes(200),
        b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 64,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 64,
        b"\x93NUMPY\x01\x00\x40\x00" + b"__import__('os').abort()".ljust(64),
        npy_header((2, 3, 8, 6), "|O") + b"cos\nabort\n(tR.",
    ],
)
def test_a_mangled_array(tmp_path: Path, content: bytes) -> None:
    assert refusal(zipped(tmp_path / "a.npz", content))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_feeds_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = saved(tmp_path_factory.getbasetemp() / "damaged.npz", pixels=IMAGES)
    content = bytearray(path.read_bytes())
    near = st.one_of(st.integers(0, 200), st.integers(len(content) - 140, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(near, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    path.write_bytes(content)
    try:
        feeds = load_feeds(path, IMAGE)
    except InputError:
        return
    for feed in feeds:
        IMAGE.check(feed)


# Made up


signatures = st.lists(
    st.tuples(
        st.lists(st.integers(1, 5), max_size=4).map(tuple),
        st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]),
    ),
    min_size=1,
    max_size=3,
).map(lambda inputs: Signature(tuple(TensorSpec(f"in{i}", shape, dtype) for i, (shape, dtype) in enumerate(inputs)), ()))


@given(signature=signatures, seed=st.integers(0, 2**31))
@settings(deadline=None)
def test_made_up_feeds_fit_any_signature_and_are_the_same_each_time(signature: Signature, seed: int) -> None:
    named = adversarial_feeds(signature, seed)
    assert set(named) == {"zeros", "constant", "saturated", "noise", "tiny"}
    drawn = random_feeds(signature, 3, seed)
    for feed in [*named.values(), *drawn]:
        signature.check(feed)
        for array in feed.values():
            assert isinstance(array, np.ndarray)
            assert np.isfinite(array).all()
            assert array.dtype.kind == "f" or (array.min() >= 0 and array.max() <= 3)
    again = adversarial_feeds(signature, seed)
    assert all((again[name][key] == array).all() for name, feed in named.items() for key, array in feed.items())
    # More random feeds begin with the same ones.
    for feed, more in zip(drawn, random_feeds(signature, 5, seed), strict=False):
        assert all((more[key] == array).all() for key, array in feed.items())


def test_what_each_adversarial_feed_is() -> None:
    feeds = {name: feed["pixels"] for name, feed in adversarial_feeds(IMAGE).items()}
    assert (feeds["zeros"] == 0).all()
    assert (feeds["constant"] == 0.5).all()
    board = feeds["saturated"]
    assert (np.abs(board) == np.float32(2.64)).all()
    assert (board[..., 1:] == -board[..., :-1]).all()
    assert (board[..., 1:, :] == -board[..., :-1, :]).all()
    assert 0.7 < feeds["noise"].std() < 1.3
    assert 0.7e-4 < feeds["tiny"].std() < 1.3e-4
    assert not (adversarial_feeds(IMAGE, 1)["noise"]["pixels"] == feeds["noise"]).any()


def test_integers_are_small_enough_for_an_index() -> None:
    feeds = {name: feed["where"] for name, feed in adversarial_feeds(TWO).items()}
    assert feeds["zeros"].tolist() == [0, 0]
    assert feeds["constant"].tolist() == feeds["saturated"].tolist() == [1, 1]


def test_random_feeds_differ_and_any_seed_will_do() -> None:
    first, second = random_feeds(IMAGE, 2)
    assert not (first["pixels"] == second["pixels"]).any()
    assert random_feeds(IMAGE, 1, seed=-1)
    assert adversarial_feeds(IMAGE, seed=1 << 70)
    with pytest.raises(InputError, match="0 random feeds"):
        random_feeds(IMAGE, 0)


@pytest.mark.parametrize("dtype", ["str", "object", "complex64", "datetime64[s]", "bfloat16"])
def test_inputs_that_nothing_can_be_made_up_for(dtype: str) -> None:
    signature = Signature((TensorSpec("odd", (1,), dtype),), ())
    for make in (lambda: adversarial_feeds(signature), lambda: random_feeds(signature, 1)):
        with pytest.raises(InputError, match="odd"):
            make()
