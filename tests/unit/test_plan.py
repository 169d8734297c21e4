"""A plan is carried out: each stage after those that it takes, alone where it measures time, once, and without what failed beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.execute import NotDoneError, Results, execute, states
from dtvit_deploy.plan.graph import Cost, Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.pool import Over
from dtvit_deploy.plan.stages import plan
from dtvit_deploy.plan.work import WORK, function_of
from dtvit_deploy.recipe.tables import Data, Device, Export, Recipe, Run


class Workers:
    """A pool that ends the stage that was begun first, and remembers which ran beside which."""

    def __init__(self, size: int = 2, failing: tuple[str, ...] = ()) -> None:
        self.size, self._failing = size, failing
        self._running: list[Order] = []
        self.begun: list[str] = []
        self.together: list[tuple[str, ...]] = []

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        return len(running) < self.size

    def begin(self, order: Order) -> None:
        self._running.append(order)
        self.begun.append(order.stage.name)
        self.together.append(tuple(one.stage.name for one in self._running))

    def next(self) -> Over:
        order = self._running.pop(0)
        name = order.stage.name
        if name in self._failing:
            return Over(name, None, InputError(f"{name} cannot be"))
        given = {stage: Path(folder) for stage, folder in order.given.items()}
        key = key_of(order.stage, given, order.missing)
        folder = Cache(Path(order.cache)).entry(
            kind_of(order.stage), key, lambda part: _write(part, str(sorted(order.stage.asked.items())))
        )
        return Over(name, str(folder), None)


def _write(part: Path, text: str) -> None:
    (part / "result").write_text(text)


def stage(name: str, *needs: str, wants: tuple[str, ...] = (), after: tuple[str, ...] = (), **more: object) -> Stage:
    cost = Cost(exclusive=bool(more.pop("exclusive", False)), memory=1)
    return Stage(name, "trace", 0, {"name": more.pop("asked", name)}, needs, wants, cost, bool(more.pop("anew", False)), after)


DIAMOND = Plan([stage("root"), stage("left", "root"), stage("right", "root"), stage("end", "left", wants=("right",))])


@pytest.fixture
def carry_out(tmp_path: Path) -> Callable[..., Results]:
    def to_the_end(plan: Plan, pool: Workers, **more: object) -> Results:
        return execute(plan, [Recipe()], Cache(tmp_path / "cache"), pool, Silent(), **more)  # type: ignore[arg-type]

    return to_the_end


def test_what_does_not_depend_on_each_other_is_done_side_by_side(carry_out: Callable[..., Results]) -> None:
    pool = Workers()
    results = carry_out(DIAMOND, pool)
    assert ("left", "right") in pool.together
    assert set(results.folders) == {"root", "left", "right", "end"}
    assert results.failed == {}


def test_no_more_at_a_time_than_there_are_workers(carry_out: Callable[..., Results]) -> None:
    wide = Plan([stage("root"), *(stage(f"leaf {number}", "root") for number in range(7))])
    pool = Workers(size=3)
    carry_out(wide, pool)
    assert max(map(len, pool.together)) == 3
    assert len(pool.begun) == 8


def test_what_requests_have_in_common_is_done_once_however_many_could_do_it(carry_out: Callable[..., Results]) -> None:
    both = [stage(f"{name}/{part.name}", *(f"{name}/{one}" for one in part.needs), asked=part.name) for name in "ab" for part in DIAMOND]
    pool = Workers(size=8)
    results = carry_out(Plan(both), pool)
    assert pool.begun == ["a/root", "a/left", "a/right", "a/end"]
    assert {name: results.folders[f"a/{name}"] for name in DIAMOND.stages} == {
        name: results.folders[f"b/{name}"] for name in DIAMOND.stages
    }


def test_devices_build_the_engines_of_jobs_after_them_and_whoever_asked_has_them_built() -> None:
    export = Export(targets=(Target.ONNX, Target.TRT), precisions=(Precision.FP16,))
    recipe = Recipe(
        model=Model(name="dualtoken-vit-t"),
        export=export,
        device=tuple(Device(name=one) for one in ("ssh://me@orin-1", "local", "ssh://xavier")),
    )
    found = plan([("a", recipe)], measured=False, there=True)
    own = [stage for stage in found if stage.does == "built_there"]
    assert [stage.name for stage in own] == ["a/trt fp16 on me.orin-1", "a/trt fp16 on xavier"]
    assert all(stage.needs == ("a/trt fp16",) and stage.anew and stage.home for stage in own)
    assert not [stage for stage in plan([("a", recipe)], measured=False) if stage.does == "built_there"]


def test_where_all_or_nothing_is_wanted_the_first_failure_ends_it_but_that_of_a_helper(carry_out: Callable[..., Results]) -> None:
    helped = Plan([stage("root"), stage("helper", "root"), stage("end", "root", after=("helper",)), stage("next", "end")])
    needed = helped.taken_by(["next"])
    assert needed == {"root", "end", "next"}
    assert set(carry_out(helped, Workers(failing=("helper",)), needed=needed).failed) == {"helper"}
    pool = Workers(failing=("end",))
    with pytest.raises(InputError, match=r"^end cannot be"):
        carry_out(helped, pool, needed=needed, anew=("end",))
    assert "next" not in pool.begun


def test_what_requests_have_in_common_fails_once(carry_out: Callable[..., Results]) -> None:
    both = [stage("a/root", asked="root"), stage("b/root", asked="root"), stage("b/end", "b/root")]
    pool = Workers(failing=("a/root",))
    results = carry_out(Plan(both), pool)
    assert pool.begun == ["a/root"]
    assert {name: type(error) for name, error in results.failed.items()} == {
        "a/root": InputError,
        "b/root": InputError,
        "b/end": NotDoneError,
    }


def test_what_is_done_anew_each_time_is_done_once_in_a_run(carry_out: Callable[..., Results]) -> None:
    pool = Workers()
    carry_out(Plan([stage("a/root", asked="root", anew=True), stage("b/root", asked="root", anew=True)]), pool)
    assert pool.begun == ["a/root"]


def test_a_second_time_nothing_is_done(carry_out: Callable[..., Results]) -> None:
    carry_out(DIAMOND, Workers())
    pool = Workers()
    results = carry_out(DIAMOND, pool)
    assert pool.begun == []
    assert set(results.folders) == set(DIAMOND.stages)


def test_what_changed_is_done_again_with_what_depends_on_it_and_nothing_else(carry_out: Callable[..., Results]) -> None:
    carry_out(DIAMOND, Workers())
    changed = Plan(
        [stage("root"), stage("left", "root"), stage("right", "root", asked="otherwise"), stage("end", "left", wants=("right",))]
    )
    pool = Workers()
    carry_out(changed, pool)
    assert pool.begun == ["right", "end"]


def test_what_comes_out_as_before_leaves_what_follows_as_it_is(carry_out: Callable[..., Results]) -> None:
    """A stage that is done anew each time, since a user's code may have changed unseen, and that had not."""
    plan = Plan([stage("root", anew=True), stage("end", "root")])
    carry_out(plan, Workers())
    pool = Workers()
    carry_out(plan, pool)
    assert pool.begun == ["root"]


