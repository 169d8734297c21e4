"""What devices are held against before any work is done for them: a network traced, an image read, a byte sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.pipeline.elsewhere import SAMPLES, measures_here, moved, no_time, reached_places, subjects_there
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.limits import require_room_here
from dtvit_deploy.remote.needed import require_root
from dtvit_deploy.remote.place import Place


@contextmanager
def able_places(
    recipe: Recipe, artifacts: Sequence[Artifact], material: Material, figures: Figures, progress: Progress, *, wait: bool = True
) -> Iterator[tuple[Place, ...]]:
    """The devices that a request names, each of which can do all of it, as far as can be told; left at the end of the block.

    Raises:
        InputError: there is none of a name; or an artefact, a runtime, or the number of them is none for an agent.
        MissingError: one cannot be reached, lacks something, or somebody has it and nobody waits; or there is no room here.
    """
    with reached_places(recipe, progress, wait=wait) as places:
        require_able(places, artifacts, material, recipe, figures)
        yield places


def require_able(places: Sequence[Place], artifacts: Sequence[Artifact], material: Material, recipe: Recipe, figures: Figures) -> None:
    """Refuse what the devices cannot do.

    Raises:
        InputError, MissingError: as of `able_places`.
    """
    if not places:
        return
    asked = [(place, subjects_there(place, artifacts, recipe)) for place in places]
    if figures.only_latency and not measures_here(recipe) and all(place.emulator for place in places):
        names = [f"{artifact.name} on {place.name}" for place, subjects in asked for artifact, _ in subjects]
        raise no_time(names, [f"the processor of {place.name}" for place in places])
    size = moved(material, recipe, figures)
    for place, subjects in asked:
        answers = len(subjects) * size.answered
        place.require(subjects, fed=size.fed, answered=answers, timed=figures.latency, threads=recipe.run.threads)
        if figures.latency and recipe.profile.lock_clocks:
            require_root(place.name, place.facts)
    require_room_here(size.at_once(sum(len(subjects) for _, subjects in asked)), SAMPLES)
