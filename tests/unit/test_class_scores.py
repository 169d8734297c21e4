"""Only of class scores is the greatest entry a decision, and who knows better may say so."""

from __future__ import annotations

import pytest

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.class_scores import called_so, class_scores, require_rows, scored_output


def outputs(**shapes: tuple[int, ...] | TensorSpec) -> tuple[TensorSpec, ...]:
    return tuple(shape if isinstance(shape, TensorSpec) else TensorSpec(name, shape) for name, shape in shapes.items())


@pytest.mark.parametrize(
    ("found", "classes", "expected"),
    [
        (outputs(logits=(1, 10)), 0, ("logits",)),
        (outputs(output=(1, 10)), 0, ("output",)),
        (outputs(species=(1, 10)), 0, ("species",)),
        (outputs(embedding=(1, 512)), 0, ()),
        (outputs(boxes=(1, 4)), 0, ()),
        (outputs(gaze=(1, 2)), 0, ()),
        (outputs(pre_logits=(1, 384)), 0, ()),
        (outputs(class_token=(1, 384)), 0, ()),
        (outputs(predBoxes=(1, 4)), 4, ()),
        (outputs(embedding=(1, 10)), 10, ()),
        (outputs(features=(1, 64), logits=(1, 10), bbox=(1, 4)), 0, ("logits",)),
        (outputs(logits=(1, 10), coarse_logits=(1, 3)), 10, ("logits", "coarse_logits")),
        (outputs(output_0=(1, 512), output_1=(1, 10)), 10, ("output_1",)),
        (outputs(output_0=(1, 512), output_1=(1, 10)), 0, ()),
        (outputs(output=(1, 11)), 10, ("output",)),
        (outputs(output=(1, 1)), 0, ()),
        (outputs(output=(1, 100, 10)), 0, ()),
        (outputs(logits=(2, 10)), 0, ()),
        (outputs(logits=(10,)), 0, ("logits",)),
        (outputs(logits=(1, 1, 10)), 0, ("logits",)),
        (outputs(classes=TensorSpec("classes", (1, 10), "int64")), 0, ()),
        (outputs(output=(1, 10), map=(1, 8, 4, 4)), 0, ()),
        (outputs(scores=(1, 10), best=TensorSpec("best", (1,), "int64")), 0, ("scores",)),
        (outputs(boxes=(1, 100, 4), scores=(1, 100), labels=TensorSpec("labels", (1, 100), "int64")), 0, ()),
    ],
)
def test_what_is_taken_for_class_scores(found: tuple[TensorSpec, ...], classes: int, expected: tuple[str, ...]) -> None:
    assert class_scores(found, classes) == expected


def test_the_users_word_counts_before_names_and_numbers() -> None:
    every = outputs(embedding=(1, 512), logits=(1, 10), angle=(1, 36))
    assert class_scores(every, 10, ["angle"]) == ("angle",)  # an angle in 36 classes
    assert class_scores(every, 10, ["angle", "logits"]) == ("logits", "angle")
    assert class_scores(every, 10, []) == ()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["labels"],
            "'labels' cannot be class scores, which are one row of at least two floating values; the outputs are map 1×8×4×4 float32",
        ),
        (["map"], "'map' cannot be class scores"),
        (["logits", "ids"], "'ids' cannot be class scores"),
    ],
)
def test_what_cannot_be_class_scores_is_refused(asked: list[str], said: str) -> None:
    every = outputs(map=(1, 8, 4, 4), logits=(1, 10), ids=TensorSpec("ids", (1, 10), "int64"))
    with pytest.raises(InputError) as caught:
        require_rows(every, asked)
    assert str(caught.value).startswith(said)
    assert caught.value.remedy == "give logits, or `none`"
    require_rows(every, ["logits"])
    require_rows(every, [])
    require_rows(every, None)


def test_accuracy_is_taken_of_class_scores_first_and_then_of_what_could_be() -> None:
    def name(found: tuple[TensorSpec, ...], classes: int = 0, asked: list[str] | None = None) -> str | None:
        spec = scored_output(found, classes, asked)
        return spec and spec.name

    assert name(outputs(embedding=(1, 512), logits=(1, 10))) == "logits"
    assert name(outputs(output_0=(1, 3), output_1=(1, 4))) == "output_0"
    assert name(outputs(embedding=(1, 512))) is None
    assert name(outputs(embedding=(1, 512)), asked=["embedding"]) == "embedding"
    assert name(outputs(logits=(1, 10)), asked=[]) is None


def test_a_name_says_so_word_by_word() -> None:
    assert [called_so(name) for name in ("logits", "classLogits", "cls_prob", "LOGITS2")] == [True] * 4
    assert [called_so(name) for name in ("output", "embedding", "class_embedding", "sublogits", "scores")] == [False] * 5
