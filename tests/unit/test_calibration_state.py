"""How far a calibration has come is read back as it was written, and nothing else is believed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dtvit_deploy.calibration.state import read_state, write_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATE: dict[str, NDArray[Any]] = {"counts": np.arange(12).reshape(3, 4), "low": np.array([-1, np.inf, 0], np.float32)}


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(f"{name}.npy", content)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_state(tmp_path / "state", STATE)
    found = read_state(tmp_path / "state", STATE)
    assert found.keys() == STATE.keys()
    assert all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in STATE.items())


def test_a_later_state_replaces_the_earlier_one(tmp_path: Path) -> None:
    for factor in (1, 2):
        write_state(tmp_path / "state", {name: array * factor for name, array in STATE.items()})
    assert np.array_equal(read_state(tmp_path / "state", STATE)["counts"], STATE["counts"] * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


class Exploding:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


COUNTS, LOW = npy(STATE["counts"]), npy(STATE["low"])
HUGE = COUNTS.replace(b"(3, 4)", b"(9" + b"9" * 9 + b", 9)")
FORTRAN = npy(np.asfortranarray(STATE["counts"]))
VERSION_2 = b"\x93NUMPY\x02\x00" + COUNTS[8:]


@pytest.mark.parametrize(
    "files",
    [
        {"counts": COUNTS},
        {"counts": COUNTS, "low": LOW, "high": LOW},
        {"counts": npy(STATE["counts"].astype(np.int32)), "low": LOW},
        {"counts": npy(STATE["counts"].T.copy()), "low": LOW},
        {"counts": FORTRAN, "low": LOW},
        {"counts": VERSION_2, "low": LOW},
        {"counts": COUNTS[:-1], "low": LOW},
        {"counts": COUNTS + b"\0", "low": LOW},
        {"counts": HUGE, "low": LOW},
        {"counts": pickle.dumps(Exploding()), "low": LOW},
        {"counts": b"\x93NUMPY\x01\x00" + b"\xff" * 100, "low": LOW},
        {"counts": b"", "low": LOW},
    ],
    ids=["missing", "more", "type", "shape", "order", "version", "short", "long", "huge", "pickle", "header", "empty"],
)
def test_what_is_not_such_a_state_is_refused_and_runs_nothing(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"."):
        read_state(archive(tmp_path / "state", **files), STATE)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"not a zip file", b"\0" * 100_000])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_state(tmp_path / "state", STATE)


def test_a_small_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "state", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("low.npy", LOW)
        with zipped.open("counts.npy", "w", force_zip64=True) as stream:
            stream.write(COUNTS)
            for _ in range(3):
                stream.write(bytes(1 << 20))
    assert (tmp_path / "state").stat().st_size < 8192
    with pytest.raises(ValueError, match="cut off, or goes on"):
        read_state(tmp_path / "state", STATE)


def test_every_single_byte_of_it_counts(tmp_path: Path) -> None:
    """A byte changed on the disk is found by the archive, unless it is in what nothing is read from."""
    write_state(tmp_path / "state", STATE)
    whole = (tmp_path / "state").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "state").write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found = read_state(tmp_path / "state", STATE)
        except ValueError:
            continue
        assert all(np.array_equal(found[name], array) for name, array in STATE.items())