def test_from_a_stage_on_everything_is_done_anew(carry_out: Callable[..., Results]) -> None:
    carry_out(DIAMOND, Workers())
    pool = Workers()
    carry_out(DIAMOND, pool, anew=DIAMOND.after(["left"]))
    assert pool.begun == ["left", "end"]


def test_a_failed_branch_does_not_stop_the_others_and_is_told_to_what_wants_it(carry_out: Callable[..., Results]) -> None:
    plan = Plan([*DIAMOND.up_to(["left", "right"]), stage("third", "root"), stage("end", "left", wants=("right", "third"))])
    results = carry_out(plan, Workers(failing=("right",)))
    assert set(results.folders) == {"root", "left", "third", "end"}
    assert str(results.failed["right"]) == "right cannot be"
    # Once it can be, what wanted it is done again.
    pool = Workers()
    carry_out(plan, pool)
    assert pool.begun == ["right", "end"]


def test_what_needs_it_is_not_done_and_says_why(carry_out: Callable[..., Results]) -> None:
    results = carry_out(DIAMOND, Workers(failing=("left",)))
    assert isinstance(results.failed["end"], NotDoneError)
    assert str(results.failed["end"]) == "left is missing: left cannot be"
    assert set(results.folders) == {"root", "right"}


def test_a_stage_of_which_nothing_that_it_wants_is_there_is_not_done(carry_out: Callable[..., Results]) -> None:
    plan = Plan([stage("one"), stage("two"), stage("both", wants=("one", "two"))])
    assert "both" in carry_out(plan, Workers(failing=("one", "two"))).failed
    assert "both" in carry_out(plan, Workers(failing=("one",))).folders


def test_what_only_warms_the_cache_may_fail(carry_out: Callable[..., Results]) -> None:
    plan = Plan([stage("warm"), stage("end", after=("warm",))])
    pool = Workers(failing=("warm",))
    assert "end" in carry_out(plan, pool).folders
    assert pool.begun == ["warm", "end"]


