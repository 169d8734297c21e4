"""The agent's commands, as a host calls them over its connection: ``PYTHON agent.zip COMMAND …``.

What is answered is on standard output; a failure is one line of JSON, the last of standard error, and its exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from dtvit_deploy.errors import DeployError

DEFECT = 70
"""Exit code of what should not happen."""


def main() -> None:
    """Carry out a command, and end the process."""
    sys.dont_write_bytecode = True  # beside the device's own packages, say; processes that are started from here do not either
    sys.path[:] = map(os.path.abspath, sys.path)  # processes that are started from here work in other folders
    sys.exit(carry_out(sys.argv[1:]))


def carry_out(words: Sequence[str]) -> int:
    """A command's exit code."""
    try:
        if not words or words[0] not in COMMANDS:
            raise DeployError(f"the agent has no command {' '.join(words)!r}", remedy=f"commands: {', '.join(COMMANDS)}")
        COMMANDS[words[0]](*words[1:])
        sys.stdout.flush()
    except DeployError as error:
        if words[:1] == ["bundle"]:  # which a person calls
            sys.stderr.write(f"{error}" + (f"\n{error.remedy}" if error.remedy else "") + "\n")
            return error.exit_code
        return _say(str(error), error.remedy, error.exit_code)
    except BrokenPipeError:  # nobody listens any more
        return 1
    except Exception as error:
        traceback.print_exception(error)
        return _say(f"{type(error).__name__}: {error}", None, DEFECT)
    return 0


def _put(sha256: str, size: str, offset: str) -> None:
    from dtvit_deploy.agent.store import Store
    from dtvit_deploy.formats.job.job import Blob

    Store.here().put(Blob(sha256=sha256, bytes=int(size)), int(offset), sys.stdin.buffer)


def _begin(who: str, waits: str, request: str) -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    _answer(jobs.begin(Store.here(), sys.stdin.buffer.read(), who, wait=waits == "wait", first=request == "new"))


def _follow(name: str, offset: str) -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    jobs.follow(Store.here(), name, int(offset))


def _stop(name: str) -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    _answer({"stopped": jobs.stop(Store.here(), name)})


def _end() -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    _answer({"ended": jobs.stop_all(Store.here())})


def _forget(name: str) -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    jobs.forget(Store.here(), name)


def _log(name: str) -> None:
    from dtvit_deploy.agent import jobs
    from dtvit_deploy.agent.store import Store

    _answer({"log": jobs.last_words(Store.here(), name)})


def _clean() -> None:
    from dtvit_deploy.agent.keeping import clean
    from dtvit_deploy.agent.lease import give_up
    from dtvit_deploy.agent.store import Store

    freed = clean(Store.here())
    give_up()
    _answer({"freed": freed})


def _bundle(folder: str, identity: str) -> None:
    from pathlib import Path

    from dtvit_deploy.agent.bundle import do_bundle

    do_bundle(Path(folder).absolute(), identity)


def _holder() -> None:
    from dtvit_deploy.agent.lease import holder

    found = holder()
    _answer({"held": found is not None, "by": str(found or "")})


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _say(message: str, remedy: str | None, code: int) -> int:
    sys.stderr.write("\n" + json.dumps({"error": message, "remedy": remedy, "exit_code": code}) + "\n")
    return code


COMMANDS: Mapping[str, Callable[..., None]] = {
    "put": _put,
    "begin": _begin,
    "follow": _follow,
    "stop": _stop,
    "end": _end,
    "forget": _forget,
    "log": _log,
    "clean": _clean,
    "bundle": _bundle,
    "holder": _holder,
}
"""What a host may ask."""

if __name__ == "__main__":
    main()
