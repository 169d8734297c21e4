"""One operator at a time: a program of it alone, the reference's own value inference, and arrays with all that may be in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("google.protobuf", reason="coremltools brings it")

from numpy.typing import NDArray  # noqa: E402

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact  # noqa: E402
from dtvit_deploy.artifacts.target import Precision  # noqa: E402
from dtvit_deploy.errors import MissingError  # noqa: E402
from dtvit_deploy.pipeline.stages import describe  # noqa: E402
from dtvit_deploy.process.quiet import quiet  # noqa: E402
from dtvit_deploy.runtimes.mil.evaluate import Evaluator, numbers  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Constant, Operation, Program, Type, Variable  # noqa: E402
from dtvit_deploy.runtimes.mil.proto import model_proto  # noqa: E402
from dtvit_deploy.runtimes.torch.session import read_program  # noqa: E402

Array = NDArray[Any]
NAMES = {"float16": "fp16", "float32": "fp32", "float64": "fp64"}


def dtype_of(array: Array) -> str:
    return NAMES.get(array.dtype.name, array.dtype.name)


def type_of(array: Array, dtype: str | None = None) -> Type:
    return Type(dtype or dtype_of(array), array.shape)


def constant(value: Any, dtype: str | None = None) -> Constant:
    if isinstance(value, Constant):
        return value
    if isinstance(value, str):
        return Constant(Type("string"), value)
    array = np.asarray(value)
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    held = array.astype(np.float32) if array.dtype == np.float16 else array
    held = held.astype(np.int32) if array.dtype == np.uint16 else held
    return Constant(type_of(array, dtype), torch.from_numpy(np.array(held)))


@pytest.fixture(scope="session")
def mil_op() -> Callable[..., Any]:
    """Evaluate one operator: ``mil_op("add", {"x": x, "y": y}, [Type("fp32", shape)], **constants)``."""

    def evaluate(kind: str, variables: Mapping[str, Any], declared: list[Type], **constants: Any) -> list[Array]:
        inputs: dict[str, tuple[Any, ...]] = {name: (constant(value),) for name, value in constants.items() if value is not None}
        feeds: dict[str, Array] = {}
        for name, given in variables.items():
            several = given if isinstance(given, list) else [given]
            names = [f"{name}.{index}" for index in range(len(several))]
            feeds |= dict(zip(names, several, strict=True))
            inputs[name] = tuple(names)
        outputs = tuple(Variable(f"out.{index}", one) for index, one in enumerate(declared))
        program = Program(
            opset="CoreML7",
            inputs=tuple(Variable(name, type_of(array)) for name, array in feeds.items()),
            outputs=tuple(output.name for output in outputs),
            operations=(Operation(kind, inputs, outputs),),
        )
        tensors = {
            name: torch.from_numpy(np.array(array.astype(np.int32) if array.dtype == np.uint16 else array)) for name, array in feeds.items()
        }
        made = Evaluator(program, program.outputs).run(tensors)
        return [numbers(made[output.name], output.type) for output in outputs]

    return evaluate


@pytest.fixture(scope="session")
def agrees(mil_op: Callable[..., Any]) -> Callable[..., None]:
    """Evaluate one operator and compare with what is expected of it, in the type that is declared for it."""

    def check(
        kind: str, variables: Mapping[str, Any], expected: Any, *, rtol: float = 1e-5, atol: float | None = None, **constants: Any
    ) -> None:
        wanted = [np.asarray(one) for one in (expected if isinstance(expected, (tuple, list)) else [expected])]
        made = mil_op(kind, variables, [type_of(one) for one in wanted], **constants)
        for answer, want in zip(made, wanted, strict=True):
            assert answer.dtype == want.dtype
            if want.dtype == np.float16:  # half a unit in the last place of FP32 may go to either side of a tie
                np.testing.assert_allclose(
                    answer.astype(np.float32), want.astype(np.float32), rtol=2**-10, atol=atol or 2**-24, err_msg=kind
                )
            else:
                np.testing.assert_allclose(answer, want, rtol=rtol, atol=atol or 1e-6, err_msg=kind)

    return check


@pytest.fixture(scope="session")
def inferred() -> Callable[..., Any]:
    """What the reference's value inference says of an operator on constants."""
    try:
        model_proto()
    except MissingError as error:
        pytest.skip(str(error))
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, Function

    def infer(kind: str, **parameters: Any) -> Any:
        with np.errstate(all="ignore"), Function({}, opset_version=ct.target.iOS17):
            made = getattr(Builder, kind)(**parameters)
        return [one.val for one in made] if isinstance(made, (tuple, list)) else made.val

    return infer


@pytest.fixture(scope="session")
def translated() -> Callable[[Artifact, Precision, Path], Artifact]:
    """A program as coremltools alone translates it, without what this package's exporter does: a second opinion on that."""
    try:
        model_proto()
    except MissingError as error:
        pytest.skip(str(error))
    import coremltools as ct

    def convert(program: Artifact, precision: Precision, folder: Path) -> Artifact:
        path = folder / f"net.{precision}.mlpackage"
        with quiet():
            ct.convert(
                read_program(program).run_decompositions({}),
                inputs=[ct.TensorType(name=spec.name, shape=spec.shape) for spec in program.manifest.signature.inputs],
                outputs=[ct.TensorType(name=spec.name) for spec in program.manifest.signature.outputs],
                compute_precision=ct.precision.FLOAT32 if precision is Precision.FP32 else ct.precision.FLOAT16,
                minimum_deployment_target=ct.target.iOS17,
                skip_model_load=True,
            ).save(str(path))
        describe(path, program.manifest, precision, "coreml", {}, {}, ())
        return load_artifact(path)

    return convert
