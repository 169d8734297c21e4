"""What artefacts attend to is what torch attends to, by forward hooks; drawn as one file; and wrong input has one message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commandline import deploy, refused
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.calibration.decode import decode_image
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.attention import token_maps
from dtvit_deploy.models import registry
from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.networks import network_from_config
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.t2t.config import T2TConfig
from dtvit_deploy.models.variant import Config, Variant
from dtvit_deploy.pipeline.attention import Asked, look
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.recipe.tables import Export, Recipe
from dtvit_deploy.report.attention import attention_content
from dtvit_deploy.report.attention_plots import attention_plots
from dtvit_deploy.report.html import in_html
from lively import lively

torch.set_num_threads(1)

SIZE = (64, 96)
"""Not square, so that rows and columns cannot be exchanged."""
DUAL = DualTokenConfig(dims=(8, 16, 32), depths=(1, 1, 2), tokens=3, input_size=SIZE, num_classes=5)
LIGHT = LightViTConfig(dims=(8, 16, 32), depths=(1, 1, 2), heads=(1, 2, 4), tokens=3, input_size=(224, 448), num_classes=5)
T2T = T2TConfig(dim=32, depths=(2,), heads=4, mlp_ratio=2, input_size=SIZE, num_classes=5)
DENSE = T2TConfig(dim=32, depths=(1, 1), heads=4, mlp_ratio=2, backbone="dense", growth=16, input_size=SIZE, num_classes=5)


def weights_of(query: torch.Tensor, key: torch.Tensor, heads: int) -> np.ndarray:
    """Softmax attention written out: (1, N, C) and (1, M, C) → (1, heads, N, M)."""
    width = query.shape[-1] // heads
    query, key = (one.unflatten(-1, (heads, width)).transpose(1, 2) for one in (query, key))
    found: np.ndarray = torch.softmax(query @ key.transpose(2, 3) / width**0.5, -1).numpy()
    return found


def hooked(network: torch.nn.Module, feed: torch.Tensor, *names: str) -> list[torch.Tensor]:
    """What modules answer on the way through the network."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, answer: found.update({name: answer})

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        network(feed)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def dual(network: torch.nn.Module, feed: torch.Tensor) -> list[np.ndarray]:
    query, both = hooked(network, feed, "stages.2.1.query", "stages.2.1.key_value")
    return [weights_of(query.flatten(1, 2), both.chunk(2, -1)[0], DUAL.heads[2])]


def light(network: torch.nn.Module, feed: torch.Tensor) -> list[np.ndarray]:
    every, both = hooked(network, feed, "stages.2.2.attn.qkv", "stages.2.2.attn.kv_global")
    query, key, _ = every.chunk(3, -1)
    gathering = weights_of(query[:, : LIGHT.tokens], key[:, LIGHT.tokens :], LIGHT.heads[2])
    return [gathering, weights_of(query[:, LIGHT.tokens :], both.chunk(2, -1)[0], LIGHT.heads[2])]


def class_token(network: torch.nn.Module, feed: torch.Tensor) -> list[np.ndarray]:
    last = len(network.blocks) - 1  # type: ignore[arg-type]
    query, key, _ = hooked(network, feed, f"blocks.{last}.attn.qkv")[0].chunk(3, -1)
    return [weights_of(query, key, T2T.heads)]


class Made:
    """A small network that the registry knows for a while, its artefacts, and an image."""

    def __init__(self, folder: Path, config: Config, targets: tuple[Target, ...]) -> None:
        self.network = lively(network_from_config(config))
        torch.save(self.network.state_dict(), folder / "lively.pth")
        self.recipe = Recipe(
            model=Model(name="small", checkpoint=folder / "lively.pth"),
            export=Export(targets=targets, precisions=(Precision.FP32, Precision.FP16)),
        )
        self.cache = Cache(folder / "cache")
        self.artifacts: tuple[Artifact, ...] = export(self.recipe, folder / "out", self.cache, Silent(), 1).artifacts
        self.image = folder / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(self.image)
        how = Preprocessing.for_input(*config.input_size)
        self.feed = torch.from_numpy(how.apply(decode_image(self.image))[None])
        self.asked = Asked((self.image,), tuple(artifact.path for artifact in self.artifacts))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], None]:
    """Have the registry know a small network by the name ``small``."""

    def know(config: Config) -> None:
        small = Variant(name="small", config=config, description="for a test", params=0, macs=0)
        monkeypatch.setattr(registry, "VARIANTS", {**registry.VARIANTS, "small": small})

    return know


