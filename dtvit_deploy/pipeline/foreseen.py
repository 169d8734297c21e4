"""What is known of latencies before one is taken: said at once, not after minutes of measuring, and in a dry run too."""

from __future__ import annotations

import os
from pathlib import Path

from dtvit_deploy.devices.clocks.processor import Processor
from dtvit_deploy.devices.clocks.programs import path_of
from dtvit_deploy.devices.clocks.wanted import wanted
from dtvit_deploy.devices.state.jetson import is_one
from dtvit_deploy.errors import MissingError
from dtvit_deploy.harness.latency.measurement import FEWEST_SAMPLES
from dtvit_deploy.harness.state.record import CARD
from dtvit_deploy.pipeline.elsewhere import measures_here
from dtvit_deploy.pipeline.figures import measure_options
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.tables import Recipe


def foreseen(recipe: Recipe, root: Path = Path("/"), *, here: bool = True) -> list[str]:
    """Why latencies that a request asks for may be INVALID, or cannot be taken here.

    Args:
        recipe: the request.
        root: of this machine's tree.
        here: whether this machine may be asked for latencies; of a bundle it is not.

    Raises:
        InputError: what it asks of latencies contradicts itself, or there is no device of a name.
    """
    samples = measure_options(recipe).min_samples
    found = []
    if samples < FEWEST_SAMPLES:
        found.append(
            f"{counted(samples, 'sample')} of each latency asked for (profile.samples): fewer than {FEWEST_SAMPLES} are INVALID,"
            f" and no more are taken of what is slow; ask for {FEWEST_SAMPLES}"
        )
    if here and recipe.profile.lock_clocks and measures_here(recipe) and (why := _why_not_locked(root)):
        found.append(f"{why}; latency will not be measured with --lock-clocks (profile.lock_clocks)")
    return found


def _why_not_locked(root: Path) -> str:
    """Why this machine's clocks cannot be locked, as far as can be told without doing it; empty where nothing says so."""
    if root == Path("/") and os.geteuid() != 0:
        return "clocks cannot be locked: root alone may, and this is another user"
    if is_one(root) or path_of(root, CARD) is not None:  # whose programs change things as they are asked
        return ""
    try:
        settings = wanted(root).settings
    except MissingError as error:
        return str(error)
    files = [file.path for one in settings if isinstance(one, Processor) for file in one.files]
    closed = [path for path in files if not os.access(root / path, os.W_OK)]
    return f"clocks cannot be locked: /{closed[0]} cannot be written, which root alone may" if closed else ""
