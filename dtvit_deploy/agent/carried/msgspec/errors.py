"""msgspec's errors; those of decoding are each a `ValueError`."""


class MsgspecError(Exception):
    """Base of all."""


class DecodeError(MsgspecError, ValueError):
    """Not JSON."""


class ValidationError(DecodeError):
    """JSON, and not of the type."""
