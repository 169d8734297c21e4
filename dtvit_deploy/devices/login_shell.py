"""A command as one line that every login shell passes on unchanged, and its answer, told apart from what that shell says itself.

sshd hands a line to whatever shell the user has there. Quotes do not mean the same to all of them (csh reads ``!`` within single ones, fish
a backslash), so the line holds nothing but letters, digits and backslashes besides a fixed call of ``/bin/sh``, which is told the rest by
their octal codes. A start-up file may print a greeting where it should not: the answer begins behind a mark of random digits, and the exit
status stands behind it too, since the ssh client's own status does not say whose it is.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence
from typing import BinaryIO

from dtvit_deploy.devices.exchange import Finished

_RUN = 'eval "$(printf %b "$1")"'
"""What ``/bin/sh -c`` runs: its first argument, decoded; ``%b`` and its octal codes are POSIX."""
_NOISE = 1 << 20
"""Bytes that a login shell may say before the command begins."""


class Line:
    """A command, as the line for the login shell; for one use."""

    def __init__(self, command: Sequence[str]) -> None:
        mark = secrets.token_hex(16)
        self._mark = f"\n{mark}\n".encode()
        self._status = re.compile(rf"\n{mark} (\d{{1,3}})\n".encode())
        # The words become the shell's own arguments: as such the first is neither an assignment nor a reserved word of its grammar.
        script = (
            f"set -- {shlex.join(command)}; printf '\\n%s\\n' {mark}; printf '\\n%s\\n' {mark} >&2;"
            f""" "$@"; printf '\\n%s %d\\n' {mark} "$?" >&2"""
        )
        codes = "".join(f"\\0{byte:03o}" for byte in script.encode("utf-8", "surrogateescape"))
        self.text = shlex.join(["/bin/sh", "-c", _RUN, "sh", codes])

    def answer(self, done: Finished) -> Finished | None:
        """What the command itself said, of all that came; None where it did not come to its end, or never began."""
        found = list(self._status.finditer(done.stderr))
        _, began, answer = done.stdout.partition(self._mark)
        if not found or not began:
            return None
        before = done.stderr[: found[-1].start()]
        return Finished(int(found[-1][1]), answer, before.rpartition(self._mark)[2])

    def was_cut(self, done: Finished) -> bool:
        """Whether a command without an answer was lost on the way, or ended by somebody; else there is a shell that runs none.

        255 is the client's own status, less than 0 the signal that ended the client; of more than 128 a shell says that it was ended so.
        """
        return done.returncode < 0 or done.returncode > 128 or self._mark in done.stdout

    def begins(self, stream: BinaryIO) -> bool:
        """Read what comes before the command's own output; False where the stream ends first, or says too much."""
        said = 0
        while said < _NOISE and (line := stream.readline(_NOISE)):
            if line == self._mark[1:]:
                return True
            said += len(line)
        return False
