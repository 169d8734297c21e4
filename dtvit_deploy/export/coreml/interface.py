"""What a Core ML package shows to whoever opens it: inputs, outputs, class labels and the words that Xcode displays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.coreml.saved import coremltools
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions, ImageInput

TYPES = {"float32": np.float32, "float16": np.float32, "int32": np.int32, "int64": np.int32}
"""What an input or output becomes: Core ML has no 64-bit integers, and FP16 ones are FP32 here, as all are."""
LABEL, PROBABILITIES = "classLabel", "probabilities"
FINAL_PASSES = (
    "common::const_elimination",
    "common::cast_optimization",
    "common::const_deduplication",
    "common::remove_redundant_ops",
    "common::dead_code_elimination",
    "common::dedup_op_and_var_names",
)
"""Run on a program whose optimisation is done: all of coremltools' would take as long again, and rename what was named."""


@dataclass(frozen=True)
class Interface:
    """Names and types of what goes in and comes out.

    Attributes:
        model: as in the manifest.
        signature: of the program.
        classes: names of the classes, in the order of the scores; empty when unknown.
        options: what was asked for.
        image: the input that takes pixels; None where a tensor is fed.
        scores: output that the classifier reads; None where there is no classifier.
    """

    model: str
    signature: Signature
    classes: tuple[str, ...]
    options: CoreMlOptions
    image: ImageInput | None = None
    scores: str | None = None

    def __post_init__(self) -> None:
        for spec in (*self.signature.inputs, *self.signature.outputs):
            if not re.fullmatch(r"[A-Za-z_]\w*", spec.name, re.ASCII):
                raise InputError(
                    f"Core ML cannot name a tensor {spec.name!r}: its names are identifiers",
                    remedy="name inputs and outputs with --input and --output, of letters, digits and underscores",
                )
            if spec.dtype not in TYPES:
                raise InputError(
                    f"Core ML has no {spec.dtype} for inputs and outputs, which {spec.name!r} is",
                    remedy=f"convert it inside the network; it has {', '.join(TYPES)}",
                )
            if len(spec.shape) > 5:
                raise InputError(
                    f"Core ML has tensors of at most 5 axes, and {spec.name!r} has {len(spec.shape)}",
                    remedy="reshape it inside the network",
                )

    def target(self, ct: Any) -> Any:
        return getattr(ct.target, f"iOS{self.options.ios}")

    def tensors(self, ct: Any) -> list[Any]:
        """All inputs as tensors, as the program has them."""
        return [ct.TensorType(name=spec.name, shape=spec.shape, dtype=TYPES[spec.dtype]) for spec in self.signature.inputs]

    def outputs(self, ct: Any) -> list[Any]:
        return [ct.TensorType(name=spec.name, dtype=TYPES[spec.dtype]) for spec in self.signature.outputs]

    def model_of(self, ct: Any, program: Any) -> Any:
        """A MIL program with everything around it: an ``MLModel``."""
        return self._described(model_of_mil(program, self.options.ios, inputs=self._types(ct), classifier=self._classifier(ct, program)))

    def _types(self, ct: Any) -> list[Any]:
        if self.image is None:
            return self.tensors(ct)
        (spec,) = self.signature.inputs
        scale = np.reshape(self.image.scale, (1, 3, 1, 1)).tolist()  # nested, since one for each channel must not broadcast over columns
        layout = ct.colorlayout.RGB if self.image.color == "RGB" else ct.colorlayout.BGR
        return [ct.ImageType(name=spec.name, shape=spec.shape, scale=scale, bias=list(self.image.bias), color_layout=layout)]

    def _classifier(self, ct: Any, program: Any) -> Any:
        """Softmax over the scores, for coremltools to name the likeliest of; the network's own outputs stay.

        Given the scores themselves, coremltools would hand them out as probabilities, in place of the output.
        """
        if self.scores is None:
            return None
        from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 everybody calls it so
        from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

        function = program.functions["main"]
        (scores,) = (var for var in function.outputs if var.name == self.scores)
        nowhere = [ScopeInfo(source, [None]) for source in (ScopeSource.EXIR_STACK_TRACE, ScopeSource.EXIR_DEBUG_HANDLE)]
        with function, mb.scope(*nowhere):
            probabilities = mb.softmax(x=scores, axis=-1, name=PROBABILITIES)
        function.set_outputs([*function.outputs, probabilities])
        function.output_types = None  # they are what they are by now, and coremltools would count them
        return ct.ClassifierConfig(list(self.classes), LABEL, PROBABILITIES)

    def _described(self, model: Any) -> Any:
        asked, words = self.options, model._spec.description.metadata
        words.author, words.license, words.versionString = asked.author, asked.licence, asked.version
        words.shortDescription = asked.description or f"{self.model}, exported by dtvit-deploy"
        if self.classes:
            words.userDefined["classes"] = ",".join(self.classes)
        told = {spec.name: " ".join(str(spec).split()[1:]) for spec in (*self.signature.inputs, *self.signature.outputs)}
        if self.image is not None:
            told[self.image.name] = f"{self.image.color} image; its pixels are normalised inside"
        for feature in (*model._spec.description.input, *model._spec.description.output):
            feature.shortDescription = told.get(feature.name, "")
        return model


def model_of_mil(program: Any, ios: int, *, inputs: Any = None, classifier: Any = None, description: Any = None) -> Any:
    """A MIL program whose optimisation is done, as an ``MLModel``."""
    ct = coremltools()
    from coremltools.converters.mil.converter import mil_convert

    return mil_convert(
        program,
        convert_from="milinternal",
        convert_to="mlprogram",
        compute_units=ct.ComputeUnit.ALL,
        specification_version=getattr(ct.target, f"iOS{ios}"),
        main_pipeline=ct.PassPipeline(list(FINAL_PASSES), "final"),
        skip_model_load=True,
        **({"inputs": inputs} if inputs is not None else {}),
        **({"classifier_config": classifier} if classifier is not None else {}),
        **({"model_description": description} if description is not None else {}),
    )
