"""What a report says of the calibration behind INT8 artefacts."""

from __future__ import annotations

from dtvit_deploy.calibration.ranges import RangeTable
from dtvit_deploy.report.schema import Calibration


def facts(table: RangeTable) -> Calibration:
    return Calibration(
        ranges=table.sha256,
        source=table.source,
        samples=len(table.samples),
        synthetic=table.synthetic,
        conclusion=table.conclusion(),
        convergence=table.convergence,
    )
