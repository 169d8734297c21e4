"""What is held does not grow with the number of samples: counts instead of logits, rows of a file instead of the file."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.images import LabelledImage
from dtvit_deploy.calibration.npz import load_feeds
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import MOST_FLIPS, Tally
from scored import score

CLASSES = 1000
SIGNATURE = Signature((TensorSpec("image", (1, 3, 64, 64)),), ())


def test_ten_times_the_samples_are_counted_in_the_same_memory() -> None:
    def held(samples: int) -> int:
        stream = np.random.RandomState(0)
        tracemalloc.start()
        try:
            tally = Tally()
            for start in range(0, samples, 16):
                logits = stream.standard_normal((16, CLASSES)).astype(np.float32)
                wrong = logits.copy()
                wrong[0] = -wrong[0]  # one flip in sixteen
                tally.add(wrong, stream.randint(0, CLASSES, 16), logits, [f"{start + index}" for index in range(16)])
            assert tally.result().samples == samples
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = held(1600), held(16_000)
    assert many - few < 200 * MOST_FLIPS * 4  # flips, which are bounded; the logits alone are 58 MB more
    assert many < 3 << 20


def test_counting_by_turns_is_counting_at_once() -> None:
    stream = np.random.RandomState(1)
    logits, reference = stream.standard_normal((2, 67, 9))
    labels = stream.randint(0, 9, 67)
    names = [f"{index}" for index in range(67)]
    tally = Tally()
    for start in range(0, 67, 10):
        turn = slice(start, start + 10)
        tally.add(logits[turn], labels[turn], reference[turn], names[turn])
    assert tally.result() == score(logits, labels, reference, names)


def test_of_too_many_flips_the_surest_are_kept_in_order_and_all_are_counted() -> None:
    count = MOST_FLIPS + 200
    reference = np.stack([np.array([float((index * 7919) % count + 1), 0.0]) for index in range(count)])
    found = score(-reference, None, reference, [f"{index}" for index in range(count)])
    assert found.flipped == count
    assert len(found.flips) == MOST_FLIPS
    assert min(flip.margin for flip in found.flips) == 201
    places = [int(flip.image) for flip in found.flips]
    assert places == sorted(places)


def test_a_million_images_take_little_more_than_their_names() -> None:
    tracemalloc.start()
    try:
        images = [LabelledImage(f"/data/val/n0144{index:04d}/ILSVRC2012_val_{index:08d}.JPEG", 3) for index in range(10_000)]
        assert tracemalloc.get_traced_memory()[0] / len(images) < 200
        assert images[7].path == Path("/data/val/n01440007/ILSVRC2012_val_00000007.JPEG")
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_a_file_of_feeds_is_never_in_memory_as_a_whole(compression: int, tmp_path: Path) -> None:
    """In a process of its own, by what the system says that it held at most."""
    path, samples = tmp_path / "feeds.npz", 1500  # 74 MB
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive, archive.open("image.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": (samples, 3, 64, 64)})
        for index in range(samples):
            entry.write(np.full((3, 64, 64), index, np.float32).tobytes())
    code = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy\nfrom dtvit_deploy.calibration.npz import load_feeds\n"
        "from dtvit_deploy.artifacts.signature import Signature, TensorSpec\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)\n"
        "before = peak()\nfeeds = load_feeds(Path(sys.argv[1]), Signature((TensorSpec('image', (1, 3, 64, 64)),), ()))\n"
        "assert [int(feed['image'][0, 0, 0, 0]) for feed in feeds] == list(range(len(feeds)))\n"
        "assert int(feeds[-1]['image'].max()) == len(feeds) - 1\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 24 << 20


def test_feeds_are_read_in_any_order_and_a_slice_reads_the_same_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", image=np.arange(5 * 3 * 64 * 64, dtype=np.float32).reshape(5, 3, 64, 64))
    feeds = load_feeds(tmp_path / "feeds.npz", SIGNATURE)
    some = feeds[1:4]
    del feeds
    assert [int(feed["image"].flat[0]) // (3 * 64 * 64) for feed in (some[2], some[0], *some)] == [3, 1, 1, 2, 3]
    with pytest.raises(IndexError):
        some[3]
    changed = some[0]["image"]
    changed[:] = -1  # a caller's own
    assert some[0]["image"].min() >= 0


def test_a_flipped_bit_in_feeds_is_refused_before_any_is_used(tmp_path: Path) -> None:
    path = tmp_path / "feeds.npz"
    np.savez(path, image=np.ones((5, 3, 64, 64), np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="CRC"):
        load_feeds(path, SIGNATURE)
