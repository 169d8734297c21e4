"""What a device lacks, and what is damaged there or on the way, is told, or made good."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.remote.asking import Asked
from dtvit_deploy.remote.device import Device
from jobs import answers, asked_for, perform

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

pytest.importorskip("openvino")


class TestWhatIsDamaged:
    def test_an_agent_is_brought_again(self, board: Board, asked: Asked) -> None:
        perform(board.device(), asked)
        (archive,) = board.root.glob("agent/*.zip")
        archive.write_bytes(archive.read_bytes()[:-100])
        board.transport.sent.clear()
        assert board.device().holder() == ""
        assert board.transport.moved("bring") > 100_000

    def test_a_blob_there_is_sent_again(
        self, tmp_path: Path, board: Board, asked: Asked, exported: list[Artifact], feeds: list[Feeds]
    ) -> None:
        expected = answers(perform(board.device(), asked))
        for blob in board.root.glob("blobs/*"):
            content = bytearray(blob.read_bytes())
            content[len(content) // 2] ^= 1
            blob.write_bytes(content)
        again = asked_for(tmp_path, exported[:3:2], feeds, token="again")
        assert answers(perform(board.device(), again)) == expected

    def test_an_artefact_that_changes_on_the_way_is_refused(self, board: Board, asked: Asked) -> None:
        name = next(iter(asked.job.subjects[0].files.values()))
        content = bytearray(asked.blobs[name].read_bytes())
        content[100] ^= 1
        with pytest.raises(InputError, match="was altered on its way"):
            board.device().perform(asked.job, asked.blobs | {name: bytes(content)})  # type: ignore[arg-type]
        assert not list(board.root.glob(f"blobs/{name}*"))
        assert board.workers() == []

    @pytest.mark.parametrize("where", [30, -30, 2000])
    def test_results_there_are_refused_and_done_anew_by_the_next_call(self, board: Board, asked: Asked, where: int) -> None:
        expected = answers(perform(board.device(), asked))
        (path,) = board.root.glob("jobs/*/results")
        content = bytearray(path.read_bytes())
        content[where] ^= 1
        path.write_bytes(content)
        assert answers(perform(board.device(), asked)) == expected  # the worker there sees it itself


class TestWhatIsMissing:
    def test_python(self, tmp_path: Path, board: Board, asked: Asked) -> None:
        with pytest.raises(MissingError, match="nopython cannot be run"):
            perform(Device(board.transport, python="nopython"), asked)

    def test_a_python_that_is_new_enough(self, tmp_path: Path, board: Board, asked: Asked) -> None:
        (board.folder / "old.py").write_text(
            "import sys\nsys.version_info, sys.version = (3, 8, 10), '3.8.10 (default)'\n"
            "code, sys.argv = sys.argv[2], ['-c', *sys.argv[3:]]\nexec(code)\n"
        )
        old = board.folder / "old"
        old.write_text(board.python.read_text().replace('"$@"', f'{board.folder / "old.py"} "$@"'))
        old.chmod(0o700)
        with pytest.raises(MissingError, match=r"is Python 3\.8\.10, and the agent needs 3\.10"):
            perform(Device(board.transport, python=str(old)), asked)

    @pytest.mark.parametrize("package", ["numpy", "onnxruntime", "openvino"])
    def test_a_package(self, tmp_path: Path, board: Board, exported: list[Artifact], feeds: list[Feeds], package: str) -> None:
        asked = asked_for(tmp_path, exported[:2], feeds)
        (board.folder / "packages" / package).unlink()
        results = perform(board.device(), asked)
        failed = 1 if package == "openvino" else 0
        with pytest.raises(MissingError, match={"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(package, package)):
            list(results.parts(failed))
        if package != "numpy":
            assert len(list(results.parts(1 - failed))) == 6

    def test_a_home(self, board: Board, asked: Asked) -> None:
        board.python.write_text(board.python.read_text().replace("XDG_CACHE_HOME=", "HOME=nowhere XDG_CACHE_HOME=relative OLD="))
        with pytest.raises(MissingError, match="there is no home folder"):
            perform(board.device(), asked)

    def test_room(self, board: Board, asked: Asked) -> None:
        board.python.write_text(board.python.read_text().replace("exec ", "ulimit -f 64\nexec "))  # blocks: less than the agent
        with pytest.raises(MissingError, match="File too large"):
            perform(board.device(), asked)
        assert not list(board.root.rglob("*.zip"))

    def test_a_folder_that_is_nobody_elses(self, board: Board, asked: Asked) -> None:
        perform(board.device(), asked)
        (board.root / "agent").chmod(0o777)
        with pytest.raises(MissingError, match=r"others can write .*, and what they put there would be run"):
            perform(board.device(), asked)
