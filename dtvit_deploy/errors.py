"""Every failure that this package expects, as one small tree.

    DeployError
    ├── InputError        the input or the options are wrong                  exit code 2
    │   ├── CorruptError      a file is not what its manifest says
    │   └── MismatchError     it is for another version, or another device
    └── MissingError      something needed is not installed or not here       exit code 3

A failed gate is no error: it is a verdict, and exit code 1. This file imports nothing, not even from ``__future__``: with ``python -m`` it
is read while any file of the current folder would be taken for that (see ``__main__``).
"""


class DeployError(Exception):
    """An expected failure: what was asked and what exists in ``str(error)``, what to do next in ``remedy``."""

    exit_code = 2

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        """For another process: a subclass whose ``__init__`` takes something else than the message is itself again there."""
        return _rebuilt, (type(self), self.args, self.__dict__)


class InputError(DeployError):
    """The input or the options are wrong."""

    exit_code = 2


class CorruptError(InputError):
    """A file is not what its own manifest says."""


class MismatchError(InputError):
    """An artefact is for another version, or for another device, than what is here."""


class MissingError(DeployError):
    """Something that is needed is not installed or not present on this machine."""

    exit_code = 3


def _rebuilt(kind: type[DeployError], args: tuple[object, ...], attributes: dict[str, object]) -> DeployError:
    """The error that another process raised."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error
