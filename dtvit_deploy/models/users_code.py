"""A factory, a module's forward and whatever they import are a user's code: it runs with the user's rights, and may end as it likes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.process.ended import Ended


@contextlib.contextmanager
def users_code(what: str, remedy: str = "--debug shows where", passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Whatever ends the block becomes one message, ``what`` first.

    ``sys.exit()`` too: a network that says so has not done what the command was to do, and the command must not say that all went well.
    What the user or the system asked for, an interruption, stays what it is.

    Args:
        what: was done, as the beginning of the message.
        remedy: of an error.
        passing: what the caller explains better.

    Raises:
        InputError: the block raised anything else than an error of this package.
    """
    ours: tuple[type[BaseException], ...] = (DeployError, KeyboardInterrupt, Ended, *passing)
    try:
        yield
    except BaseException as error:
        if isinstance(error, ours):
            raise
        if not isinstance(error, Exception):
            remedy = f"{type(error).__name__} would end the program before it is done: take that out of the network's code"
        raise InputError(f"{what}: {type(error).__name__}{f': {error}' if str(error) else ''}", remedy=remedy) from error
