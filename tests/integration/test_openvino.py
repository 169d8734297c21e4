"""OpenVINO artefacts: derived from the same program, folders, executed in the precision that their manifest says."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.runtimes.base import SessionOptions

openvino = pytest.importorskip("openvino")
from dtvit_deploy.export.openvino.ir import openvino_from_onnx  # noqa: E402
from dtvit_deploy.runtimes.openvino import GRAPH, HINT, OpenVinoRuntime  # noqa: E402

PRECISIONS = ("fp32", "fp16", "bf16")
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
NETWORK = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)), (torch.zeros(1, 3, 8, 8),)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which a small network of the user's own can be imported."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def out(tiny: Path) -> Path:
    deploy("export", "-m", "tiny:make", "-t", "openvino", "-p", "fp32", "-p", "fp16", "-p", "bf16", "-o", "out", cwd=tiny)
    return tiny / "out"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    precisions = [word for precision in PRECISIONS for word in ("-p", precision)]
    deploy("export", "-c", checkpoint, "-t", "openvino", "-t", "onnx", *precisions, "--data", digits / "held-out", "-o", folder)
    return folder


@pytest.fixture(scope="module")
def verified(exported: Path, digits: Path) -> dict[str, Any]:
    artefacts = sorted(exported.glob("*.openvino"))
    text = deploy("verify", *artefacts, "--data", digits / "held-out", "--samples", 64, "--layers", "--json").stdout
    report: dict[str, Any] = json.loads(text)
    return report


def subject(report: dict[str, Any], precision: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["subjects"] if one["precision"] == precision and one["file"])
    return found


@pytest.mark.slow
class TestTheDigits:
    def test_every_pair_that_exists_is_built(self, exported: Path) -> None:
        names = {path.name for path in exported.iterdir() if path.suffix != ".json"}
        assert names == {f"dualtoken-vit-t-mix.{end}" for end in ("fp32.onnx", "fp16.onnx", *(f"{one}.openvino" for one in PRECISIONS))}

    def test_all_agree_with_torch_within_their_own_tolerances(self, verified: dict[str, Any]) -> None:
        assert verified["verdict"]["passed"]
        for precision in PRECISIONS:
            groups = {one["feeds"]: one for one in subject(verified, precision)["parity"]}
            assert groups["images"]["agreement"] == 1.0
            assert all(one["max_abs"] <= one["tolerance"] for one in groups.values())

    def test_a_lower_precision_is_not_a_higher_one_by_another_name(self, verified: dict[str, Any]) -> None:
        """OpenVINO would compute all three in BF16 if it were not told."""
        fp32, fp16, bf16 = (subject(verified, precision)["parity"][0]["max_abs"] for precision in PRECISIONS)
        assert 100 * fp32 < fp16
        assert 3 * fp16 < bf16 or not HAS_BF16

    def test_figures_say_what_was_really_computed_in(self, verified: dict[str, Any]) -> None:
        fp32, bf16 = (subject(verified, precision)["conditions"] for precision in ("fp32", "bf16"))
        assert (fp32["precision"], fp32[HINT]) == ("fp32", "f32")
        assert re.fullmatch(r"f32 \d+", fp32["layers"])
        assert (fp32["PERFORMANCE_HINT"], fp32["NUM_STREAMS"], fp32["INFERENCE_NUM_THREADS"]) == ("LATENCY", "1", "1")
        assert fp32["ENABLE_CPU_PINNING"] == "False"
        if HAS_BF16:
            assert (bf16["precision"], bf16[HINT]) == ("bf16", "bf16")
            assert re.fullmatch(r"bf16 \d+", bf16["layers"])
        else:
            assert bf16["precision"] == "bf16 graph, computed in fp32: this CPU has no bf16 kernels"

    def test_no_layer_of_a_right_artefact_is_blamed(self, verified: dict[str, Any]) -> None:
        for precision in PRECISIONS:
            layers = subject(verified, precision)["layers"]
            assert layers["first"] is None
            assert len(layers["layers"]) > 700

    def test_the_hash_chain_goes_on_to_the_folder(self, exported: Path) -> None:
        for precision, kinds in (("bf16", ["simplified", "openvino"]), ("fp16", ["simplified", "float16", "openvino"])):
            path = exported / f"dualtoken-vit-t-mix.{precision}.openvino"
            lineage = load_artifact(path).manifest.lineage
            assert [link.kind for link in lineage] == ["checkpoint", "program", "onnx", *kinds]
            assert lineage[-1].sha256 == sha256_of(path)
            source = "fp16" if precision == "fp16" else "fp32"
            graph = load_artifact(exported / f"dualtoken-vit-t-mix.{source}.onnx").manifest
            assert lineage[-2] == graph.parent(kinds[-2])  # ONNX alone goes on from there to what loads on ARM64

    def test_bf16_is_the_fp32_graph_and_fp16_half_its_size(self, exported: Path) -> None:
        found = {one: load_artifact(exported / f"dualtoken-vit-t-mix.{one}.openvino") for one in PRECISIONS}
        assert found["bf16"].manifest.sha256 == found["fp32"].manifest.sha256
        assert found["fp16"].bytes < 0.6 * found["fp32"].bytes

    @pytest.mark.parametrize("file", ["model.xml", "model.bin"])
    def test_one_changed_byte_is_noticed(self, exported: Path, tmp_path: Path, file: str) -> None:
        path = spoilt(exported / "dualtoken-vit-t-mix.fp32.openvino", tmp_path, file)
        done = deploy("verify", path, code=2)
        assert f"{path} was changed after export" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.thorough
    def test_a_planted_error_is_blamed_on_its_module(
        self, exported: Path, digits: Path, tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]
    ) -> None:
        """A scale of 1.5 on one LayerNorm, as in the ONNX that the converter was given: what a converter's bug looks like."""
        model = onnx.load(exported / "dualtoken-vit-t-mix.fp32.onnx")
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "stages.1.3.norm2.weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
        onnx.save(model, tmp_path / "spoilt.onnx")
        source = exported / "dualtoken-vit-t-mix.fp32.openvino"
        path = tmp_path / source.name
        path.mkdir()
        openvino_from_onnx(tmp_path / "spoilt.onnx", path / GRAPH)
        vouch(path, load_artifact(source).manifest)
        done = deploy("verify", path, "--data", digits / "held-out", "--samples", 8, "--layers", "--json", code=1)
        assert subject(json.loads(done.stdout), "fp32")["layers"]["first"] == "stages.1.3.norm2"


