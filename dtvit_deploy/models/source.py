"""Where a network comes from: the registry, timm, or a factory of the user's, each of which knows other things by itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.models import registry
from dtvit_deploy.models.dense.config import DenseConfig
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.variant import Config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dtvit_deploy.models.checkpoint import Checkpoint
    from dtvit_deploy.models.metadata import Description

TIMM = "timm:"
LOGITS = "logits"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network before any checkpoint is loaded into it, and what its source knows; `Reference` says what the fields are."""

    module: nn.Module
    inputs: dict[str, Tensor]
    output_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    notes: tuple[str, ...] = ()
    random: bool = True
    """Whether the weights are known to be fresh; a factory may have loaded its own."""


def network_of(name: str, options: Model, checkpoint: Checkpoint | None, description: Description) -> Network:
    """The network of a name, in eval mode, before any checkpoint is loaded into it.

    Raises:
        InputError: there is none for these options, or the checkpoint says something else.
        MissingError: timm, or something that the user's module imports, is not installed.
    """
    if registry.has(name) or name.startswith(TIMM):
        if options.inputs:
            raise InputError(f"{name} has one input, an image; inputs are given for a factory only", remedy="give its input size instead")
        names = _outputs(registry.config_of(name)) if registry.has(name) else (LOGITS,)
        if options.outputs and len(options.outputs) != len(names):
            has = f"{len(names)} outputs, {', '.join(names)}" if len(names) > 1 else f"one output, {names[0]}"
            raise InputError(f"{name} has {has}, and {len(options.outputs)} names were given", remedy="give as many, or none")
    if registry.has(name):
        return _from_registry(name, options, checkpoint, description)
    if name.startswith(TIMM):
        return _from_timm(name, options, checkpoint, description)
    return _from_factory(name, options, checkpoint, description)


def _from_registry(name: str, options: Model, checkpoint: Checkpoint | None, description: Description) -> Network:
    import torch

    from dtvit_deploy.models.metadata import for_size
    from dtvit_deploy.models.networks import network_from_config

    config = registry.config_of(name)
    size = options.input_size or description.crop or config.input_size
    classes = _classes(options, checkpoint, description, in_head=_classes_of_head(checkpoint)) or config.num_classes
    config = dataclasses.replace(config, input_size=size, num_classes=classes)
    module = network_from_config(config).eval()
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(options.seed))
    preprocessing = for_size(description.preprocessing, description.crop, size)
    return Network(
        module=module,
        inputs={"image": image},
        output_names=_outputs(config),
        preprocessing=preprocessing,
        notes=_notes_of_size(preprocessing, description),
    )


def _outputs(config: Config) -> tuple[str, ...]:
    return config.outputs if isinstance(config, DenseConfig) else (LOGITS,)


def _from_timm(name: str, options: Model, checkpoint: Checkpoint | None, description: Description) -> Network:
    import torch

    from dtvit_deploy.models.factory import in_order_of_forward
    from dtvit_deploy.models.metadata import for_size
    from dtvit_deploy.models.timm import network_from_timm

    made = network_from_timm(
        name.removeprefix(TIMM),
        num_classes=_classes(options, checkpoint, description),
        input_size=options.input_size or description.crop,
    )
    image = torch.randn(made.shape, generator=torch.Generator().manual_seed(options.seed))
    preprocessing = for_size(description.preprocessing, description.crop, made.shape[2:]) or made.preprocessing
    notes = made.notes if preprocessing is made.preprocessing else _notes_of_size(preprocessing, description)
    return Network(
        module=made.module,
        inputs=in_order_of_forward(made.module, (image,), name),
        output_names=(LOGITS,),
        preprocessing=preprocessing,
        notes=notes,
    )


def _from_factory(name: str, options: Model, checkpoint: Checkpoint | None, description: Description) -> Network:
    from dtvit_deploy.models.factory import in_order_of_forward, inputs_from_specs, network_from_factory

    asked = {"num_classes": options.num_classes, "input_size": options.input_size}
    known = {"num_classes": _classes(options, checkpoint, description), "input_size": description.crop}
    module, examples = network_from_factory(
        name,
        asked={key: value for key, value in asked.items() if value is not None},
        known={key: value for key, value in known.items() if value is not None},
    )
    if examples is not None and options.inputs:
        raise InputError(f"{name} gives its own example inputs, and others were asked for", remedy="leave the option out")
    if examples is None and not options.inputs:
        raise InputError(
            f"{name} gives no example inputs, and none were described",
            remedy="return a pair of the network and its inputs (a dict by name, or a tuple), or describe each:"
            " --input image=1x3x224x224 (in a recipe, model.inputs: inputs = [{ name = 'image', shape = [1, 3, 224, 224] }] in [model])",
        )
    inputs = in_order_of_forward(module, inputs_from_specs(options.inputs, options.seed) if examples is None else examples, name)
    return Network(module=module, inputs=inputs, output_names=(), preprocessing=description.preprocessing, random=False)


def _notes_of_size(preprocessing: dict[str, Any], description: Description) -> tuple[str, ...]:
    if preprocessing == description.preprocessing:
        return ()
    assert description.crop is not None
    (height, width), (new_height, new_width) = description.crop, preprocessing["crop"]
    return (f"the checkpoint's preprocessing for {height}×{width} was scaled to {new_height}×{new_width}",)


def _classes(options: Model, checkpoint: Checkpoint | None, description: Description, *, in_head: int | None = None) -> int | None:
    """The number of classes that everything agrees on; ``None`` when nothing says.

    Raises:
        InputError: two sources disagree.
    """
    said = {
        "the options": options.num_classes,
        "the checkpoint's metadata": description.num_classes or len(description.classes) or None,
        "the checkpoint's head.weight": in_head,
    }
    known = {source: number for source, number in said.items() if number is not None}
    if len(set(known.values())) > 1:
        raise InputError(
            f"the number of classes is contradictory for {checkpoint.path if checkpoint else 'this model'}: "
            + ", ".join(f"{number} in {source}" for source, number in known.items()),
            remedy="leave the option out to take the checkpoint's number",
        )
    return next(iter(known.values()), None)


def _classes_of_head(checkpoint: Checkpoint | None) -> int | None:
    """Rows of the classifier's weight, if the file really holds that many values: a header could claim any shape.

    Its name may have any prefix; where several have it, averages of the weights say, they must agree.
    """
    state = checkpoint.state if checkpoint else {}
    heads = [tensor for name, tensor in state.items() if f".{name}".endswith(".head.weight")]
    weight = heads[0] if heads and len({tensor.shape for tensor in heads}) == 1 else None
    if weight is None or weight.ndim != 2 or not 0 < weight.numel() <= weight.untyped_storage().nbytes() // weight.element_size():
        return None
    return int(weight.shape[0])
