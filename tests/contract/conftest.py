"""One small network that every runtime can answer for: exported for those that load files, and written down again in numpy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.feeds import adversarial_feeds, random_feeds
from dtvit_deploy.errors import MissingError
from dtvit_deploy.formats.engine.library import LIBRARIES
from dtvit_deploy.formats.engine.passport import FORMATS, GRAPH, LINK
from dtvit_deploy.runtimes.base import Runtime
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.registry import BY_FORMAT, RUNTIMES

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

Array = NDArray[Any]
WIDTH, HEADS, TOKENS = 16, 2, 16
SIGNATURE = Signature(
    (TensorSpec("image", (1, 3, 16, 16)), TensorSpec("position", (1,), "int64")),
    (TensorSpec("logits", (1, 10)), TensorSpec("attention", (1, HEADS, TOKENS, TOKENS)), TensorSpec("best", (1,), "int64")),
)
INNER = ("conv2d", "layer_norm", "matmul_1", "gelu")
"""Inner tensors that every runtime must be able to give, by their names in the exported program."""


def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {
        "stem.weight": (WIDTH, 3, 4, 4),
        "stem.bias": (WIDTH,),
        "places.weight": (4, WIDTH),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "qkv.weight": (3 * WIDTH, WIDTH),
        "qkv.bias": (3 * WIDTH,),
        "out.weight": (WIDTH, WIDTH),
        "out.bias": (WIDTH,),
        "head.weight": (10, WIDTH),
        "head.bias": (10,),
    }
    return {name: (rng.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32) for name, shape in shapes.items()}


def in_numpy(feeds: Feeds) -> Outputs:
    """The network in FP64, without a framework: outputs and the inner tensors."""
    w = {name: values.astype(np.float64) for name, values in weights().items()}
    patches = feeds["image"].astype(np.float64).reshape(3, 4, 4, 4, 4).transpose(1, 3, 0, 2, 4).reshape(TOKENS, 48)
    stem = patches @ w["stem.weight"].reshape(WIDTH, 48).T + w["stem.bias"]
    tokens = stem + w["places.weight"][feeds["position"]]
    centred = tokens - tokens.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w["norm.weight"] + w["norm.bias"]
    qkv = (normal @ w["qkv.weight"].T + w["qkv.bias"]).reshape(TOKENS, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
    scores = qkv[0] @ qkv[1].transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS)
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    attention = exponentials / exponentials.sum(-1, keepdims=True)
    mixed = attention @ qkv[2]
    summed = tokens + mixed.transpose(1, 0, 2).reshape(TOKENS, WIDTH) @ w["out.weight"].T + w["out.bias"]
    active = summed * 0.5 * (1 + np.vectorize(math.erf)(summed / math.sqrt(2)))
    logits = active.mean(0, keepdims=True) @ w["head.weight"].T + w["head.bias"]
    answer = {
        "logits": logits,
        "attention": attention[None],
        "best": logits.argmax(-1),
        "conv2d": stem.T.reshape(1, WIDTH, 4, 4),
        "layer_norm": normal[None],
        "matmul_1": mixed[None],
        "gelu": active[None],
    }
    return {name: values if name == "best" else values.astype(np.float32) for name, values in answer.items()}


def exported(folder: Path) -> dict[str, Artifact]:
    """The network as an artefact of each format."""
    torch = pytest.importorskip("torch")
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.models.reference import Reference
    from dtvit_deploy.pipeline.onnx import onnx_stage
    from dtvit_deploy.pipeline.openvino import openvino_stage
    from dtvit_deploy.pipeline.program import read_program_entry, write_program
    from dtvit_deploy.pipeline.stages import GuardFeeds

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, WIDTH, 4, 4)
            self.places = torch.nn.Embedding(4, WIDTH)
            self.norm = torch.nn.LayerNorm(WIDTH)
            self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
            self.out = torch.nn.Linear(WIDTH, WIDTH)
            self.head = torch.nn.Linear(WIDTH, 10)

        def forward(self, image: Any, position: Any) -> dict[str, Any]:
            tokens = self.stem(image).flatten(2).transpose(1, 2) + self.places(position)[:, None]
            qkv = self.qkv(self.norm(tokens)).reshape(1, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            attention = (qkv[0] @ qkv[1].transpose(-2, -1) / math.sqrt(WIDTH // HEADS)).softmax(-1)
            mixed = (attention @ qkv[2]).transpose(1, 2).reshape(1, TOKENS, WIDTH)
            logits = self.head(torch.nn.functional.gelu(tokens + self.out(mixed)).mean(1))
            return {"logits": logits, "attention": attention, "best": logits.argmax(-1)}

    torch.set_num_threads(1)
    network = Network().eval()
    network.load_state_dict({name: torch.from_numpy(values) for name, values in weights().items()})
    example = {"image": torch.zeros(1, 3, 16, 16), "position": torch.zeros(1, dtype=torch.int64)}
    seeded = Link(kind="seeded", sha256="0" * 64)
    write_program(Reference(model="any:network", module=network, inputs=example, output_names=(), weights=seeded), folder)
    entry = read_program_entry(folder)
    feeds = [*random_feeds(SIGNATURE, 2), *adversarial_feeds(SIGNATURE).values()]
    cache = Cache(folder / "cache")
    simplified = onnx_stage(entry, GuardFeeds("noise", "0", feeds), cache)
    made = {"program": entry.artifact, "onnx": simplified}
    if find_spec("openvino"):
        made["openvino"] = openvino_stage(simplified, Precision.FP32, cache)
    if find_spec("coremltools"):
        made["mlpackage"] = mlpackage(entry.artifact, folder)
    return made | {name: _folder(folder / f"model.{name}", simplified, name) for name in FORMATS.values()}


def _folder(path: Path, graph: Artifact, format: str) -> Artifact:  # noqa: A002 - the manifest's word
    """A folder of TensorRT's without an engine: all that emulation looks at."""
    path.mkdir()
    shutil.copy(graph.path, path / GRAPH)
    link = Link(kind=LINK, sha256=sha256_of(path))
    lineage = (*graph.manifest.lineage, link)
    return Artifact(path, msgspec.structs.replace(graph.manifest, format=format, sha256=link.sha256, lineage=lineage))


