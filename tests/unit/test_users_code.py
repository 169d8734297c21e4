"""However a user's code ends, it is one message and an error; what the user or the system asked for stays what it is."""

from __future__ import annotations

import pytest

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models.users_code import users_code
from dtvit_deploy.process.ended import Ended


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    "raised", [SystemExit(0), SystemExit("done"), GeneratorExit(), Stop("here"), RuntimeError("no"), AssertionError(), StopIteration()]
)
def test_whatever_it_raises_becomes_one_message_with_what_was_done(raised: BaseException) -> None:
    with pytest.raises(InputError) as refused, users_code("mine:net failed"):
        raise raised
    assert str(refused.value).startswith(f"mine:net failed: {type(raised).__name__}")
    assert refused.value.__cause__ is raised
    assert refused.value.remedy


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), Ended(15), InputError("ours"), MissingError("ours")])
def test_interruptions_and_errors_that_were_told_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as passed, users_code("mine:net failed"):
        raise raised
    assert passed.value is raised


def test_what_ends_well_is_left_alone() -> None:
    with users_code("mine:net failed"):
        done = True
    assert done
