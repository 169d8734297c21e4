"""A range table is found by tensor name, and refused where it does not belong or was changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import LARGEST_MANIFEST, Link, Manifest, encode_json
from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.calibration.ranges import Convergence, Interval, RangeTable, Sample, Settling, TensorRange, load_ranges
from dtvit_deploy.errors import InputError

PROGRAM, WEIGHTS, OTHER = "a" * 64, "b" * 64, "c" * 64
SIGNATURE = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 10)),))
NODES = NodeMap(
    [
        Node("view", "stem", "aten.view.default", ("x",)),
        Node("linear", "stem", "aten.linear.default", ("view", "p_weight")),
        Node("split", "block", "aten.split.Tensor", ("linear",)),
        Node("getitem", "block", "<built-in function getitem>", ("split",)),
        Node("permute", "block", "aten.permute.default", ("getitem",)),
        Node("_native_batch_norm", "norm", "aten._native_batch_norm_legit_no_training.default", ("permute",)),
        Node("getitem_1", "norm", "<built-in function getitem>", ("_native_batch_norm",)),
        Node("p_expand", "", "aten.expand.default", ("p_token",)),
        Node("head", "head", "aten.linear.default", ("getitem_1", "p_head")),
        Node("squeeze", "", "aten.squeeze.dims", ("head",)),
    ],
    ["squeeze"],
)


def tensor(low: float, high: float) -> TensorRange:
    """With a range that each method makes smaller by one."""
    ranges = {method.value: Interval(low + index, high - index, index / 100) for index, method in enumerate(Method)}
    return TensorRange(module="stem", op="aten.linear.default", values=64, **ranges)


def point(images: int, **p95: float) -> Convergence:
    return Convergence(images=images, **{method.value: Settling(0.0, p95.get(method.value, 0.0)) for method in Method})


TABLE = RangeTable(
    model="tiny",
    program=PROGRAM,
    weights=WEIGHTS,
    signature=SIGNATURE,
    inputs=("x",),
    preprocessing=Preprocessing(),
    preprocessing_digest=Preprocessing().digest,
    samples=(Sample("a/0.png", OTHER), Sample("b/0.png", PROGRAM)),
    source="the images in train",
    seed=0,
    synthetic=False,
    leaked=None,
    percentile=99.99,
    threads=1,
    tensors={"x": tensor(-9, 9), "linear": tensor(-20, 20), "getitem_1": tensor(-7, 8), "head": tensor(-30, 30)},
    unbounded=(),
    convergence=(point(2),),
    notes=(),
    tools={"torch": "2.13.0"},
).sealed()
MANIFEST = Manifest(
    model="tiny",
    format="onnx",
    precision=Precision.FP32,
    sha256=OTHER,
    signature=SIGNATURE,
    lineage=(Link(kind="checkpoint", sha256=WEIGHTS), Link(kind="program", sha256=PROGRAM), Link(kind="onnx", sha256=OTHER)),
)


def written(path: Path, **changed: Any) -> Path:
    """The table with other JSON in some places, and the digest that belongs to it where it still is a table."""
    data = msgspec.to_builtins(TABLE) | changed
    path.write_bytes(encode_json(data))
    return path


class TestLookup:
    def test_a_tensor_has_its_own_range_by_the_method_that_is_asked_for(self) -> None:
        assert [TABLE.lookup(NODES, method)["linear"] for method in Method] == [(-20, 20), (-19, 19), (-18, 18), (-17, 17)]

    def test_a_view_has_the_range_of_what_it_views_through_any_number_of_views(self) -> None:
        found = TABLE.lookup(NODES, Method.MINMAX)
        assert found["view"] == found["x"] == (-9, 9)
        assert found["permute"] == found["getitem"] == found["linear"]

    def test_a_tensor_taken_from_what_computes_several_is_not_taken_for_a_view_of_its_input(self) -> None:
        assert TABLE.lookup(NODES, Method.MINMAX)["getitem_1"] == (-7, 8)

    def test_inputs_and_outputs_are_found_by_both_names(self) -> None:
        found = TABLE.lookup(NODES, Method.MINMAX)
        assert found["image"] == (-9, 9)
        assert found["logits"] == found["squeeze"] == found["head"] == (-30, 30)

    def test_an_artefact_may_have_named_its_outputs_otherwise(self) -> None:
        renamed = Signature(SIGNATURE.inputs, (TensorSpec("scores", (1, 10)),))
        assert TABLE.lookup(NODES, Method.MINMAX, renamed)["scores"] == (-30, 30)

    def test_what_was_not_observed_has_none(self) -> None:
        assert {"p_weight", "p_expand", "p_token", "_native_batch_norm"}.isdisjoint(TABLE.lookup(NODES, Method.MINMAX))


class TestRequire:
    def test_the_program_and_every_artefact_of_it_may_use_the_table(self) -> None:
        TABLE.require(MANIFEST, Preprocessing())
        TABLE.require(msgspec.structs.replace(MANIFEST, format="program", sha256=PROGRAM, lineage=MANIFEST.lineage[:2]), Preprocessing())

    def test_other_weights_are_refused_with_both_digests(self) -> None:
        other = msgspec.structs.replace(MANIFEST, lineage=(Link(kind="checkpoint", sha256=OTHER), Link(kind="program", sha256=OTHER)))
        with pytest.raises(InputError, match=f"other weights: {WEIGHTS[:16]}….*not {OTHER[:16]}…"):
            TABLE.require(other, Preprocessing())

    def test_another_program_of_the_same_weights_is_refused_with_both_digests(self) -> None:
        other = msgspec.structs.replace(MANIFEST, lineage=(Link(kind="checkpoint", sha256=WEIGHTS), Link(kind="program", sha256=OTHER)))
        with pytest.raises(InputError, match=f"another program .*{PROGRAM[:16]}…, not {OTHER[:16]}…"):
            TABLE.require(other, Preprocessing())

    def test_another_preprocessing_is_refused_with_both_digests_and_what_differs(self) -> None:
        other = Preprocessing(mean=(0.5, 0.5, 0.5))
        with pytest.raises(InputError, match=f"{Preprocessing().digest[:16]}…, not {other.digest[:16]}…") as caught:
            TABLE.require(MANIFEST, other)
        assert "(mean (0.485, 0.456, 0.406) there, (0.5, 0.5, 0.5) here)" in str(caught.value)
        with pytest.raises(InputError, match="not none…"):
            TABLE.require(MANIFEST, None)

    def test_ranges_of_ready_feeds_fit_any_preprocessing(self) -> None:
        ready = msgspec.structs.replace(TABLE, preprocessing=None, preprocessing_digest="")
        ready.require(MANIFEST, Preprocessing())
        ready.require(MANIFEST, None)


class TestReading:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        assert load_ranges(written(tmp_path / "ranges.json")) == TABLE

    def test_the_digest_does_not_depend_on_how_the_file_is_laid_out(self, tmp_path: Path) -> None:
        path = tmp_path / "ranges.json"
        path.write_text(json.dumps(msgspec.to_builtins(TABLE)))
        assert load_ranges(path) == TABLE

    @pytest.mark.parametrize(
        "changed",
        [
            {"seed": 1},
            {"synthetic": True},
            {"notes": ["all is well"]},
            {"tensors": msgspec.to_builtins(TABLE.tensors) | {"head": msgspec.to_builtins(tensor(-5, 5))}},
            {"samples": msgspec.to_builtins(TABLE.samples)[:1]},
            {"sha256": "0" * 64},
            {"sha256": ""},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_one_that_was_edited_by_hand_is_refused(self, changed: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="was changed after calibration") as caught:
            load_ranges(written(tmp_path / "ranges.json", **changed))
        assert caught.value.remedy == "calibrate again with `dtvit-deploy calibrate`"

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"tensors": {}}, "at least one tensor"),
            ({"samples": []}, "at least one sample"),
            ({"inputs": []}, "as many nodes as inputs"),
            ({"weights": "b"}, "weights"),
            ({"threads": 0}, "threads"),
            ({"surprise": 1}, "surprise"),
            ({"preprocessing_digest": OTHER}, "digest of the preprocessing"),
            ({"preprocessing": {"std": [0, 1, 1]}}, "standard deviation"),
        ],
        ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
    )
    def test_what_no_calibration_writes_is_refused(self, changed: dict[str, Any], told: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=told):
            load_ranges(written(tmp_path / "ranges.json", **changed))

    @pytest.mark.parametrize(
        "interval",
        [
            '{"low": 1, "high": 0, "clipped": 0}',
            '{"low": NaN, "high": 0, "clipped": 0}',
            '{"low": -1e999, "high": 0, "clipped": 0}',
            '{"low": 0, "high": 1, "clipped": 2}',
            '{"low": 0, "high": 1}',
            '{"low": "0", "high": 1, "clipped": 0}',
        ],
    )
    def test_a_range_that_is_none_is_refused(self, interval: str, tmp_path: Path) -> None:
        path = written(tmp_path / "ranges.json")
        text = json.dumps(json.loads(path.read_bytes()))
        mine = json.dumps(msgspec.to_builtins(TABLE.tensors["head"].mse), sort_keys=True)
        assert mine in text
        path.write_text(text.replace(mine, interval))
        with pytest.raises(InputError, match="is not a range table"):
            load_ranges(path)

    def test_where_none_is_the_command_that_makes_one_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"there is no range table at .*ranges\.json$") as caught:
            load_ranges(tmp_path / "ranges.json")
        assert "dtvit-deploy calibrate" in str(caught.value.remedy)

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"{}"])
    def test_what_is_no_table_at_all_is_refused(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "ranges.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"ranges\.json"):
            load_ranges(path)

    def test_one_of_another_schema_is_refused_whatever_else_it_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "ranges.json"
        path.write_text('{"schema": 7, "new": "field"}')
        with pytest.raises(InputError, match="schema 7; this version reads schema 1"):
            load_ranges(path)

    def test_a_file_without_end_is_refused_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "ranges.json"
        path.touch()
        os.truncate(path, LARGEST_MANIFEST + 1)
        with pytest.raises(InputError, match="no range table is that large"):
            load_ranges(path)


class TestConclusion:
    def of(self, *curve: Convergence) -> str:
        return msgspec.structs.replace(TABLE, convergence=curve).conclusion()

    def test_settled_with_half_of_them_is_enough(self) -> None:
        told = self.of(point(64, mse=0.4), point(128, percentile=0.01, entropy=0.02, mse=0.03), point(256, mse=0.01), point(300))
        assert told.startswith("300 images are enough: with 128 of them, 95% of the tensors had a range within")
        assert "percentile 1.0%, entropy 2.0%, mse 3.0%" in told

    def test_not_settled_with_half_of_them_is_not_enough_however_near_the_last_point_is(self) -> None:
        told = self.of(point(128, percentile=0.2, entropy=0.2, mse=0.2), point(256), point(300))
        assert told.startswith("300 images are not enough by any method: with 128 of them")

    def test_a_method_that_does_not_settle_is_not_recommended(self) -> None:
        told = self.of(point(128, entropy=0.2, mse=0.01), point(300))
        assert told.startswith("300 images are enough for percentile and mse, by the limit of 5%")

    def test_the_extremes_never_settle_and_do_not_count(self) -> None:
        assert self.of(point(128, minmax=0.9), point(300)).startswith("300 images are enough")

    def test_so_few_say_nothing(self) -> None:
        assert self.of(point(5)) == "Whether 5 images are enough cannot be told from so few."