def spoilt(source: Path, folder: Path, file: str) -> Path:
    """A copy with one bit of one file turned over."""
    path = Path(shutil.copytree(source, folder / source.name))
    shutil.copyfile(manifest_path(source), manifest_path(path))
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)
    return path


@pytest.mark.slow
class TestTheCommandLine:
    def test_two_exports_without_the_cache_are_byte_identical(self, out: Path, tiny: Path) -> None:
        precisions = ("-p", "bf16", "-p", "fp16", "-p", "fp32")  # in another order: OpenVINO counts what it has made
        deploy("export", "-m", "tiny:make", "-t", "openvino", *precisions, "-o", "again", "--no-cache", cwd=tiny, fresh=True)
        for path in out.rglob("*"):
            if path.is_file():
                assert (tiny / "again" / path.relative_to(out)).read_bytes() == path.read_bytes(), path

    @pytest.mark.parametrize(
        "words", [("export", "-m", "tiny:make", "-t", "openvino", "-o", "new"), ("verify", "out/tiny.make.fp32.openvino")]
    )
    def test_without_openvino_it_ends_at_once_and_says_how_to_get_it(self, out: Path, tiny: Path, words: tuple[str, ...]) -> None:
        del out
        done = deploy(*words, code=3, cwd=tiny, before="sys.modules['openvino'] = None")
        assert done.stderr.count("\n") == 2
        assert "which is not usable here: " in done.stderr
        assert done.stderr.endswith("  try: pip install 'dtvit-deploy[openvino]'\n")
        assert not (tiny / "new").exists()

    def test_a_precision_that_no_target_has_is_refused(self, tiny: Path) -> None:
        done = deploy("export", "-m", "tiny:make", "-t", "onnx", "-p", "fp32", "-p", "bf16", "-o", "new", code=2, cwd=tiny)
        assert "nothing can be built for bf16 with targets onnx" in done.stderr
        assert "openvino has fp32, fp16, bf16" in done.stderr
        assert not (tiny / "new").exists()

    @pytest.mark.parametrize("moves", range(4))
    def test_killed_while_it_replaces_another_it_is_absent_or_whole(self, out: Path, tiny: Path, tmp_path: Path, moves: int) -> None:
        here = tmp_path / "out"
        shutil.copytree(out, here)
        command = ("export", "-m", "tiny:make", "-t", "openvino", "-p", "fp32", "--seed", "1", "-o", here)
        deploy(*command, code=-signal.SIGKILL, cwd=tiny, before=KILL_AT_THE_MOVE.format(out=str(here), moves=moves))
        path = here / "tiny.make.fp32.openvino"
        if path.exists():
            load_artifact(path)  # the older or the new one; anything else is refused
        deploy(*command, cwd=tiny)
        lineage = load_artifact(path).manifest.lineage
        assert lineage[0].options["seed"] == 1
        assert {path.name for path in path.iterdir()} == {"model.bin", "model.xml"}
        assert not [path for path in here.iterdir() if path.name.startswith(".")]


