"""What is wrong with a value, for people who know TOML and no Python: ``expected a number of at most 600``."""

from __future__ import annotations

import re

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "date": "a date",
    "time": "a time",
    "datetime": "a date and time",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def in_words(told: str) -> str:
    """What msgspec tells, ``Expected `float` <= 600.0``, in a person's words; anything else as it is."""
    told = re.sub(r"`([a-z]+(?: \| [a-z]+)*)`", lambda found: _kinds(found[1]) or found[0], told)
    return re.sub(r"( of length)? (>=|<=|>|<) (-?\d[\d.e+-]*)(?=$|,)", _bounded, told)


def _kinds(said: str) -> str:
    """Types in words, empty where one of them is none of msgspec's: it is a key then."""
    names = said.split(" | ")
    if not all(name in _KINDS for name in names):
        return ""
    return " or ".join(_KINDS[name] for name in names if name != "null" or len(names) == 1)


def _bounded(found: re.Match[str]) -> str:
    length, sign, number = found.groups()
    whole = int(number) if re.fullmatch(r"-?\d+", number) else float(number)
    if isinstance(whole, float) and whole.is_integer():
        whole = int(whole)
    return f"{length or ' of'} {_BOUNDS[sign]} {whole:,}"
