"""Which devices build engines for a request, what tells their engines apart, and which jobs that takes."""

from __future__ import annotations

import pytest

from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.pipeline.built_there import builders, with_jobs
from dtvit_deploy.recipe.tables import Device, Export, Recipe, TensorRt


def asked(*devices: str, flavours: tuple[Flavour, ...] = (Flavour.AUTO,), targets: tuple[Target, ...] = (Target.TRT,)) -> Recipe:
    return Recipe(export=Export(targets=targets), device=tuple(Device(name=one) for one in devices), tensorrt=TensorRt(flavours=flavours))


@pytest.mark.parametrize(
    ("device", "label"),
    [("ssh://orin", "orin"), ("ssh://me@10.0.0.7:2222", "me.10.0.0.7.2222"), ("ssh://[fd00::7]", "fd00.7"), ("ssh://orin.lab", "orin.lab")],
)
def test_an_address_is_a_part_of_a_files_name(device: str, label: str) -> None:
    assert list(builders(asked(device))) == [label]


def test_this_machine_and_other_targets_have_no_builder() -> None:
    assert builders(asked("local")) == {}
    assert builders(asked("ssh://orin", targets=(Target.ONNX,))) == {}
    assert builders(asked()) == {}


def test_two_devices_whose_engines_would_have_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="would have one name"):
        builders(asked("ssh://me@orin", "ssh://me.orin"))


def test_a_device_is_given_a_job_whatever_could_be_compiled_here() -> None:
    assert with_jobs(asked("ssh://orin")).tensorrt.flavours == (Flavour.ON_DEVICE,)
    both = (Flavour.RTX, Flavour.ON_DEVICE)
    assert with_jobs(asked("ssh://orin", flavours=both)).tensorrt.flavours == both
    assert with_jobs(asked("local")).tensorrt.flavours == (Flavour.AUTO,)


@pytest.mark.parametrize("flavours", [(Flavour.RTX,), (Flavour.TENSORRT,), (Flavour.TENSORRT, Flavour.RTX)])
def test_what_is_to_be_built_here_alone_no_device_builds(flavours: tuple[Flavour, ...]) -> None:
    assert builders(asked("ssh://orin", flavours=flavours)) == {}
    assert with_jobs(asked("ssh://orin", flavours=flavours)).tensorrt.flavours == flavours
