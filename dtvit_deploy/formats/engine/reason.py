"""What can keep an engine from loading."""

from __future__ import annotations

import enum

import msgspec

AGAIN = "export it again, or fetch a whole copy of its folder and of the manifest"


class Cause(enum.Enum):
    """What keeps an engine from loading, the most fundamental first: of several, the first is the one to mend first."""

    JOB = "not built yet"
    EMPTY = "empty file"
    NOT_AN_ENGINE = "not an engine"
    TRUNCATED = "truncated"
    ALTERED = "altered"
    NO_MANIFEST = "no manifest"
    UNREADABLE_MANIFEST = "unreadable manifest"
    OTHER_MANIFEST = "manifest of another engine"
    LINEAGE = "lineage that leads elsewhere"
    OTHER_LIBRARY = "for the other library"
    NOT_INSTALLED = "library not installed"
    VERSION = "built by another version"
    PLATFORM = "built for another platform"
    NO_GPU = "no GPU"
    CAPABILITY = "built for another GPU"
    DRIVER = "driver too old"
    MEMORY = "not enough GPU memory"
    REFUSED = "refused by the library"


UNVOUCHED = frozenset({Cause.NO_MANIFEST, Cause.UNREADABLE_MANIFEST, Cause.OTHER_MANIFEST, Cause.LINEAGE})
"""The engine may well be sound, but nobody says so. That it was altered is known, and no trust mends it."""


class Reason(msgspec.Struct, frozen=True):
    """One thing that keeps it from loading: what is the case, what loading needs instead, and what to do."""

    cause: Cause
    found: str
    needed: str
    remedy: str