KILL_AT_THE_MOVE = """
import os, signal
left = {moves}
def watch(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove") and any("{out}" in str(path) for path in arguments[:2]):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
sys.addaudithook(watch)
"""


class TestInt8:
    """Any Q/DQ graph: a convolution and a product, quantised by hand."""

    SIGNATURE = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 10)),))

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Artifact:
        path = tmp_path / "model.int8.onnx"
        onnx.save(quantised(), path)
        digest = sha256_of(path)
        manifest = Manifest(
            model="any",
            format="onnx",
            precision=Precision.INT8,
            sha256=digest,
            signature=self.SIGNATURE,
            lineage=(Link(kind="qdq", sha256=digest),),
        )
        write_json(manifest_path(path), manifest)
        return openvino_stage(load_artifact(path), Precision.INT8, Cache(tmp_path / "cache"))

    def test_it_runs_in_int8_and_says_so(self, artifact: Artifact) -> None:
        with OpenVinoRuntime().load(artifact, SessionOptions()) as session:
            conditions = session.conditions
        assert conditions["precision"] == "int8 where the graph is quantised, fp32 elsewhere"
        assert conditions[HINT] == "f32"
        assert re.search(r"\b[iu]8 \d", conditions["layers"])  # signed or not, as the CPU likes it

    def test_its_answer_and_its_inner_tensors_are_those_of_the_graph(self, artifact: Artifact) -> None:
        from onnx.reference import ReferenceEvaluator

        feed = {"image": np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)}
        names = ["logits", "conv2d", "relu"]
        expected = dict(zip(names, ReferenceEvaluator(tapped(quantised(), names[1:])).run(names, feed), strict=True))
        assert {"conv2d", "relu"} <= set(OpenVinoRuntime().tensors(artifact))
        with OpenVinoRuntime().load(artifact, SessionOptions(taps=("conv2d", "relu"))) as session:
            found = session.run(feed)
        assert list(found) == names
        for name in names:  # a step of the quantiser is 1/64; sums of it may round another way
            np.testing.assert_allclose(found[name], expected[name], atol=2 / 64, err_msg=name)


