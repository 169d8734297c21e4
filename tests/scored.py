"""Samples that are at hand, scored at once: what the pipeline scores comes a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from dtvit_deploy.harness.accuracy import Accuracy, Tally


def score(logits: NDArray[Any], labels: NDArray[Any] | None, reference: NDArray[Any] | None, names: Sequence[str]) -> Accuracy:
    """Score N samples; see `Tally.add`, which raises what this raises."""
    tally = Tally()
    tally.add(logits, labels, reference, names)
    return tally.result()