class TestGraph:
    def test_a_stage_is_found_by_its_name_with_or_without_the_requests_and_by_a_pattern(self) -> None:
        plan = Plan([stage("a/trace"), stage("b/trace"), stage("b/onnx fp32", "b/trace")])
        assert plan.matching("trace") == {"a/trace", "b/trace"}
        assert plan.matching("b/*") == {"b/trace", "b/onnx fp32"}
        assert plan.matching("onnx*") == {"b/onnx fp32"}
        with pytest.raises(InputError, match="no stage is called 'nothing'") as caught:
            plan.matching("nothing")
        assert "b/onnx fp32" in (caught.value.remedy or "")

    def test_only_some_of_it_is_that_and_what_comes_before(self) -> None:
        assert list(DIAMOND.up_to(["right"]).stages) == ["root", "right"]
        assert list(DIAMOND.up_to(["end"]).stages) == list(DIAMOND.stages)


def test_the_states_say_what_is_known_and_what_only_later_can_be(carry_out: Callable[..., Results], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert states(DIAMOND, cache) == {"root": "to do", "left": "after", "right": "after", "end": "after"}
    carry_out(DIAMOND.up_to(["left"]), Workers())
    assert states(DIAMOND, cache) == {"root": "known", "left": "known", "right": "to do", "end": "after"}
    assert not [path for path in cache.root.iterdir() if path.name.startswith(".")]


def test_a_changed_report_module_changes_the_key_of_the_report_alone() -> None:
    """By what each stage's source is: no stage but the report's depends on how a report is drawn."""
    from dtvit_deploy.artifacts.source import depends_on

    sources = {does: depends_on(function_of(does).partition(":")[0]) for does in WORK}
    assert {does for does, modules in sources.items() if "dtvit_deploy.report.content" in modules} == {"report"}
    assert not any(module.startswith(("dtvit_deploy.cli", "dtvit_deploy.api")) for modules in sources.values() for module in modules)
    assert all("dtvit_deploy.export.onnx.translate" in sources[does] for does in ("trace", "build"))


def test_images_behind_a_link_count_as_much_as_those_in_the_folder(tmp_path: Path) -> None:
    """A stage's key would else stay the same when they change."""
    from dtvit_deploy.plan.files import state_of

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"one")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a").symlink_to(tmp_path / "elsewhere")
    before = state_of(tmp_path / "images", data=True).digest
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"two")
    assert state_of(tmp_path / "images", data=True).digest != before
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"one")
    assert state_of(tmp_path / "images", data=True).digest == before
    (tmp_path / "elsewhere" / "1.png").rename(tmp_path / "elsewhere" / "2.png")  # samples are drawn by the order of names
    assert state_of(tmp_path / "images", data=True).digest != before


def pictures(folder: Path, count: int) -> Path:
    for number in range(count):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[number % 2] / f"{number}.png").write_bytes(bytes([number]))
    return folder


@pytest.mark.parametrize(("images", "stretches"), [(1, 0), (19, 0), (20, 2), (29, 2), (31, 3)])
def test_an_evaluation_is_cut_where_there_are_two_stretches_or_more(tmp_path: Path, images: int, stretches: int) -> None:
    recipe = Recipe(model=Model(name="net"), data=Data(evaluation=pictures(tmp_path / "images", images)), run=Run(shard=10))
    names = [one.name for one in plan([("", recipe)]) if one.name.startswith("accuracy")]
    assert names == [*(f"accuracy {number + 1} of {stretches}" for number in range(stretches)), "accuracy"]


def test_how_images_are_cut_changes_no_build(tmp_path: Path) -> None:
    recipe = Recipe(model=Model(name="net"), data=Data(evaluation=pictures(tmp_path / "images", 20)))
    whole, cut = (plan([("", msgspec.structs.replace(recipe, run=Run(shard=shard)))]) for shard in (100, 5))
    assert {name: stage.asked for name, stage in whole.stages.items() if stage.does in ("trace", "checked", "build")} == {
        name: stage.asked for name, stage in cut.stages.items() if stage.does in ("trace", "checked", "build")
    }
    assert "accuracy 4 of 4" in cut.stages


def test_images_that_only_the_network_can_name_are_scored_uncut(tmp_path: Path) -> None:
    """A list whose labels are the checkpoint's words, which planning has not read."""
    pictures(tmp_path / "images", 20)
    listed = tmp_path / "val.csv"
    listed.write_text("".join(f"images/{'ab'[number % 2]}/{number}.png,cat\n" for number in range(20)) + "nowhere.png,dog\n")
    recipe = Recipe(model=Model(name="net"), data=Data(evaluation=listed), run=Run(shard=5))
    assert [one.name for one in plan([("", recipe)]) if one.name.startswith("accuracy")] == ["accuracy"]
