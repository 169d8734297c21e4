"""A Python process of its own: for what must start fresh, or might crash, or must not be believed until it was tried."""

from __future__ import annotations

import json
import sys

BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); import dtvit_deploy; "
"""What each of them does first, by which they are known in a list of processes."""


def child_command(code: str, *arguments: str) -> list[str]:
    """The command that runs ``code`` with this process's own import path; ``sys.argv[1:]`` are the arguments.

    Not with the child's own path: that begins with the working folder, where any file may have a package's name and would be run. This
    package comes first, since it keeps the libraries that ``code`` imports from reporting home.
    """
    isolated = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]  # which ignores the variable that says so
    return [sys.executable, *isolated, "-c", BEGIN + code, json.dumps(sys.path), *arguments]
