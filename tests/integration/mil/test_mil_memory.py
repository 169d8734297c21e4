"""Small programs that ask for more memory than there is, in ways that no declared shape tells of, and outputs that nothing makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("google.protobuf", reason="coremltools brings it")

from dtvit_deploy.errors import InputError  # noqa: E402
from dtvit_deploy.runtimes.mil.evaluate import Evaluator  # noqa: E402
from dtvit_deploy.runtimes.mil.program import Constant, Operation, Program, Type, Variable  # noqa: E402

VECTOR, COLUMN, ROW = Type("fp32", (5,)), Type("fp32", (2**20, 1)), Type("fp32", (1, 2**20))


def constant(value: Any) -> Constant:
    if isinstance(value, str):
        return Constant(Type("string"), value)
    dtype = {"float32": "fp32"}.get(value.dtype.name, value.dtype.name)
    return Constant(Type(dtype, value.shape), torch.from_numpy(np.array(value)))


def one(kind: str, variables: dict[str, Type], declared: tuple[Type, ...], **constants: Any) -> Program:
    parameters = {name: tuple(key for key in variables if key.startswith(name)) for name in {key[:-1] for key in variables}}
    given = {name: (constant(value),) for name, value in constants.items()}
    made = tuple(Variable(f"out.{at}", each) for at, each in enumerate(declared))
    inputs = tuple(Variable(name, each) for name, each in variables.items())
    return Program("CoreML7", inputs, tuple(one.name for one in made), (Operation(kind, {**parameters, **given}, made),))


class TestMemory:
    @pytest.mark.parametrize(
        ("kind", "variables", "constants"),
        [
            ("add", {"x0": COLUMN, "y0": ROW}, {}),
            ("matmul", {"x0": COLUMN, "y0": ROW}, {}),
            ("einsum", {"values0": COLUMN, "values1": ROW}, {"equation": "ab,bc->ac"}),
            ("einsum", {"values0": COLUMN, "values1": COLUMN}, {"equation": "ab,cb->"}),
            ("linear", {"x0": COLUMN, "weight0": COLUMN}, {}),
            ("concat", {f"values{at}": Type("fp32", (2**26, 1)) for at in range(9)}, {"axis": np.int32(0)}),
            (
                "conv",
                {"x0": Type("fp32", (1, 1, 4, 4)), "weight0": Type("fp32", (1, 1, 3, 3))},
                {"pad_type": "custom", "pad": np.int32([2**20, 0, 2**20, 0])},
            ),
            (
                "avg_pool",
                {"x0": Type("fp32", (1, 1, 4, 4))},
                {
                    "kernel_sizes": np.int32([2, 2]),
                    "pad_type": "custom",
                    "pad": np.int32([2**20, 0, 2**20, 0]),
                    "exclude_padding_from_average": np.bool_(True),
                },
            ),
        ],
    )
    def test_one_operator(self, kind: str, variables: dict[str, Type], constants: dict[str, Any]) -> None:
        program = one(kind, variables, (VECTOR,), **constants)
        with pytest.raises(InputError, match=rf"the program's {kind} out\.0 cannot be evaluated: (it would make|it makes|its pad is)"):
            Evaluator(program, program.outputs)

    def test_many_constants_that_are_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.runtimes.mil.evaluate.MOST_BYTES", 1 << 20)
        kind = Type("fp32", (1 << 16,))
        fills = tuple(Operation("fill", {"shape": (constant(np.int32([1 << 16])),)}, (Variable(f"f{at}", kind),)) for at in range(6))
        with pytest.raises(
            InputError, match=r"the program's fill f4 .*: with what it makes, 1,310,720 bytes would be held; at most 1,048,576"
        ):
            Evaluator(Program("CoreML7", (), ("f0",), fills), ("f0",))

    def test_many_tensors_that_a_later_operator_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dtvit_deploy.runtimes.mil.evaluate.MOST_BYTES", 1 << 20)
        kind = Type("fp32", (1 << 16,))
        x = Variable("x", kind)
        chain = tuple(Operation("relu", {"x": (f"r{at - 1}" if at else "x",)}, (Variable(f"r{at}", kind),)) for at in range(8))
        Evaluator(Program("CoreML7", (x,), ("r7",), chain), ("r7",))
        with pytest.raises(InputError, match=r"the program's relu r4 .* 1,310,720 bytes would be held"):
            Evaluator(Program("CoreML7", (x,), ("r7",), chain), tuple(f"r{at}" for at in range(8)))

    def test_a_palette_takes_little_more_than_its_weights(self) -> None:
        """A table of 256 for each of 2¹⁶ blocks, of which 2²⁰ weights are 16 each: repeated for each weight it would be a gigabyte."""
        indices, lut = torch.zeros((1 << 20,), dtype=torch.uint8), torch.arange(1 << 24, dtype=torch.float32).reshape(1 << 16, 256, 1)
        given = {"indices": (Constant(Type("uint8", (1 << 20,)), indices),), "lut": (Constant(Type("fp32", tuple(lut.shape)), lut),)}
        made = Variable("weights", Type("fp32", (1 << 20,)))
        evaluator = Evaluator(Program("CoreML8", (), ("weights",), (Operation("constexpr_lut_to_dense", given, (made,)),)), ("weights",))
        assert evaluator.run({})["weights"][[0, 15, 16, -1]].tolist() == [0, 0, 256, 256 * (2**16 - 1)]

    def test_a_tensor_is_not_taken_apart_for_several_outputs(self) -> None:
        program = one("relu", {"x0": Type("fp32", (2, 4))}, (Type("fp32", (4,)), Type("fp32", (4,))))
        with pytest.raises(InputError, match=r"the program's relu out\.0 cannot be evaluated: it makes 1 tensor, 2 are declared"):
            Evaluator(program, program.outputs)
        halves = one("relu", {"x0": Type("fp16", ())}, (Type("fp16", ()), Type("fp16", ())))
        with pytest.raises(InputError, match="it makes 1 tensor, 2 are declared"):
            Evaluator(halves, halves.outputs)
