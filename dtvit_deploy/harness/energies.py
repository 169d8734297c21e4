"""Sums of squares that the walk through the layers is made of: they can be taken where the tensors are, and only they travel.

A tensor's energy is the sum of its squares in FP64. It is infinite where a value is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Outputs

    Sums = dict[str, NDArray[np.float64]]
    """By tensor: the energies of the error, the reference, the floor's noise, and the exact evaluation."""


def energy(one: NDArray[Any], other: NDArray[Any] | None = None) -> float:
    """Of a tensor, or of the difference of two."""
    with np.errstate(invalid="ignore"):  # ∞ - ∞ is NaN, and counts as infinite
        values = one.astype(np.float64) - (0.0 if other is None else other.astype(np.float64))
    found = float(np.square(values).sum())
    return found if math.isfinite(found) else math.inf


def noise_energies(answer: Outputs, reference: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Energies of what an artefact's tensors are off, of those that it has with as many values as the reference's."""
    return {
        name: energy(answer[name].reshape(expected.shape), expected)  # a simplifier may have moved a reshape past it
        for name, expected in reference.items()
        if name in answer and answer[name].size == expected.size
    }


def add_feed(sums: Sums, noises: Mapping[str, float], reference: Outputs, ideal: Outputs, exact: Outputs) -> None:
    """Add one feed's energies: `noise_energies`, which may be another machine's, and those of the three evaluations of the program."""
    for name, found in noises.items():
        energies = (found, energy(reference[name]), energy(ideal[name], exact[name]), energy(exact[name]))
        sums[name] = np.add(sums.get(name, 0.0), energies)
