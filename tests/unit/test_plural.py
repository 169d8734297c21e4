"""One is one, and everything else is several."""

import pytest

from dtvit_deploy.plural import counted


@pytest.mark.parametrize(("number", "told"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1000, "1,000 tokens"), (-1, "-1 tokens")])
def test_a_sentence_counts_as_people_do(number: int, told: str) -> None:
    assert counted(number, "token") == told
