"""Packages that are not what they should be: each is refused with one sentence, and none makes the evaluator guess."""

from __future__ import annotations

import json
import os
import shutil
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.errors import InputError  # noqa: E402
from dtvit_deploy.process.quiet import quiet  # noqa: E402
from dtvit_deploy.runtimes.base import MissingOperatorError  # noqa: E402
from dtvit_deploy.runtimes.mil.call import OPS, Registered  # noqa: E402
from dtvit_deploy.runtimes.mil.evaluate import Evaluator  # noqa: E402
from dtvit_deploy.runtimes.mil.load import load_program  # noqa: E402
from dtvit_deploy.runtimes.mil.names import tensors_by_node  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Operation, Program, Type, Variable  # noqa: E402
from dtvit_deploy.runtimes.mil.proto import model_proto  # noqa: E402

SPECIFICATION, WEIGHTS = Path("Data/com.apple.CoreML/model.mlmodel"), Path("Data/com.apple.CoreML/weights/weight.bin")
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((5, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer and a softmax, written down in MIL itself and saved by coremltools."""
    model_proto()
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - everybody calls it so

    path = tmp_path_factory.mktemp("whole") / "net.mlpackage"
    with quiet():

        @mb.program(input_specs=[mb.TensorSpec(shape=(2, 20))], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator, unused-ignore]
        def program(x: Any) -> Any:
            return mb.softmax(x=mb.linear(x=x, weight=WEIGHT, name="scores"), axis=-1, name="answer")

        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(path))
    return path


@pytest.fixture
def package(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "net.mlpackage"))


def edit(package: Path, change: Callable[[Any], None]) -> None:
    model = model_proto().Model()
    model.ParseFromString((package / SPECIFICATION).read_bytes())
    change(model)
    (package / SPECIFICATION).write_bytes(model.SerializeToString())


def block(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML7"]


def values(model: Any) -> list[Any]:
    return [one.attributes["val"] for one in block(model).operations if one.type == "const"]


def blob(model: Any) -> Any:
    return next(value for value in values(model) if value.WhichOneof("value") == "blobFileValue")


def evaluator_of(package: Path) -> Evaluator:
    program = load_program(package)
    return Evaluator(program, program.outputs)


def refused(package: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        evaluator_of(package)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy


def test_a_whole_one_is_evaluated(package: Path) -> None:
    program = load_program(package)
    x = RNG.standard_normal((2, 20)).astype(np.float32)
    made = Evaluator(program, program.outputs).run({"x": torch.from_numpy(x)})["answer"].numpy()
    scores = np.exp(x @ WEIGHT.T)
    np.testing.assert_allclose(made, scores / scores.sum(-1, keepdims=True), rtol=1e-5)


def test_tensors_are_let_go_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def step(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        made.append(weakref.ref(y))
        alive.append(sum(one() is not None for one in made))
        return y

    monkeypatch.setitem(OPS, "step", Registered(lambda call: call.on(step, "x"), exact=False))
    kind = Type("fp32", (2,))
    chain = tuple(Operation("step", {"x": (f"v{at}",)}, (Variable(f"v{at + 1}", kind),)) for at in range(20))
    program = Program("CoreML7", (Variable("v0", kind),), ("v20",), chain)
    evaluator = Evaluator(program, ("v20", "v7"))
    made.clear()
    alive.clear()
    answer = evaluator.run({"v0": torch.zeros(2)})
    assert (answer["v20"].tolist(), answer["v7"].tolist()) == ([20.0, 20.0], [7.0, 7.0])
    assert max(alive) <= 3  # the one before, the one made, and what was asked for


class TestFolder:
    def test_without_a_manifest(self, package: Path) -> None:
        (package / "Manifest.json").unlink()
        refused(package, r"net\.mlpackage is not an \.mlpackage: its Manifest\.json cannot be read")

    def test_a_manifest_that_names_no_model(self, package: Path) -> None:
        (package / "Manifest.json").write_text(json.dumps({"rootModelIdentifier": "a", "itemInfoEntries": {}}))
        refused(package, "names no model")

    @pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd"])
    def test_a_manifest_that_reaches_out(self, package: Path, path: str) -> None:
        (package / "Manifest.json").write_text(json.dumps({"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": path}}}))
        refused(package, "which is outside of it")

    def test_without_its_specification(self, package: Path) -> None:
        (package / SPECIFICATION).unlink()
        refused(package, r"the package's specification model\.mlmodel cannot be read: No such file")

    def test_without_its_weights(self, package: Path) -> None:
        (package / WEIGHTS).unlink()
        refused(package, r"the package's weights weight\.bin cannot be read: No such file")

    @pytest.mark.parametrize("path", [Path("Manifest.json"), SPECIFICATION, WEIGHTS])
    def test_a_pipe_is_not_waited_for(self, package: Path, path: Path) -> None:
        (package / path).unlink()
        os.mkfifo(package / path)
        refused(package, rf"the package's {path.name} is no plain file")

    def test_links_that_go_round(self, package: Path) -> None:
        (package / SPECIFICATION).unlink()
        (package / SPECIFICATION).symlink_to(package / SPECIFICATION)
        refused(package, "which leads nowhere|cannot be read")


class TestSpecification:
    @pytest.mark.parametrize("version", [0, 5, 99])
    def test_of_an_unknown_version(self, package: Path, version: int) -> None:
        edit(package, lambda model: setattr(model, "specificationVersion", version))
        refused(package, f"has specification version {version}; this version reads ML programs of 6 to 10")

    def test_a_neural_network(self, package: Path) -> None:
        edit(package, lambda model: model.neuralNetwork.layers.add())
        refused(package, "holds neuralNetwork, not an ML program")

    def test_several_functions(self, package: Path) -> None:
        edit(package, lambda model: model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"]))
        refused(package, r"has 2 functions \(main, other\)")

    def test_an_opset_that_it_does_not_hold(self, package: Path) -> None:
        edit(package, lambda model: setattr(model.mlProgram.functions["main"], "opset", "CoreML6"))
        refused(package, "has no program for its opset 'CoreML6'")

    def test_state(self, package: Path) -> None:
        def change(model: Any) -> None:
            kind = model.mlProgram.functions["main"].inputs[0].type
            kind.stateType.wrappedType.tensorType.SetInParent()

        edit(package, change)
        refused(package, "x is a stateType, not a tensor")

    def test_a_shape_that_no_memory_holds(self, package: Path) -> None:
        def change(model: Any) -> None:
            model.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[0].constant.size = 2**40

        edit(package, change)
        refused(package, "x is declared 1099511627776×20 fp32 of rank 2, which cannot be")

    @pytest.mark.parametrize("shape", [(0, 2**63), (0, 2**27, 2**27), (1,) * 99])
    def test_a_constant_that_has_no_shape(self, package: Path, shape: tuple[int, ...]) -> None:
        def change(model: Any) -> None:
            kind = blob(model).type.tensorType
            kind.rank = len(shape)
            del kind.dimensions[:]
            for size in shape:
                kind.dimensions.add().constant.size = size

        edit(package, change)
        refused(package, "which cannot be")

    def test_an_open_shape(self, package: Path) -> None:
        def change(model: Any) -> None:
            model.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[0].unknown.variadic = False

        edit(package, change)
        refused(package, r"x is \?×20 fp32; it must be a tensor of static shape")

    def test_an_operator_on_what_nothing_makes(self, package: Path) -> None:
        def change(model: Any) -> None:
            softmax = next(one for one in block(model).operations if one.type == "softmax")
            softmax.inputs["x"].arguments[0].name = "nowhere"

        edit(package, change)
        refused(package, "the program's softmax answer cannot be evaluated: its x is nowhere, which nothing before it makes")

    def test_an_operator_without_what_it_needs(self, package: Path) -> None:
        def change(model: Any) -> None:
            del next(one for one in block(model).operations if one.type == "linear").inputs["weight"]

        edit(package, change)
        refused(package, "the program's linear scores cannot be evaluated: it has no weight")

    def test_an_operator_that_is_not_known_is_named_with_what_it_makes(self, package: Path) -> None:
        def change(model: Any) -> None:
            next(one for one in block(model).operations if one.type == "linear").type = "svd"

        edit(package, change)
        program = load_program(package)
        with pytest.raises(
            MissingOperatorError, match=r"operators of CoreML7 that are not evaluated here: svd \(first for scores\)"
        ) as caught:
            Evaluator(program, program.outputs)
        assert caught.value.variables == {"svd": "scores"}

    def test_constants_of_another_number_than_declared(self, package: Path) -> None:
        def change(model: Any) -> None:
            axis = next(one for one in values(model) if one.immediateValue.tensor.HasField("ints"))
            axis.immediateValue.tensor.ints.values.append(1)

        edit(package, change)
        refused(package, "has 2 values, 1 are declared")


class TestWeights:
    @pytest.mark.parametrize("offset", [1 << 20, 1 << 62, 65])
    def test_an_offset_where_nothing_is(self, package: Path, offset: int) -> None:
        edit(package, lambda model: setattr(blob(model).blobFileValue, "offset", offset))
        refused(package, f"the blob at byte {offset} of weight.bin does not exist")

    def test_an_offset_into_the_middle(self, package: Path) -> None:
        edit(package, lambda model: setattr(blob(model).blobFileValue, "offset", 128))
        refused(package, r"the blob at byte 128 of weight\.bin does not exist: no metadata are there")

    def test_a_file_that_ends_too_early(self, package: Path) -> None:
        data = (package / WEIGHTS).read_bytes()
        (package / WEIGHTS).write_bytes(data[: 128 + 100])
        refused(package, r"the blob at byte 64 of weight\.bin ends at byte 528, the file at 228")

    def test_data_beyond_the_file(self, package: Path) -> None:
        data = bytearray((package / WEIGHTS).read_bytes())
        struct.pack_into("<Q", data, 64 + 16, 2**63)
        (package / WEIGHTS).write_bytes(data)
        refused(package, r"ends at byte 9,223,372,036,854,776,208, the file at")

    @pytest.mark.parametrize(("field", "value"), [(4, struct.pack("<I", 1)), (8, struct.pack("<Q", 396))], ids=["type", "size"])
    def test_another_type_or_size_than_declared(self, package: Path, field: int, value: bytes) -> None:
        data = bytearray((package / WEIGHTS).read_bytes())
        data[64 + field : 64 + field + len(value)] = value
        (package / WEIGHTS).write_bytes(data)
        refused(package, r"the blob at byte 64 of weight\.bin has .* bytes of fp(16|32), the program declares 400 of fp32")

    def test_another_format(self, package: Path) -> None:
        (package / WEIGHTS).write_bytes(struct.pack("<II", 1, 1) + bytes(1000))
        refused(package, r"weight\.bin is not a file of weights in blob storage version 2")

    @pytest.mark.parametrize("name", ["@model_path/../../../../secret.bin", "/etc/passwd"])
    def test_a_file_outside_of_the_package(self, package: Path, name: str) -> None:
        edit(package, lambda model: setattr(blob(model).blobFileValue, "fileName", name))
        refused(package, "which is outside of it")

    def test_constants_that_share_a_blob(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.runtimes.mil.load.MOST_BYTES", 1000)

        def change(model: Any) -> None:
            for at in range(3):
                copy = block(model).operations.add()
                copy.CopyFrom(next(one for one in block(model).operations if one.type == "const"))
                copy.attributes["val"].CopyFrom(blob(model))
                copy.outputs[0].name = f"copy_{at}"

        edit(package, change)
        refused(package, "with that of copy_., the constants take more than 1,000 bytes")


class TestNames:
    """Which variables stand for which nodes; each case is one that coremltools makes."""

    def nodes(self, *made: tuple[str, str]) -> dict[str, str]:
        kind = Type("fp32", (1,))
        operations = tuple(Operation(op, {}, tuple(Variable(one, kind) for one in names.split())) for op, names in made)
        return tensors_by_node(Program("CoreML7", (Variable("image", kind),), ("logits",), operations))

    def test_suffixes_come_off(self) -> None:
        made = (("conv", "conv2d_4_cast_fp16"), ("linear", "linear_0_cast_fp16"), ("mul", "mul_3_1_cast_fp16"), ("gelu", "gelu"))
        assert list(self.nodes(*made)) == ["conv2d_4", "linear", "mul_3", "gelu"]

    def test_only_where_one_variable_is_left(self) -> None:
        assert self.nodes(("mul", "mul_3"), ("mul", "mul_3_1"), ("linear", "linear"), ("linear", "linear_0")) == {
            "linear": "linear",
            "linear_0": "linear_0",
        }

    def test_what_passes_make_stands_for_no_node(self) -> None:
        made = (
            ("cast", "image_to_fp16"),
            ("transpose", "transpose_7"),
            ("split", "split_1_0 split_1_1"),
            ("dequantize", "gelu_dequantized"),
        )
        assert self.nodes(*made) == {}

    def test_what_moves_values_stands_for_the_node_that_it_is_named_after(self) -> None:
        assert list(self.nodes(("transpose", "permute_1"), ("split", "getitem getitem_1"), ("relu", "logits"))) == [
            "permute_1",
            "getitem",
            "getitem_1",
        ]


class TestCompressedWeights:
    """What coremltools stores compressed means what coremltools itself decompresses it to."""

    @pytest.mark.parametrize("ios", [16, 18])
    @pytest.mark.parametrize("kind", ["int8", "int4", "palette 4", "palette 6", "sparse"])
    def test_they_are_those_that_are_decompressed(self, kind: str, ios: int, tmp_path: Path) -> None:
        if kind == "int4" and ios < 18:
            pytest.skip("four bits came with iOS 18")
        import coremltools as ct
        import coremltools.optimize.coreml as cto
        from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - everybody calls it so

        weight = RNG.standard_normal((64, 64)).astype(np.float32)
        target = getattr(ct.target, f"iOS{ios}")
        configs = {
            "int8": cto.OpLinearQuantizerConfig(mode="linear", weight_threshold=0),
            "int4": cto.OpLinearQuantizerConfig(mode="linear", dtype="int4", granularity="per_block", block_size=16, weight_threshold=0)
            if ios > 16
            else None,
            "palette 4": cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0),
            "palette 6": cto.OpPalettizerConfig(mode="uniform", nbits=6, weight_threshold=0),
            "sparse": cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0),
        }
        compress = {"int": cto.linear_quantize_weights, "pal": cto.palettize_weights, "spa": cto.prune_weights}[kind[:3]]
        with quiet():

            @mb.program(input_specs=[mb.TensorSpec(shape=(2, 64))], opset_version=target)  # type: ignore[untyped-decorator, unused-ignore]
            def program(x: Any) -> Any:
                return mb.linear(x=x, weight=weight, name="answer")

            model = ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=target,
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
            )
            small = compress(model, cto.OptimizationConfig(global_config=configs[kind]))
            small.save(str(tmp_path / "small.mlpackage"))
            cto.decompress_weights(small).save(str(tmp_path / "large.mlpackage"))
        programs = [load_program(tmp_path / f"{name}.mlpackage") for name in ("small", "large")]
        kinds = [{operation.type for operation in one.operations} for one in programs]
        assert any(one.startswith("constexpr_") for one in kinds[0])
        assert not any(one.startswith("constexpr_") for one in kinds[1])
        x = torch.from_numpy(RNG.standard_normal((2, 64)).astype(np.float32))
        answers = [Evaluator(one, one.outputs).run({"x": x})["answer"].numpy() for one in programs]
        np.testing.assert_allclose(*answers, rtol=1e-6, atol=1e-6)
        assert np.abs(answers[0] - x.numpy() @ weight.T).max() > 1e-3  # it is compressed
