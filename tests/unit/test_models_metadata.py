import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.metadata import describe, for_size

KEYS = ("model", "num_classes", "classes", "preprocessing")
PREPROCESSING = {
    "resize": 256,
    "crop": [224, 224],
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [1, 1, 1],
    "channels": "rgb",
}


def test_metadata_is_typed() -> None:
    said = {"num_classes": "3", "classes": '["a", "b", "ü"]', "preprocessing": json.dumps(PREPROCESSING), "model": "m", "seed": "whatever"}
    description = describe(said, Path("m.safetensors"))
    assert (description.model, description.num_classes, description.classes) == ("m", 3, ("a", "b", "ü"))
    assert description.preprocessing == PREPROCESSING
    assert description.crop == (224, 224)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_classes", "ten"),
        ("num_classes", "-1"),
        ("num_classes", "3.5"),
        ("num_classes", "99999999999999999999"),
        ("num_classes", "true"),
        ("num_classes", ""),
        ("classes", '{"a": 1}'),
        ("classes", "[1, 2]"),
        ("classes", "[]"),
        ("classes", json.dumps(["x" * 1001])),
        ("classes", "[" * 100_000),
        ("classes", '["' + "x" * (17 << 20) + '"]'),
        ("preprocessing", "[]"),
        ("preprocessing", '{"crop": "big"}'),
        ("preprocessing", '{"crop": [224, 224, 3]}'),
        ("preprocessing", '{"crop": [0, 224]}'),
        ("preprocessing", '{"crop": [1000000, 1000000]}'),
        ("preprocessing", '{"mean": {"r": [[1]]}}'),
        ("preprocessing", json.dumps({str(i): 1 for i in range(100)})),
        ("model", "x" * 201),
        ("model", ""),
    ],
    ids=lambda value: value[:30],
)
def test_metadata_of_the_wrong_kind_is_refused_by_file_and_key(key: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"m\.safetensors is wrong in '{key}'"):
        describe({key: value}, Path("m.safetensors"))


def test_class_names_must_be_as_many_as_the_classes() -> None:
    with pytest.raises(InputError, match="2 names for num_classes 3"):
        describe({"num_classes": "3", "classes": '["a", "b"]'}, Path("m.safetensors"))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.text() | st.sampled_from(["[]", "{}", "1", '["a"]', '{"crop": [8, 8]}'])))
def test_any_metadata_is_understood_or_refused(metadata: dict[str, str]) -> None:
    try:
        description = describe(metadata, Path("m.safetensors"))
    except InputError:
        return
    assert description.num_classes in (None, 1)
    assert description.classes in ((), ("a",))
    assert description.crop in (None, (8, 8))


def test_preprocessing_for_another_size_keeps_the_share_of_the_image_that_is_seen() -> None:
    said = {"resize": 256, "crop": [224, 224], "interpolation": "bilinear"}
    assert for_size(said, (224, 224), (448, 336)) == {"resize": 384, "crop": [448, 336], "interpolation": "bilinear"}
    assert for_size(said, (224, 224), (224, 224)) == said
    assert for_size({}, None, (448, 448)) == {}