BOTH = (Target.ONNX, Target.OPENVINO)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "expected", "targets"),
    [
        (DUAL, dual, BOTH),
        pytest.param(DUAL, dual, (Target.COREML,), marks=pytest.mark.thorough),
        pytest.param(LIGHT, light, BOTH, marks=pytest.mark.thorough),  # its smallest input is 224 pixels high
        (T2T, class_token, BOTH),
        pytest.param(DENSE, class_token, (Target.ONNX,), marks=pytest.mark.thorough),
    ],
    ids=["dualtoken", "dualtoken in Core ML", "lightvit", "t2t", "dense"],
)
def test_every_artefact_attends_as_torch_does(
    config: Config,
    expected: Callable[[torch.nn.Module, torch.Tensor], list[np.ndarray]],
    targets: tuple[Target, ...],
    known: Callable[[Config], None],
    tmp_path: Path,
) -> None:
    known(config)
    made = Made(tmp_path, config, targets)
    found = look(made.asked, made.recipe, made.cache, Silent())
    (picture,) = found.pictures
    assert np.abs(picture.pixels.mean() - 127) < 10
    for kind, weights in zip(found.maps, expected(made.network, made.feed), strict=True):
        right = token_maps(weights, kind)
        assert right.std() > 1e-3  # a map that is the same everywhere would be found by any tensor
        for subject, maps in zip(found.report.subjects, picture.maps, strict=True):
            allowed = 1e-5 if subject.precision == "fp32" else 0.05
            assert np.abs(maps[kind.name] - right).max() <= allowed, (kind.name, subject.file)
    assert [len(one.drift) for one in found.report.subjects] == [0] + [len(found.maps)] * (2 * len(targets))
    for one in found.report.subjects[1:]:
        assert one.lacking == {}
        for drift in one.drift:
            assert drift.images == 1
            assert drift.correlation is not None
            assert drift.correlation >= (1 - 1e-6 if one.precision == "fp32" else 0.99)
    page = in_html(attention_content(found.report), attention_plots(found))
    assert page.count("<svg") == len(found.maps)


@pytest.mark.slow
def test_artefacts_of_two_networks_are_refused(known: Callable[[Config], None], tmp_path: Path) -> None:
    made = []
    for name, config in (("one", DENSE), ("other", T2T)):
        known(config)
        (tmp_path / name).mkdir()
        made.append(Made(tmp_path / name, config, (Target.ONNX,)))
    asked = Asked(made[0].asked.images, (*made[0].asked.artefacts, *made[1].asked.artefacts))
    with pytest.raises(InputError, match="4 artefacts have 2 different references"):
        look(asked, Recipe(), made[0].cache, Silent())


def test_a_network_without_maps_and_wrong_images_have_one_message(exported: list[Artifact], tmp_path: Path) -> None:
    net = exported[0].path
    image, text = tmp_path / "image.png", tmp_path / "notes.txt"
    Image.new("RGB", (32, 32)).save(image)
    text.write_text("no image")
    said = refused("attention", image, net, cwd=tmp_path, out=False)
    assert said.startswith("error: mine:make has no attention maps that are known here")
    assert refused("attention", net, cwd=tmp_path, out=False).startswith("error: no image was given")
    assert refused("attention", image, cwd=tmp_path, out=False).startswith("error: no artefact was given beside")
    assert "is neither a page nor a picture" in refused("attention", image, net, "-o", "map.svg", cwd=tmp_path, out=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path, ranges: Path) -> Path:
    """The digits network as ONNX in FP32 and INT8."""
    folder = tmp_path_factory.mktemp("attention")
    asked = ("-p", "fp32", "-p", "int8", "--ranges", ranges, "--calibration", digits / "train", "--no-search")
    deploy("export", "-c", checkpoint, *asked, "-o", folder)
    return folder


@pytest.fixture(scope="module")
def drawn(out: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A page and a picture of two digits, and what was printed as JSON."""
    folder = tmp_path_factory.mktemp("drawn")
    images = [next((digits / "held-out" / digit).iterdir()) for digit in "38"]
    asked = ("--data", digits / "held-out", "--samples", 20, "-o", folder / "page.html", "-o", folder / "picture.png", "--json")
    return folder, json.loads(deploy("attention", *images, out, *asked).stdout)


@pytest.mark.thorough
def test_the_drift_of_int8_is_told_beside_that_of_fp32(drawn: tuple[Path, dict[str, Any]]) -> None:
    _, report = drawn
    torch_itself, fp32, int8 = sorted(report["subjects"], key=lambda one: (one["file"] != "", one["precision"]))
    assert torch_itself["drift"] == []
    exact, coarse = fp32["drift"][0], int8["drift"][0]
    assert (exact["images"], coarse["images"]) == (20, 20)
    assert exact["least"] >= 1 - 1e-6
    assert exact["same_key"] == 1.0
    assert 0.9 <= coarse["correlation"] < exact["correlation"]
    assert coarse["max_abs"] > 10 * exact["max_abs"]
    assert report["between_images"]["global broadcast"] < 0.9 * coarse["correlation"]
    assert len(report["sights"]) == 6
    assert all(len(sight["strongest"]) == 8 for sight in report["sights"])


@pytest.mark.thorough
def test_the_page_is_one_file_that_fetches_and_runs_nothing(drawn: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = drawn
    page = (folder / "page.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert page.count("<svg") == 2
    references = re.findall(r'(?:href|src)="([^"]{0,20})', page)
    assert all(one.startswith(("#", "data:image/png")) for one in references)
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert "ONNX INT8" in page
    with Image.open(folder / "picture.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 1000


@pytest.mark.thorough
def test_the_terminal_has_the_drift_in_markdown(out: Path, digits: Path, tmp_path: Path) -> None:
    image = next((digits / "held-out" / "3").iterdir())
    done = deploy("attention", image, out / "dualtoken-vit-t-mix.fp32.onnx", cwd=tmp_path)
    row = next(line for line in done.stdout.splitlines() if line.startswith("| ONNX FP32 | dualtoken"))
    assert row.count("|") == 13
    assert (tmp_path / "attention.html").is_file()
