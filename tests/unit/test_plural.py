"""One is one, and everything else is several; of many names the first are told, and how many more there are."""

import pytest

from dtvit_deploy.plural import counted, some


@pytest.mark.parametrize(("number", "told"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1000, "1,000 tokens"), (-1, "-1 tokens")])
def test_a_sentence_counts_as_people_do(number: int, told: str) -> None:
    assert counted(number, "token") == told


@pytest.mark.parametrize(
    ("names", "noun", "separator", "told"),
    [
        ("", "", ", ", ""),
        ("ab", "module", ", ", "a, b"),
        ("abc", "", ", ", "a, b and 1 more"),
        ("abc", "module", ", ", "a, b and 1 more module"),
        ("abcd", "module", ", ", "a, b and 2 more modules"),
        ("abcd", "", "; ", "a; b; and 2 more"),
    ],
)
def test_of_many_the_first_are_named_and_the_rest_counted(names: str, noun: str, separator: str, told: str) -> None:
    assert some(names, 2, noun, separator) == told
    assert some(iter(names), 2, noun, separator) == told
