"""A way to a device that is found again once it is lost: the next command connects anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from typing_extensions import Self

from dtvit_deploy.devices.transport import Finished, LostError, Transport
from dtvit_deploy.errors import MissingError


class Reconnecting:
    """A `Transport` within a ``with`` block, over one connection after the other.

    Args:
        name: the device's, for messages.
        connect: makes a connection, which is closed with its own block.
    """

    def __init__(self, name: str, connect: Callable[[], AbstractContextManager[Transport]]) -> None:
        self._name, self._connect = name, connect
        self._held = contextlib.ExitStack()
        self._transport: Transport | None = None
        self._stood = False

    @property
    def name(self) -> str:
        return self._name

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            InputError, MissingError: as ``connect`` does.
        """
        self._current()
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop()

    def run(self, command: Sequence[str], *, stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Finished:
        """As `Transport.run`."""
        with self._dropping():
            return self._current().run(command, stdin=stdin, timeout=timeout)

    @contextlib.contextmanager
    def following(self, command: Sequence[str]) -> Iterator[BinaryIO]:
        """As `Transport.following`."""
        with self._dropping(), self._current().following(command) as stream:
            yield stream

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except LostError:
            self._drop()
            raise

    def _current(self) -> Transport:
        """The connection, made where there is none. A device that was there and cannot be reached now is lost, and may come again."""
        if self._transport is None:
            try:
                self._transport = self._held.enter_context(self._connect())
            except MissingError as error:
                if self._stood:
                    raise LostError(str(error), remedy=error.remedy) from error
                raise
            self._stood = True
        return self._transport

    def _drop(self) -> None:
        self._transport = None
        self._held.close()
