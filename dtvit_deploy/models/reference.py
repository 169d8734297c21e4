"""From what was asked for, a name and maybe a checkpoint, to the reference network that every artefact is compared with."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dtvit_deploy.artifacts.artifact import Link, sha256_of
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models import registry
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.source import TIMM, Network, network_of
from dtvit_deploy.models.users_code import users_code

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dtvit_deploy.models.checkpoint import Checkpoint
    from dtvit_deploy.models.metadata import Description

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The network that is right by definition.

    Attributes:
        model: as it was asked for, or as the checkpoint names it.
        module: in eval mode, FP32, on the CPU; every weight finite.
        inputs: example inputs by the names of forward's parameters, in their order, without gap: ``module(*inputs.values())`` works.
        output_names: in the order of what forward returns; empty when they are to be named from that.
        weights: of kind ``checkpoint`` (the file's digest; ``weights_sha256`` among its options is that of the loaded weights)
            or ``seeded`` (the digest of the weights themselves).
        classes: names in the order of the logits; empty when unknown.
        preprocessing: fields of ``calibration.preprocessing.Preprocessing``; empty when neither checkpoint nor timm says.
    """

    model: str
    module: nn.Module
    inputs: dict[str, Tensor]
    output_names: tuple[str, ...]
    weights: Link
    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)


def load_reference(asked: Model) -> Reference:
    """Make the network, give it its weights, and say where they came from.

    Args:
        asked: its name, which its checkpoint's metadata may say in its place, and what else is known of it.

    Raises:
        InputError: there is no such model, the checkpoint does not fit it or contradicts the options, or a weight is not finite.
        MissingError: PyTorch, timm or something that the user's module imports is not installed.
    """
    if asked.name is not None:
        require_form(asked.name)
    try:
        import safetensors  # noqa: F401
        import torch
    except ImportError as error:
        raise MissingError(f"a network needs PyTorch and safetensors: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    from dtvit_deploy.models.checkpoint import read_checkpoint, require_finite, weights_digest
    from dtvit_deploy.models.fitting import load_state
    from dtvit_deploy.models.metadata import Description, describe

    checkpoint = read_checkpoint(asked.checkpoint) if asked.checkpoint else None
    description = describe(checkpoint.metadata, checkpoint.path) if checkpoint else Description()
    name = _name(asked.name, checkpoint, description)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(asked.seed)
        network = network_of(name, asked, checkpoint, description)
    fitted: tuple[str, ...] = ()
    if checkpoint:
        with users_code(f"{name} does not take the weights of {checkpoint.path}") if not registry.has(name) else nullcontext():
            fitted = load_state(network.module, checkpoint)
    require_finite(network.module, str(checkpoint.path) if checkpoint else name)
    if not registry.has(name):
        _require_answer(network, name)
    digest = weights_digest(network.module)
    if checkpoint:
        notes = (*checkpoint.notes, *fitted, *network.notes)
        weights = Link(kind="checkpoint", sha256=sha256_of(checkpoint.path), options={"weights_sha256": digest}, notes=notes)
    else:
        origin = (
            f"THE WEIGHTS ARE RANDOM (seed {asked.seed}): no accuracy, agreement or calibration of this model means anything"
            if network.random
            else f"no checkpoint was given: the weights are what {name} made with seed {asked.seed}; if they are not trained,"
            " no accuracy, agreement or calibration means anything"
        )
        tools = {"torch": str(torch.__version__)}
        said = {"seed": asked.seed, "input_size": asked.input_size, "num_classes": asked.num_classes}
        made = {name: value for name, value in said.items() if value is not None}
        weights = Link(kind="seeded", sha256=digest, tools=tools, options=made, notes=(origin, *network.notes))
    return Reference(
        model=name,
        module=network.module,
        inputs=network.inputs,
        output_names=asked.outputs or network.output_names,
        weights=weights,
        classes=description.classes,
        preprocessing=network.preprocessing,
    )


def require_form(model: str) -> None:
    """Refuse what is none of the three forms of a model's name, before anything is imported.

    Raises:
        InputError: with the forms, and the names in the registry.
    """
    if model.startswith(TIMM):
        if model == TIMM:
            raise InputError("timm: is not followed by the name of a network", remedy="give timm:NAME, timm:resnet18 for example")
    elif _FACTORY.fullmatch(model) is None:
        registry.config_of(model)


def _name(model: str | None, checkpoint: Checkpoint | None, description: Description) -> str:
    named = description.model
    where = checkpoint.path if checkpoint else None
    if model is None:
        if named is None:
            raise InputError(
                f"no model was given, and {f'the metadata of {where} does not name one' if where else 'no checkpoint that names one'}",
                remedy=f"give one of {', '.join(registry.VARIANTS)}; or {registry.FORMS}",
            )
        if not registry.has(named) and not named.startswith(TIMM):
            # A factory's name would import code on the word of a file from elsewhere.
            raise InputError(
                f"the metadata of {where} names the model {named!r}, which is neither in the registry nor of timm",
                remedy="if you trust it, give that model yourself",
            )
        return named
    if named not in (None, model) and (registry.has(model) or model.startswith(TIMM)):
        raise InputError(
            f"the checkpoint {where} is of the model {named!r}, not of {model}", remedy="give that model, or another checkpoint"
        )
    return model


def _require_answer(network: Network, name: str) -> None:
    """A network of somebody else's must be able to take its own example inputs."""
    import torch

    given = ", ".join(f"{key} {'×'.join(map(str, value.shape))} {value.dtype}" for key, value in network.inputs.items())
    remedy = "the network is called in FP32 and eval mode, on the CPU; --debug shows where it fails"
    with users_code(f"{name} fails on its example inputs ({given})", remedy), torch.no_grad():
        network.module(*network.inputs.values())
