import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from networks import PAIR

torch.set_num_threads(1)

COUNT = itertools.count()
HEAD = "import torch\nfrom torch import nn\n"
X = TensorSpec("x", (1, 4))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of the user's in the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def write(source: str) -> str:
        names.append(f"users_network_{next(COUNT)}")
        (tmp_path / f"{names[-1]}.py").write_text(HEAD + textwrap.dedent(source))
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


TWO_BY_TWO = (
    PAIR
    + """
def make():
    return Pair(), examples()  # left in training mode
"""
)


def test_a_network_with_two_inputs_and_two_outputs(module: Callable[[str], str]) -> None:
    name = module(TWO_BY_TWO)
    path_before = list(sys.path)
    reference = load_reference(Model(name=f"{name}:make", outputs=("logits", "pooled")))
    assert sys.path == path_before
    assert list(reference.inputs) == ["image", "tokens"]
    assert not reference.module.training
    logits, pooled = reference.module(*reference.inputs.values())
    assert (logits.shape, pooled.shape) == ((1, 3), (1, 4))
    assert reference.output_names == ("logits", "pooled")
    assert reference.model == f"{name}:make"
    assert reference.weights.kind == "seeded"


def test_its_weights_follow_the_seed_and_the_callers_generator_is_left_alone(module: Callable[[str], str]) -> None:
    target = f"{module(TWO_BY_TWO)}:make"
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    digests = [load_reference(Model(name=target, seed=seed)).weights.sha256 for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert digests[0] == digests[1] != digests[2]


def test_its_checkpoint_is_loaded(module: Callable[[str], str], tmp_path: Path) -> None:
    target = f"{module(TWO_BY_TWO)}:make"
    state = load_reference(Model(name=target, seed=3)).module.state_dict()
    save_file(state, tmp_path / "m.safetensors", {"model": "whatever they call it"})
    reference = load_reference(Model(name=target, checkpoint=tmp_path / "m.safetensors"))
    assert reference.weights.kind == "checkpoint"
    assert all(torch.equal(tensor, state[name]) for name, tensor in reference.module.state_dict().items())


def test_a_tuple_of_examples_takes_forwards_names(module: Callable[[str], str]) -> None:
    name = module(TWO_BY_TWO + "\ndef pair(): return Pair(), (torch.ones(1, 4, 8, 8), torch.zeros(1, 5, dtype=torch.long))")
    assert list(load_reference(Model(name=f"{name}:pair")).inputs) == ["image", "tokens"]


def test_described_inputs_are_made_from_the_seed(module: Callable[[str], str]) -> None:
    target = f"{module(TWO_BY_TWO)}:Pair"
    specs = (TensorSpec("tokens", (1, 7), "int64"), TensorSpec("image", (1, 4, 6, 6)))
    first, second = (load_reference(Model(name=target, inputs=specs)).inputs for _ in range(2))
    assert list(first) == ["image", "tokens"]
    assert first["tokens"].dtype == torch.int64
    assert torch.equal(first["image"], second["image"])
    assert first["image"].std() > 0.5


def test_options_reach_a_factory_that_takes_them(module: Callable[[str], str]) -> None:
    name = module("""
        def make(input_size=(8, 8), num_classes=2):
            return nn.Sequential(nn.Flatten(), nn.Linear(input_size[0] * input_size[1], num_classes)), (torch.zeros(1, *input_size),)
    """)
    reference = load_reference(Model(name=f"{name}:make", input_size=(4, 6), num_classes=5))
    assert reference.module(*reference.inputs.values()).shape == (1, 5)


def test_the_checkpoints_class_count_reaches_a_factory_that_takes_it_and_no_other(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module("""
        def flexible(num_classes=2): return nn.Linear(4, num_classes), (torch.zeros(1, 4),)
        def fixed(): return nn.Linear(4, 3), (torch.zeros(1, 4),)
    """)
    weights = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    save_file(weights, tmp_path / "m.safetensors", {"num_classes": "3", "classes": '["a", "b", "c"]'})
    for factory in ("flexible", "fixed"):
        reference = load_reference(Model(name=f"{name}:{factory}", checkpoint=tmp_path / "m.safetensors"))
        assert reference.module.out_features == 3
        assert reference.classes == ("a", "b", "c")


def test_half_precision_networks_are_brought_to_float32(module: Callable[[str], str]) -> None:
    name = module("def make(): return nn.Linear(4, 2).half(), (torch.zeros(1, 4),)")
    assert load_reference(Model(name=f"{name}:make")).module.weight.dtype == torch.float32


# Where the module is wrong


def test_a_module_that_does_not_exist(module: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="no module 'no_such_package'"):
        load_reference(Model(name="no_such_package.networks:make"))
    with pytest.raises(InputError, match="no module") as caught:
        load_reference(Model(name=f"{module('')}.py:make"))
    assert "write users_network_" in (caught.value.remedy or "")


def test_a_third_party_import_that_is_not_installed_is_told_apart(module: Callable[[str], str]) -> None:
    name = module("import no_such_dependency.layers")
    with pytest.raises(MissingError, match=rf"{name} was found, but it imports no_such_dependency, which is not installed") as caught:
        load_reference(Model(name=f"{name}:make"))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_module_of_its_own_that_is_missing_is_the_users_mistake(module: Callable[[str], str]) -> None:
    name = module("")
    Path(f"{name}.py").unlink()
    Path(name).mkdir()
    Path(name, "__init__.py").write_text(f"import {name}.layers")
    with pytest.raises(InputError, match=r"it imports users_network_\d+\.layers, which does not exist"):
        load_reference(Model(name=f"{name}:make"))


@pytest.mark.parametrize("source", ["def make(:", "1 / 0", "import sys\nsys.exit(3)", "raise KeyboardInterrupt"], ids=str)
def test_an_import_that_fails_is_chained_and_leaves_the_path_clean(source: str, module: Callable[[str], str]) -> None:
    before = list(sys.path)
    target = f"{module(source)}:make"
    if "KeyboardInterrupt" in source:
        with pytest.raises(KeyboardInterrupt):  # the user's own Ctrl-C is nobody's mistake
            load_reference(Model(name=target))
    else:
        with pytest.raises(InputError, match="importing it failed") as caught:
            load_reference(Model(name=target))
        assert caught.value.__cause__ is not None
    assert sys.path == before


# Where the factory is wrong


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(): ...", "has no 'make'"),
        ("make = 3", "is a int and cannot be called"),
        ("make = nn.Linear(2, 2)", "is a network, not a function"),
        ("def make(width, *, depth): ...", "cannot be called without width, depth"),
        ("def make(): raise OSError('no disk')", r"make\(\): OSError: no disk"),
        ("def make(): return None", "returned None, which is no network"),
        ("def make(): return {'model': nn.Linear(2, 2)}", "returned a dict"),
        ("def make(): return nn.Linear(2, 2), torch.zeros(1, 2), 3", "returned a tuple"),
        ("def make(): return nn.Linear(2, 2), [3]", "not named tensors: a int"),
        ("def make(): return nn.Linear(2, 2), torch.zeros(1, 2)", "not named tensors: a Tensor"),
        ("def make(): return nn.Linear(2, 2), ()", "not named tensors: none"),
        ("def make(): return nn.Linear(2, 2), {1: torch.zeros(1, 2)}", "not named tensors"),
        ("def make(): return nn.Linear(2, 2)", "no example inputs, and none were described"),
        ("def make(): return nn.LazyLinear(2), (torch.zeros(1, 2),)", "lazy"),
        ("def make(): return nn.Linear(2, 2, device='meta'), (torch.zeros(1, 2),)", "meta device"),
        ("def make(): return nn.Linear(2, 2), (torch.zeros(1, 3),)", r"fails on its example inputs \(input 1×3 torch.float32\)"),
        ("def make(): return nn.Linear(2, 2), (torch.zeros(1, 2, dtype=torch.float64),)", "fails on its example inputs"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_what_a_factory_gets_wrong_is_said(source: str, message: str, module: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_reference(Model(name=f"{module(source)}:make"))
    if "fail" in str(caught.value):
        assert caught.value.__cause__ is not None


def test_a_factory_whose_own_weights_are_not_finite_is_refused(module: Callable[[str], str]) -> None:
    name = module("""
        def make():
            net = nn.Linear(2, 2)
            nn.init.constant_(net.bias, float("nan"))
            return net, (torch.zeros(1, 2),)
    """)
    with pytest.raises(InputError, match=rf"{name}:make holds 2 weights that are NaN"):
        load_reference(Model(name=f"{name}:make"))


def test_an_option_that_the_factory_does_not_take_is_refused(module: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="takes no input_size; it takes no argument"):
        load_reference(Model(name=f"{module(TWO_BY_TWO)}:make", input_size=(8, 8)))


# Where the inputs are wrong


@pytest.mark.parametrize(
    ("forward", "inputs", "message"),
    [
        ("self, x", (X, TensorSpec("y", (1,))), "no positional parameter for the input y"),
        ("self, x, y", (X,), "forward needs y, and no such input was given"),
        ("self, x, mask=None, y=None", (X, TensorSpec("y", (1,))), "mask would be skipped"),
        ("self, x, *, y", (X, TensorSpec("y", (1,))), "no positional parameter for the input y"),
        ("self, x, *, y", (X,), "forward needs y"),
        ("self, x", (TensorSpec("x", (1, 0)),), "cannot be made"),
        ("self, x", (TensorSpec("x", (1, 4), "complex64"),), "cannot be made"),
        ("self, x", (TensorSpec("x", (1, 4), "manual_seed"),), "cannot be made"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(
    forward: str, inputs: tuple[TensorSpec, ...], message: str, module: Callable[[str], str]
) -> None:
    name = module(f"class Net(nn.Module):\n    def forward({forward}):\n        return x")
    with pytest.raises(InputError, match=message):
        load_reference(Model(name=f"{name}:Net", inputs=inputs))


@pytest.mark.parametrize("forward", ["self, x", "self, x, mask=None", "self, x, *, scale=1.0", "self, x, /"])
def test_a_single_input_is_mapped_by_position_and_keeps_its_name(forward: str, module: Callable[[str], str]) -> None:
    name = module(f"class Net(nn.Module):\n    def forward({forward}):\n        return x * 2")
    assert list(load_reference(Model(name=f"{name}:Net", inputs=(TensorSpec("image", (1, 4)),))).inputs) == ["image"]


@pytest.mark.parametrize(
    ("forward", "inputs", "corrected"),
    [
        ("self, pixels, tokens", (X, TensorSpec("tokens", (1, 5), "int64")), "--input pixels=1x4 --input tokens=1x5:int64"),
        ("self, a, b", (TensorSpec("one", (2,)), TensorSpec("two", (3, 1))), "--input a=2 --input b=3x1"),
        ("self, image, prior", (TensorSpec("image", (1, 3)),), "--input image=1x3 --input prior=SHAPE"),
        ("self, image, prior", (TensorSpec("picture", (1, 3)),), "--input image=1x3 --input prior=SHAPE"),
        ("self, x, mask=None", (X, TensorSpec("msk", (1, 4))), "--input x=1x4 --input mask=1x4"),
    ],
)
def test_the_command_is_corrected_where_names_are_wrong(
    forward: str, inputs: tuple[TensorSpec, ...], corrected: str, module: Callable[[str], str]
) -> None:
    name = module(f"class Net(nn.Module):\n    def forward({forward}):\n        return 0")
    with pytest.raises(InputError) as caught:
        load_reference(Model(name=f"{name}:Net", inputs=inputs))
    assert (caught.value.remedy or "").endswith(f"it would be {corrected}")


def test_an_optional_last_parameter_may_stay_away(module: Callable[[str], str]) -> None:
    name = module("class Net(nn.Module):\n    def forward(self, x, mask=None, **options):\n        return x")
    assert list(load_reference(Model(name=f"{name}:Net", inputs=(X,))).inputs) == ["x"]


def test_a_forward_of_any_number_of_inputs_takes_them_in_order(module: Callable[[str], str]) -> None:
    name = module("""
        class Net(nn.Module):
            def forward(self, *xs):
                return sum(xs)

        def pair():
            return Net(), (torch.ones(1), torch.ones(1))
    """)
    assert list(load_reference(Model(name=f"{name}:pair")).inputs) == ["input_0", "input_1"]
    given = (TensorSpec("b", (1, 2)), TensorSpec("a", (1, 2)))
    assert list(load_reference(Model(name=f"{name}:Net", inputs=given)).inputs) == ["b", "a"]


def test_inputs_from_two_sides_are_refused(module: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="gives its own example inputs"):
        load_reference(Model(name=f"{module(TWO_BY_TWO)}:make", inputs=(X,)))
