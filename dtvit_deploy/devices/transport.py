"""How commands reach a device: the one protocol that whoever sends jobs is written against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from dtvit_deploy.devices.exchange import ANSWER, Finished, TooLongError, exchange, followed
from dtvit_deploy.errors import DeployError, InputError, MissingError

__all__ = ["Finished", "LostError", "Shell", "Transport"]


_LONGEST = 16 << 10
"""Letters of a command: systems bound one word at 128 KiB, and a way to the device may spell a letter in twenty bytes."""


class LostError(DeployError):
    """The connection to a device went away, or it does not answer any more; whoever asked may connect again."""

    exit_code = MissingError.exit_code


class Transport(Protocol):
    """Runs commands on a device.

    A command is a list: a program of the device and its arguments, which reach it as they are, whatever they hold.
    """

    @property
    def name(self) -> str:
        """The device's, for messages: ``ssh://me@orin``."""
        ...

    def run(self, command: Sequence[str], *, stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Finished:
        """Run a command to its end.

        Args:
            stdin: what it is given on standard input; a file is read piece by piece.
            timeout: seconds until it is ended here (what it has started there may go on); None: it has the time that it takes.

        Returns:
            Its exit status, its standard output without anything that a login shell says before, and the end of its standard error.

        Raises:
            LostError: the connection went away before the command ended, or the time is up.
            InputError: it answered more than 16 MiB, or a word of the command holds a NUL, or it is too long.
        """
        ...

    def following(self, command: Sequence[str]) -> AbstractContextManager[BinaryIO]:
        """The standard output of a command that runs long, as it comes, until the command or the block ends.

        The end of file tells nothing of why it came: the connection may be lost. The command's standard input stays open as long as
        somebody follows; one that reads there finds the end of file when nobody does any more. Its standard error is dropped.

        Raises:
            LostError: there is no connection any more.
        """
        ...


class Shell:
    """Runs the commands on this machine, in a folder: a device that needs no network, for what is tried without one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        return f"this machine in {self.folder}"

    def run(self, command: Sequence[str], *, stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Finished:
        """As `Transport.run`; a program that is not there gives the status 127, and one that may not run 126, as shells do."""
        try:
            return exchange(command_words(command), stdin=stdin, timeout=timeout, folder=self.folder)
        except (FileNotFoundError, PermissionError) as error:
            return Finished(126 + isinstance(error, FileNotFoundError), b"", f"{command[0]}: {error.strerror}\n".encode())
        except TimeoutError as error:
            raise LostError(f"{self.name} has not answered within {timeout:g} s") from error
        except TooLongError as error:
            raise too_long(self.name, command) from error

    @contextlib.contextmanager
    def following(self, command: Sequence[str]) -> Iterator[BinaryIO]:
        """As `Transport.following`.

        Raises:
            MissingError: the program is not there, or may not be run.
        """
        with contextlib.ExitStack() as held:
            try:
                stream = held.enter_context(followed(command_words(command), folder=self.folder))
            except (FileNotFoundError, PermissionError) as error:
                raise MissingError(f"{self.name}: {command[0]} cannot be run: {error.strerror}") from error
            yield stream


def command_words(command: Sequence[str]) -> list[str]:
    """The command, where it can be one.

    Raises:
        InputError: it has no words, one of them holds a NUL or half a character, or they are too long.
    """
    if not command or any("\0" in word or not _encodable(word) for word in command) or sum(map(len, command)) > _LONGEST:
        raise InputError(
            f"this is no command: {' '.join(command)!a:.200}",
            remedy=f"give it words without NUL, of {_LONGEST} letters at most in all; data go to its standard input",
        )
    return list(command)


def _encodable(word: str) -> bool:
    try:
        word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def too_long(name: str, command: Sequence[str]) -> InputError:
    """Of a device that answers without end."""
    return InputError(
        f"{name} answered more than {ANSWER >> 20} MiB to `{command[0]}`, which is no answer to anything that it was asked",
        remedy="see what answers there: nothing of it was used",
    )
