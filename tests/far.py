"""Several devices at once, each a namespace of this machine at the far end of a line of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devices import Board
from sshd import Sshd, required
from wire import Wire, wire


@dataclass
class Far:
    """One of them."""

    line: Wire
    server: Sshd
    board: Board

    def described(self, name: str) -> str:
        """What an inventory says of it besides its name; they all have the tag ``far``."""
        return f'tags = ["far"]\naddress = "ssh://{name}"\npython = "{self.board.python}"'


@contextlib.contextmanager
def far_devices(folder: Path, names: tuple[str, ...], *, first: int, delay: float, loss: float) -> Iterator[dict[str, Far]]:
    """Devices behind lines, and one configuration of the client for all of them, ``folder/client``; skips where there can be none.

    Args:
        names: of each, by which the client finds it.
        first: number of the first line; tests that run side by side take different ones.
        delay, loss: of each line, each way.
    """
    required()
    folder.mkdir()
    with contextlib.ExitStack() as held:
        found = {}
        for number, name in enumerate(names, first):
            line = held.enter_context(wire(number, delay=delay, loss=loss, seed=number))
            server = Sshd(folder / name, host=line.there, inside=line.inside)
            server.prepare()
            server.configure(alias=name)
            held.callback(server.stop)
            server.start()
            found[name] = Far(line, server, Board(folder / f"board-{name}"))
        (folder / "client").write_text("".join(one.server.config.read_text() for one in found.values()))
        yield found
