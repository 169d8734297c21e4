"""Artefacts that were built before, what they are fed, and the program that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.given import named_artifacts
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.material import Material, class_map_of, open_material
from dtvit_deploy.pipeline.origin import reference_of
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.trust import with_trust
from dtvit_deploy.recipe.tables import Recipe


class Opened(NamedTuple):
    """What a request about artefacts that are there needs.

    Attributes:
        artifacts: in the order in which they were given.
        material: the samples.
        program: the reference.
    """

    artifacts: list[Artifact]
    material: Material
    program: ProgramEntry


def opened(artifacts: Sequence[Artifact | Path | str], recipe: Recipe, cache: Cache, *, trust: bool = False) -> Opened:
    """Load artefacts of one export, and what they are compared with.

    Args:
        artifacts: loaded ones, files, or the folder of an export.
        recipe: the samples, and what is said of the network.
        trust: whether the user vouches for what these artefacts make this machine do.

    Raises:
        InputError: an artefact or the data cannot be used, or the reference is not here and cannot be made.
    """
    loaded, material = loaded_with_material(artifacts, recipe, cache, trust=trust)
    return Opened(loaded, material, reference_of(loaded, cache, recipe.model))


def loaded_with_material(
    artifacts: Sequence[Artifact | Path | str], recipe: Recipe, cache: Cache, *, trust: bool
) -> tuple[list[Artifact], Material]:
    """Of `opened` what takes no time: nothing of the network is looked at."""
    paths = named_artifacts([Path(one) for one in artifacts if not isinstance(one, Artifact)])
    loaded = [*(one for one in artifacts if isinstance(one, Artifact)), *map(load_artifact, paths)]
    if not loaded:
        raise InputError("no artefacts were given", remedy="give files, the folder of an export, or what `export` returned")
    loaded = [with_trust(artifact, cache, trust=trust) for artifact in loaded]
    return loaded, open_material(recipe.data.evaluation, loaded[0].manifest, class_map_of(recipe))
