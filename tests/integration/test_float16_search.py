"""Networks that FP16 breaks, by overflow and by too few digits: the module is named, the mixed graph passes and the plain one does not.

All graphs are evaluated with real rounding, and held to the parity of `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from checking import checked
from dtvit_deploy.artifacts.artifact import Artifact, Manifest
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.harness.distance import sqnr
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.measure import kept_for_precision
from dtvit_deploy.pipeline.mixed_precision import LARGEST_ERROR, MOST_TRIALS, SmallestSet, mixed_precision
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.stages import load_onnx
from dtvit_deploy.report.schema import Report
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.rounded import rounded_onnx
from dtvit_deploy.runtimes.torch.session import read_program

Vouch = Callable[[Path, Manifest], Artifact]
NETWORKS = """
import torch
from torch import nn
from torch.nn.functional import gelu, normalize

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.grow, self.shrink = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.shrink(gelu(self.grow(self.norm(x))))

class Residual(nn.Module):
    '''Its branch is ten thousand times what it is added to.'''

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Linear(width, width)

    def forward(self, x):
        return x + 1e4 * (20 * self.branch(x))

class Offset(nn.Module):
    '''Adds so much that FP16 has no digits left for what was there; nothing overflows.'''

    def __init__(self, width, size):
        super().__init__()
        self.size = nn.Parameter(torch.full((width,), float(size)))

    def forward(self, x):
        return x + self.size

class Length(nn.Module):
    '''Divides by a length whose square FP16 cannot hold, though it can hold the length.'''

    def forward(self, x):
        return normalize(400 * x, dim=-1) * 8

class Network(nn.Module):
    def __init__(self, *planted):
        super().__init__()
        self.stem = nn.Linear(8, 32)
        self.before = nn.Sequential(Block(32), Block(32))
        self.planted = nn.Sequential(*planted)
        self.after = nn.Sequential(Block(32), Block(32))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.norm(self.after(self.planted(self.before(self.stem(x))))).mean(1))

def of(*planted):
    return Network(*planted).eval(), {"x": torch.randn(1, 6, 8)}

def sound():
    return of(nn.Identity())

def residual():
    return of(Residual(32))

def offset():
    return of(Offset(32, 2e4), Offset(32, -2e4))

