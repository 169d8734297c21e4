"""What an app sees of a package: pictures, labels, outputs. The numbers stay right in every one of these, and an app would be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of  # noqa: E402
from dtvit_deploy.artifacts.signature import Signature, TensorSpec  # noqa: E402
from dtvit_deploy.artifacts.target import Precision  # noqa: E402
from dtvit_deploy.errors import InputError  # noqa: E402
from dtvit_deploy.process.quiet import quiet  # noqa: E402
from dtvit_deploy.runtimes.base import SessionOptions  # noqa: E402
from dtvit_deploy.runtimes.mil.proto import model_proto  # noqa: E402
from dtvit_deploy.runtimes.mil.runtime import MilRuntime  # noqa: E402

SPECIFICATION = Path("Data/com.apple.CoreML/model.mlmodel")
SIGNATURE = Signature(inputs=(TensorSpec("image", (1, 3, 4, 6), "float32"),), outputs=(TensorSpec("logits", (1, 3), "float32"),))
PIXELS = {"name": "image", "color": "BGR", "scale": (1.0, 1.0, 1.0), "bias": (0.0, 0.0, 0.0)}
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of pictures: the mean of each channel."""
    model_proto()
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - everybody calls it so

    path = tmp_path_factory.mktemp("whole") / "net.mlpackage"
    with quiet():

        @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 4, 6))], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator, unused-ignore]
        def program(image: Any) -> Any:
            scores = mb.reduce_mean(x=image, axes=[2, 3], keep_dims=False, name="logits")
            return scores, mb.softmax(x=scores, axis=-1, name="probabilities")

        ct.convert(
            program,
            convert_to="mlprogram",
            inputs=[ct.ImageType(name="image", shape=(1, 3, 4, 6), color_layout=ct.colorlayout.BGR)],
            classifier_config=ct.ClassifierConfig(list(CLASSES), "label", "probabilities"),
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(path))
    return path


@pytest.fixture
def package(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "net.mlpackage"))


def answer(package: Path, pixels: dict[str, Any] | None = PIXELS, classes: tuple[str, ...] = CLASSES, **told: Any) -> Any:
    digest = sha256_of(package)
    link = Link(kind="coreml", sha256=digest, options={"image": pixels, "classifier": True} | told)
    facts: dict[str, Any] = {
        "format": "mlpackage",
        "precision": Precision.FP32,
        "signature": SIGNATURE,
        "lineage": (link,),
        "classes": classes,
    }
    artifact = Artifact(package, Manifest(model="mine:net", sha256=digest, **facts))
    with MilRuntime().load(artifact, SessionOptions()) as session:
        return session.run({"image": np.arange(72, dtype=np.float32).reshape(1, 3, 4, 6)})["logits"]


def operations(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML7"].operations


def of_type(model: Any, kind: str) -> Any:
    return next(one for one in operations(model) if one.type == kind)


def swap_labels(model: Any) -> None:
    one, two, _ = of_type(model, "classify").inputs["classes"].arguments[0].value.immediateValue.list.values
    one.immediateValue.tensor.strings.values[0], two.immediateValue.tensor.strings.values[0] = "dog", "cat"


def image(model: Any) -> Any:
    return model.description.input[0].type.imageType


def logits(model: Any) -> Any:
    return next(feature for feature in model.description.output if feature.name == "logits").type.multiArrayType


def reshaped(*sizes: int) -> Callable[[Any], None]:
    """What gave the logits gives them another name, and a reshape makes logits of it."""

    def change(model: Any) -> None:
        mean = of_type(model, "reduce_mean")
        mean.outputs[0].name = "before"
        of_type(model, "softmax").inputs["x"].arguments[0].name = "before"
        made = operations(model).add(type="reshape")
        made.inputs["x"].arguments.add().name = "before"
        shape = made.inputs["shape"].arguments.add().value
        shape.type.tensorType.dataType, shape.type.tensorType.rank = 23, 1
        shape.type.tensorType.dimensions.add().constant.size = len(sizes)
        shape.immediateValue.tensor.ints.values.extend(sizes)
        output = made.outputs.add(name="logits").type.tensorType
        output.dataType, output.rank = 11, len(sizes)
        for size in sizes:
            output.dimensions.add().constant.size = size
        del logits(model).shape[:]
        logits(model).shape.extend(sizes)

    return change


def declared_string(model: Any) -> None:
    of_type(model, "reduce_mean").outputs[0].type.tensorType.dataType = 2


def whole_numbers(model: Any) -> None:
    logits(model).dataType = 131104


def another_label(model: Any) -> None:
    model.description.predictedFeatureName = "logits"


def told_classes(model: Any) -> None:
    model.description.metadata.userDefined["classes"] = "dog,cat,owl"


def any_size(model: Any) -> None:
    image(model).imageSizeRange.widthRange.lowerBound = 1


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "colour": (lambda model: setattr(image(model), "colorSpace", 20), "an image of 6×4 pixels in RGB, the manifest .* 6×4 pixels in BGR"),
    "width": (lambda model: setattr(image(model), "width", 99), "image is an image of 99×4 pixels in BGR"),
    "any size": (any_size, "image is an image of any size"),
    "labels": (swap_labels, "it answers with the labels dog, cat, owl; the classes are cat, dog, owl"),
    "label": (another_label, "its description tells that the label and the probabilities are"),
    "told classes": (told_classes, "its description tells of the classes dog,cat,owl"),
    "whole numbers": (whole_numbers, "logits is an array of 1×3 integers, the manifest that it is an array of 1×3 numbers"),
    "described shape": (lambda model: logits(model).shape.append(1), "logits is an array of 1×3×1 numbers"),
    "no logits": (lambda model: model.description.output.pop(), "its description tells of"),
    "vector": (reshaped(3), "logits is 3 fp32 in the program, and"),
    "one axis more": (reshaped(1, 1, 3), "logits is 1×1×3 fp32 in the program, and"),
    "string": (declared_string, "logits is 1×3 string in the program, and"),
}


def test_a_right_one_answers(package: Path) -> None:
    np.testing.assert_allclose(answer(package), np.arange(72).reshape(1, 3, 24).mean(-1))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_one_is_refused(wrong: str, package: Path) -> None:
    change, said = WRONG[wrong]
    model = model_proto().Model()
    model.ParseFromString((package / SPECIFICATION).read_bytes())
    change(model)
    (package / SPECIFICATION).write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=rf"net\.mlpackage is not the program that its manifest describes: .*{said}"):
        answer(package)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"pixels": None}, "image is an image of 6×4 pixels in BGR, the manifest that it is an array of 1×3×4×6 numbers"),
        ({"classes": ("cat", "owl", "dog")}, "with the labels cat, dog, owl; the classes are cat, owl, dog"),
        ({"classifier": False}, "it is a classifier"),
    ],
)
def test_another_manifest_is_refused(told: dict[str, Any], said: str, package: Path) -> None:
    with pytest.raises(InputError, match=said):
        answer(package, **told)
