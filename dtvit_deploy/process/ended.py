"""A request to end, which is no error of anybody's."""

from __future__ import annotations


class Ended(BaseException):
    """A request to end, as an exception. Not SystemExit: what runs a user's module takes that for the module's own."""
