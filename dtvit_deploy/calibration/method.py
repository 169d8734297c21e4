"""The ways to draw a range from what was observed."""

from __future__ import annotations

import enum


class Method(enum.Enum):
    """How a range is drawn from what was observed (see :mod:`dtvit_deploy.calibration.thresholds`)."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"

    def __str__(self) -> str:
        return self.value