def tapped(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return model


def quantised() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "kernel": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "matrix": rng.integers(-127, 128, (144, 10)).astype(np.int8),
        "step": np.float32(1 / 64),
        "fine": np.float32(1 / 1024),
        "zero": np.int8(0),
        "flat": np.array([1, 144], np.int64),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["image_q"]),
        helper.make_node("DequantizeLinear", ["image_q", "step", "zero"], ["image_dq"]),
        helper.make_node("DequantizeLinear", ["kernel", "fine", "zero"], ["kernel_dq"]),
        helper.make_node("Conv", ["image_dq", "kernel_dq"], ["conv2d"]),
        helper.make_node("Relu", ["conv2d"], ["relu"]),
        helper.make_node("QuantizeLinear", ["relu", "step", "zero"], ["relu_q"]),
        helper.make_node("DequantizeLinear", ["relu_q", "step", "zero"], ["relu_dq"]),
        helper.make_node("Reshape", ["relu_dq", "flat"], ["view"]),
        helper.make_node("DequantizeLinear", ["matrix", "fine", "zero"], ["matrix_dq"]),
        helper.make_node("MatMul", ["view", "matrix_dq"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class TestWhatCannotBe:
    def test_an_operator_that_openvino_does_not_know_is_named(self, tmp_path: Path) -> None:
        node = helper.make_node("Unheard", ["x"], ["y"], domain="of.mine")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("of.mine", 1)]
        onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets), tmp_path / "model.onnx")
        with pytest.raises(InputError, match=r"cannot translate model\.onnx: .*of\.mine\.Unheard"):
            openvino_from_onnx(tmp_path / "model.onnx", tmp_path / GRAPH)
        assert not (tmp_path / GRAPH).exists()

    @pytest.mark.parametrize("hint", ["fp32", "f64", None, ["f32"]])
    def test_a_manifest_that_asks_for_another_arithmetic_is_refused(
        self, tmp_path: Path, hint: object, network: Callable[[], Artifact]
    ) -> None:
        artifact = network()
        link = msgspec.structs.replace(artifact.manifest.lineage[-1], options={HINT: hint})
        changed = Artifact(artifact.path, msgspec.structs.replace(artifact.manifest, lineage=(link,)))
        with pytest.raises(InputError, match=r"asks to compute in .*; known: f32, f16, bf16"):
            OpenVinoRuntime().load(changed, SessionOptions())

    def test_an_fp16_graph_is_never_computed_in_bf16(self, network: Callable[[], Artifact]) -> None:
        """To the hint f16 OpenVINO answers with BF16 on a CPU that has that and no FP16, which is eight times as coarse."""
        artifact = network()
        link = msgspec.structs.replace(artifact.manifest.lineage[-1], options={HINT: "f16"})
        manifest = msgspec.structs.replace(artifact.manifest, precision=Precision.FP16, lineage=(link,))
        with OpenVinoRuntime().load(Artifact(artifact.path, manifest), SessionOptions()) as session:
            assert session.conditions[HINT] in ("f16", "f32")
            if session.conditions[HINT] == "f32":
                assert session.conditions["precision"] == "fp16 graph, computed in fp32: this CPU has no f16 kernels"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Callable[[], Artifact]:
        """One product, as an artefact."""

        def made() -> Artifact:
            node = helper.make_node("MatMul", ["x", "w"], ["y"])
            ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
            weights = [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")]
            graph = helper.make_graph([node], "g", ends[:1], ends[1:], weights)
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx")
            path = tmp_path / "model.openvino"
            path.mkdir()
            openvino_from_onnx(tmp_path / "model.onnx", path / GRAPH)
            signature = Signature((TensorSpec("x", (1, 8)),), (TensorSpec("y", (1, 8)),))
            digest = sha256_of(path)
            link = Link(kind="openvino", sha256=digest, options={HINT: "f32"})
            return Artifact(
                path,
                Manifest(model="any", format="openvino", precision=Precision.FP32, sha256=digest, signature=signature, lineage=(link,)),
            )

        return made