def mlpackage(program: Artifact, folder: Path) -> Artifact:
    """The program as coremltools alone translates it: the runtime must not rely on what this package's exporter does besides."""
    from dtvit_deploy.artifacts.artifact import load_artifact
    from dtvit_deploy.pipeline.stages import describe
    from dtvit_deploy.process.quiet import quiet
    from dtvit_deploy.runtimes.torch.session import read_program

    path = folder / "model.mlpackage"
    with quiet():
        import coremltools as ct

        ct.convert(
            read_program(program).run_decompositions({}),
            outputs=[ct.TensorType(name=spec.name) for spec in SIGNATURE.outputs],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        ).save(str(path))
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # for another tool; no runtime reads it
    describe(path, program.manifest, Precision.FP32, "coreml", {}, {}, ())
    return load_artifact(path)


@dataclass(frozen=True)
class Subject:
    """A runtime and an artefact that it loads.

    Attributes:
        answer: outputs and inner tensors of the network for feeds, by numpy.
        inner: the inner tensors that ``answer`` knows.
        reads_files: whether the runtime looks at the artefact's file at all.
    """

    runtime: Runtime
    artifact: Artifact
    reads_files: bool
    answer: Callable[[Feeds], Outputs] = in_numpy
    inner: tuple[str, ...] = INNER


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """An artefact of a format; they are made once, when the first is asked for."""
    made: dict[str, Artifact] = {}

    def artifact(format: str) -> Artifact:  # noqa: A002 - the manifest's word
        if not made:
            made.update(exported(tmp_path_factory.mktemp("artefacts")))
        assert format in made, f"a runtime loads {format!r}: teach `exported` to make one"
        return made[format]

    return artifact


WITHOUT_TAPS = {*LIBRARIES.values(), "coreml", "coreml-cpu", "coreml-gpu", "coreml-ne", "coreml-iphone"}
"""Engines and Core ML hand out no inner tensor; they have tests of their own."""


@pytest.fixture(scope="session", params=["fake", "emulated-arm64", *(name for name in RUNTIMES if name not in WITHOUT_TAPS)])
def subject(request: pytest.FixtureRequest, artifacts: Callable[[str], Artifact]) -> Subject:
    """Every runtime that is installed, and the fake. Those of engines have no inner tensors, and tests of their own."""
    if request.param == "fake":
        link = Link(kind="fake", sha256="0" * 64)
        manifest = Manifest(model="any", format="fake", precision=Precision.FP32, sha256="0" * 64, signature=SIGNATURE, lineage=(link,))
        runtime = FakeRuntime(function=in_numpy, inner=INNER)
        return Subject(runtime, Artifact(Path("any.fake"), manifest), reads_files=False)
    if request.param == "emulated-arm64":  # no runtime to choose by name: `verify --arm64` adds it
        from dtvit_deploy.runtimes.arm64.session import EmulatedArm64

        return Subject(EmulatedArm64(), artifacts("onnx"), reads_files=True)
    try:
        real = RUNTIMES[request.param]()
    except MissingError as error:
        pytest.skip(str(error))
    found = real.available()
    if found.version is None:
        pytest.skip(f"{request.param}: {found.missing}")
    loaded = next(name for name, runtimes in BY_FORMAT.items() if request.param in runtimes)
    return Subject(real, artifacts(loaded), reads_files=True)


@pytest.fixture
def feeds() -> dict[str, Array]:
    return random_feeds(SIGNATURE, 1, seed=1)[0]
