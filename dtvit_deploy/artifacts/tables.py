"""Tables of a recipe: structs that are read strictly, and say by examples what a key may hold where its default shows nothing."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table. Its ``__post_init__`` raises ValueError, to which msgspec adds the key (see `dtvit_deploy.recipe.reading`)."""


def like(*examples: object) -> msgspec.Meta:
    """What a key may hold, for ``docs/recipe.md`` and ``init``."""
    return msgspec.Meta(examples=list(examples))


def refuse_repeats(what: str, values: Any) -> None:
    """Refuse a list that holds something twice.

    Raises:
        ValueError: names it.
    """
    if repeated := sorted({str(value) for value in values if list(values).count(value) > 1}):
        raise ValueError(f"Expected each {what} once, got {', '.join(repeated)} again")
