"""Figures as text are never rounder than they are, and text from hostile places is one visible line."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.report import figures


@given(st.floats(0, 1))
def test_only_a_whole_share_reads_100_percent(value: float) -> None:
    assert (figures.share(value) == "100%") == (value == 1)
    assert abs(float(figures.share(value).rstrip("%")) - value * 100) <= 0.0051


def test_a_share_close_to_the_whole_gets_the_digits_that_tell() -> None:
    assert figures.share(0.998) == "99.80%"
    assert figures.share(0.99999) == "99.999%"
    assert figures.share(None) == "–"


def test_a_cosine_close_to_one_is_not_called_one() -> None:
    assert figures.cosine(1.0) == "1.000000"
    assert figures.cosine(1 - 3e-9) == "0.999999997"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_survives_json_and_reads_the_same_afterwards(value: float) -> None:
    again = msgspec.json.decode(msgspec.json.encode(figures.storable(value)), type=float)
    assert figures.number(again) == figures.number(figures.storable(value))
    assert figures.infinite(again) == figures.infinite(value)


def test_nan_is_stored_without_a_sign_since_processors_differ_in_it() -> None:
    assert figures.storable(math.nan) == figures.storable(math.copysign(math.nan, -1)) == figures.storable(math.inf)


def test_infinity_is_shown_as_such_wherever_it_stands() -> None:
    for value in (math.inf, figures.storable(math.inf), figures.storable(math.nan)):
        assert figures.number(value) == figures.decibel(value) == figures.milliseconds(value) == "∞"
    assert figures.decibel(-math.inf) == "−∞"


def test_milliseconds_keep_three_digits() -> None:
    assert [figures.milliseconds(value) for value in (0.0, 0.01234, 3.14159, 27.5, 1234.5)] == ["0.00", "0.0123", "3.14", "27.50", "1,234"]


@given(st.text(st.characters(), max_size=40))
def test_plain_text_is_one_line_without_anything_that_acts(text: str) -> None:
    shown = figures.plain(text)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\0\x1b\u202e\u2066")
    shown.encode()  # no broken surrogate is left
    assert figures.plain(shown) == shown


def test_plain_text_leaves_real_names_alone() -> None:
    for name in ("stages.0.1.ffn", "naïve_é", "漢字", "می\u200cخواهم", "a b"):
        assert figures.plain(name) == name
