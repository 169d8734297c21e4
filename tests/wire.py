"""A device at the far end of a bad line: a network namespace, and a cable whose delay and loss are known, and which can be pulled.

Each end is a TUN device, and a process of ours carries the packets from one to the other. The kernel's own netem would do the same; it is
a module that many kernels of virtual machines lack.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_TUN = Path("/dev/net/tun")
_SETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Linux, ``linux/if_tun.h``."""
_LARGEST = 1 << 16


class Wire:
    """The cable: each packet arrives after ``delay`` seconds, or with the probability ``loss`` never.

    Attributes:
        here, there: the addresses of its ends.
        inside: words before a program's own, which run it at the far end.
        pulled: nothing is carried while it is set.
    """

    def __init__(self, number: int, ends: tuple[int, int], delay: float, loss: float, seed: int) -> None:
        self.here, self.there = f"10.217.{number}.1", f"10.217.{number}.2"
        self.inside = ("ip", "netns", "exec", _namespace(number))
        self.delay, self.loss, self.pulled = delay, loss, False
        self.carried = self.lost = 0
        self._ends, self._chance = ends, random.Random(seed)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def end(self) -> None:
        os.write(self._stopped, b"x")
        self._thread.join()
        for file in (self._stop, self._stopped, *self._ends):
            os.close(file)

    def _carry(self) -> None:
        far = dict(zip(self._ends, reversed(self._ends), strict=True))
        under_way: list[tuple[float, int, int, bytes]] = []
        with selectors.DefaultSelector() as ready:
            for file in (self._stop, *self._ends):
                ready.register(file, selectors.EVENT_READ)
            while True:
                next_in = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
                for key, _ in ready.select(next_in):
                    if key.fd == self._stop:
                        return
                    packet = os.read(key.fd, _LARGEST)
                    if self.pulled or self._chance.random() < self.loss:
                        self.lost += 1
                    else:
                        self.carried += 1
                        heapq.heappush(under_way, (time.monotonic() + self.delay, self.carried, far[key.fd], packet))
                while under_way and under_way[0][0] <= time.monotonic():
                    *_, end, packet = heapq.heappop(under_way)
                    with contextlib.suppress(OSError):
                        os.write(end, packet)


@contextlib.contextmanager
def wire(number: int, *, delay: float = 0.0, loss: float = 0.0, seed: int = 0) -> Iterator[Wire]:
    """A namespace at the end of a wire; skips where that cannot be made.

    Args:
        number: from 0 to 255; tests that run side by side take different ones.
        delay: seconds that each packet takes each way.
        loss: share of packets that are lost each way.
    """
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None or not _TUN.exists():
        pytest.skip("a network of its own needs root, iproute2 and /dev/net/tun")
    name = _namespace(number)
    with contextlib.ExitStack() as held:
        _ip("netns", "del", name)  # of a run that was killed
        if not _ip("netns", "add", name):
            pytest.skip("network namespaces cannot be made here")
        held.callback(_ip, "netns", "del", name)
        near, far = f"{name}-a", f"{name}-b"
        found = Wire(number, (_tun(near), _tun(far)), delay, loss, seed)
        held.callback(found.end)
        made = [
            _ip("link", "set", far, "netns", name),
            _ip("addr", "add", found.here, "peer", found.there, "dev", near),
            _ip("link", "set", near, "up"),
            _ip("-n", name, "addr", "add", found.there, "peer", found.here, "dev", far),
            _ip("-n", name, "link", "set", far, "up"),
            _ip("-n", name, "link", "set", "lo", "up"),
        ]
        if not all(made):
            pytest.skip("network namespaces cannot be connected here")
        yield found


def _namespace(number: int) -> str:
    return f"dtvit-w{number}"


def _tun(name: str) -> int:
    file = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(file, _SETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return file


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0