def length():
    return of(Length())
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Planted]:
    """One of the user's networks by the name of its factory, exported and simplified."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_networks.py").write_text(NETWORKS)
    cache, made = Cache(folder / "cache"), dict[str, Planted]()

    def planted(name: str) -> Planted:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(folder)
                program = program_stage(Model(name=f"planted_networks:{name}"), cache)
            material = open_material(None, program.artifact.manifest)
            made[name] = Planted(program, material, onnx_stage(program, material.guard(), cache), cache)
        return made[name]

    return planted


class Planted:
    def __init__(self, program: ProgramEntry, material: Material, simplified: Artifact, cache: Cache) -> None:
        self.program, self.material, self.simplified, self.cache = program, material, simplified, cache

    def halved(self, *keep_fp32: str) -> Artifact:
        return float16_stage(self.simplified, self.material.guard(), keep_fp32, self.cache)

    def plain(self) -> onnx.ModelProto:
        """FP16 with nothing in FP32."""
        return float16_onnx(load_onnx(self.simplified), {}).model

    def verified(self, artifact: Artifact) -> Report:
        return checked(self.program, [artifact], self.material)

    def rounded(self, model: onnx.ModelProto, manifest: Manifest, vouch: Vouch, folder: Path) -> Report:
        """`verify` of a graph as FP16 hardware would answer: the same tolerances, with real rounding."""
        path = folder / "rounded.onnx"
        path.write_bytes(rounded_onnx(model).SerializeToString(deterministic=True))
        return self.verified(vouch(path, manifest))


def reasons(artifact: Artifact) -> dict[str, str]:
    link = artifact.manifest.parent("float16")
    assert link is not None
    found = dict(note.split(" stays FP32: ") for note in link.notes if " stays FP32: " in note)
    assert found == link.options["fp32_modules"]  # which JSON does not keep the order of
    return found


def passed(report: Report) -> bool:
    assert report.verdict is not None
    return report.verdict.passed


def failures(report: Report) -> str:
    return "; ".join(difference.reason for subject in report.subjects for difference in subject.parity if not difference.passed)


class TestOverflow:
    """A planted residual of ten thousand times its input."""

    def test_the_module_is_named_with_the_figure(self, network: Callable[[str], Planted]) -> None:
        found = reasons(network("residual").halved())
        assert next(iter(found)) == "planted.0"
        assert list(found) == ["planted.0", "after.0.norm", "after.0", "after.1.norm", "after.1", "norm"]  # the sum goes on through all
        assert "FP16 ends at 65504" in found["planted.0"]

    def test_products_beside_that_sum_are_fp16_all_the_same(self, network: Callable[[str], Planted]) -> None:
        link = network("residual").halved().manifest.parent("float16")
        assert link is not None
        assert link.options["fp32_macs"] < 0.1
        assert link.options["imprecise"] == {}

    def test_the_mixed_graph_passes_and_so_it_does_with_real_rounding(
        self, network: Callable[[str], Planted], vouch: Vouch, tmp_path: Path
    ) -> None:
        planted = network("residual")
        mixed = planted.halved()
        assert mixed.manifest.precision is Precision.FP16
        assert passed(planted.verified(mixed))
        report = planted.rounded(load_onnx(mixed), mixed.manifest, vouch, tmp_path)
        assert passed(report), failures(report)

    def test_untouched_fp16_fails_by_the_same_tolerances(self, network: Callable[[str], Planted], vouch: Vouch, tmp_path: Path) -> None:
        planted = network("residual")
        report = planted.rounded(planted.plain(), planted.halved().manifest, vouch, tmp_path)
        assert not passed(report)
        assert "values are NaN or infinite" in failures(report)

    def test_what_overflows_inside_of_an_operator_counts(self, network: Callable[[str], Planted]) -> None:
        planted = network("length")
        assert any(node.op_type == "ReduceL2" for node in load_onnx(planted.simplified).graph.node)
        found = reasons(planted.halved())
        assert list(found) == ["planted.0"]
        assert "ReduceL2 adds squares of" in found["planted.0"]


class TestLostDigits:
    """Nothing overflows, and the answer is wrong."""

    def test_the_two_modules_to_blame_are_found_and_no_other(self, network: Callable[[str], Planted]) -> None:
        found = reasons(network("offset").halved())
        assert list(found) == ["planted.0", "planted.1"]
        for reason in found.values():
            assert "alone in FP16 it puts the outputs off by" in reason
            assert "reaches 2e+04, where FP16 has steps of 16" in reason

    def test_the_mixed_graph_passes_with_real_rounding_and_untouched_fp16_does_not(
        self, network: Callable[[str], Planted], vouch: Vouch, tmp_path: Path
    ) -> None:
        planted = network("offset")
        mixed = planted.halved()
        assert passed(planted.verified(mixed))
        report = planted.rounded(load_onnx(mixed), mixed.manifest, vouch, tmp_path)
        assert passed(report), failures(report)
        report = planted.rounded(planted.plain(), mixed.manifest, vouch, tmp_path)
        assert not passed(report)
        assert "exceeds the tolerance" in failures(report)

    def test_onnx_runtime_alone_would_have_hidden_it(self, network: Callable[[str], Planted]) -> None:
        """Its CPU provider adds and subtracts without rounding in between."""
        planted = network("offset")
        (feed, *_), signature = planted.material.guard().feeds, planted.simplified.manifest.signature
        graphs = (load_onnx(planted.simplified), planted.plain(), rounded_onnx(planted.plain()))
        exact, hidden, rounded = (run_graph(model, signature, [feed])[0]["output"] for model in graphs)
        assert sqnr(exact, hidden) > 40
        assert sqnr(exact, rounded) < 10

    def test_each_of_the_two_is_needed(self, network: Callable[[str], Planted], vouch: Vouch, tmp_path: Path) -> None:
        planted = network("offset")
        for one in ("planted.0", "planted.1"):
            typed = float16_onnx(load_onnx(planted.simplified), {}, imprecise={one: "alone"})
            assert not passed(planted.rounded(typed.model, planted.halved().manifest, vouch, tmp_path))

    def test_all_but_those_two_is_fp16_and_the_cost_is_told(self, network: Callable[[str], Planted]) -> None:
        mixed = network("offset").halved()
        link = mixed.manifest.parent("float16")
        assert link is not None
        assert (link.options["fp32_weights"], link.options["fp32_macs"], link.options["casts"]) == (2 * 32 * 4, 0, 2)
        assert (
            link.notes[-1]
            == "what stays FP32 costs 256 bytes of weights in FP32, 2 casts inside, and 0.0% of the multiply–accumulates in FP32"
        )
        assert link.notes[-2].startswith("2 modules stay FP32 for precision, the smallest set found in ")
        assert link.options["error"] <= LARGEST_ERROR < link.options["error_before"]
        casts = [module_of(node) for node in load_onnx(mixed).graph.node if node.op_type == "Cast"]
        assert len(casts) == 4  # the graph's ends, and around the two

    def test_what_is_kept_by_wish_is_not_found_again(self, network: Callable[[str], Planted]) -> None:
        found = reasons(network("offset").halved("planted.0", "head"))
        assert list(found) == ["planted.0", "planted.1", "head"]
        assert (found["planted.0"], found["head"]) == ("asked for", "asked for")
        assert "alone in FP16" in found["planted.1"]

    def test_it_is_judged_on_real_feeds_alone(self, network: Callable[[str], Planted]) -> None:
        """An image of zeros leaves normalisations nothing but rounding errors, which are no reason to keep anything."""
        planted = network("offset")
        guard = planted.material.guard()
        assert 0 < (guard.real or 0) < len(guard.feeds)
        model, signature = load_onnx(planted.simplified), planted.simplified.manifest.signature
        assert mixed_precision(model, signature, guard.feeds, real=0).imprecise == {}
        assert set(mixed_precision(model, signature, guard.feeds, real=1).imprecise) == {"planted.0", "planted.1"}

    def test_it_is_the_same_every_time(self, network: Callable[[str], Planted], tmp_path: Path) -> None:
        planted = network("offset")
        again = float16_stage(planted.simplified, planted.material.guard(), (), Cache(tmp_path))
        assert again.manifest == planted.halved().manifest


class TestCoreMl:
    """The same in a package, whose modules to keep are those that were found in the ONNX graph."""

    @pytest.fixture(autouse=True)
    def _needs_coremltools(self) -> None:
        pytest.importorskip("coremltools", reason="coremltools writes the packages")

    @pytest.mark.parametrize(("name", "kept"), [("offset", {"planted.0", "planted.1"}), ("residual", set())])
    def test_a_package_passes_and_untouched_fp16_does_not(
        self, network: Callable[[str], Planted], vouch: Vouch, tmp_path: Path, name: str, kept: set[str]
    ) -> None:
        from dtvit_deploy.export.coreml.interface import Interface
        from dtvit_deploy.export.coreml.package import mlpackage_from_program

        planted = network(name)
        made = CoreMl(planted.program, planted.material.guard(), (), CoreMlOptions(), planted.cache).build(Precision.FP16, None)
        link, same = made.manifest.parent("coreml"), planted.halved().manifest.parent("float16")
        assert link is not None
        assert same is not None
        assert link.options["imprecise"] == same.options["imprecise"]
        assert kept_for_precision([made]) == link.options["imprecise"].keys() == kept
        assert link.options["fp32_modules"].keys() >= {"planted.0", *kept}
        assert {f"{module} stays FP32: {reason}" for module, reason in same.options["imprecise"].items()} <= set(link.notes)
        assert set(same.options["found"]) <= set(link.notes)
        report = planted.verified(made)
        assert passed(report), failures(report)

        signature, plain = made.manifest.signature, tmp_path / "plain.mlpackage"
        interface = Interface("mine:net", signature, (), CoreMlOptions())
        mlpackage_from_program(read_program(planted.program.artifact), planted.program.nodes, interface, Precision.FP16, plain)
        assert not passed(planted.verified(vouch(plain, made.manifest)))


def test_a_sound_network_is_evaluated_once_and_all_fp16(network: Callable[[str], Planted]) -> None:
    planted = network("sound")
    mixed = planted.halved()
    link = mixed.manifest.parent("float16")
    assert link is not None
    assert (reasons(mixed), link.notes, link.options["trials"]) == ({}, (), 1)
    assert 0 < link.options["error"] < LARGEST_ERROR / 3
    assert passed(planted.verified(mixed))


class Noises:
    """A network of modules whose noises add up, each independent of the others."""

    def __init__(self, **noises: float) -> None:
        self.noises = {f"m{index}": 1e-5 for index in range(300)} | noises
        self.asked: list[Sequence[str]] = []

    def error(self, modules: Sequence[str]) -> float:
        self.asked.append(modules)
        return float(np.sqrt(sum(self.noises[module] ** 2 for module in modules)))

    def search(self) -> SmallestSet:
        names = list(self.noises)
        return SmallestSet(names, self.error(names), self.error, lambda kept: self.error([one for one in self.noises if one not in kept]))

    def holds(self, kept: Sequence[str]) -> bool:
        return self.error([one for one in self.noises if one not in kept]) <= LARGEST_ERROR


class TestSearch:
    def test_one_module_of_three_hundred(self) -> None:
        noises = Noises(m123=0.5)
        search = noises.search()
        assert search.found() == {"m123": pytest.approx(0.5)}
        assert search.trials < 25

    def test_distant_ones(self) -> None:
        noises = Noises(m3=0.5, m150=0.02, m299=2.0)
        assert set(noises.search().found()) == {"m3", "m150", "m299"}

    def test_one_that_is_within_bounds_stays(self) -> None:
        noises = Noises(m3=0.5, m150=0.004)
        assert set(noises.search().found()) == {"m3"}

    def test_what_becomes_infinite_is_found_as_well(self) -> None:
        assert set(Noises(m7=np.inf).search().found()) == {"m7"}

    def test_of_noise_that_is_everywhere_much_is_kept_and_the_work_is_bounded(self) -> None:
        noises = Noises(**{f"m{index}": 0.005 for index in range(300)})
        search = noises.search()
        kept = list(search.found())
        assert noises.holds(kept)
        assert 250 < len(kept) < 300
        assert search.trials <= MOST_TRIALS

    def test_modules_that_only_err_together(self) -> None:
        """Two parts, each of which alone is fine: what was expected to hold does not, and more is looked into."""

        def error(modules: Sequence[str]) -> float:
            return 0.5 if {"a", "z"} <= set(modules) else 0.001

        names = list("abcdefghijklmnopqrstuvwxyz")
        search = SmallestSet(names, error(names), error, lambda kept: error([name for name in names if name not in kept]))
        found = search.found()
        assert set(found) in ({"a"}, {"z"})
