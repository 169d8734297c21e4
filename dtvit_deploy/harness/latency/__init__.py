"""How long one inference takes, and whether the measurement can be believed.

Candidates are sampled in turn, one run of each in a round, so that a machine that slows down slows all of them and their ratio
survives. A measurement carries its raw samples and its own verdict: VALID, or INVALID with the reasons and their figures.
"""

from dtvit_deploy.harness.latency.between_runs import Growth, Level, Run, growth, growth_over, typical
from dtvit_deploy.harness.latency.measurement import DeviceTime, Measurement, MeasureOptions, Samples, Warmup, summarise
from dtvit_deploy.harness.latency.paired import Ratio, ratio
from dtvit_deploy.harness.latency.rounds import interleaved, measure, sample
from dtvit_deploy.harness.latency.stated import stated
from dtvit_deploy.harness.latency.sustained import Sustained

__all__ = [
    "DeviceTime",
    "Growth",
    "Level",
    "MeasureOptions",
    "Measurement",
    "Ratio",
    "Run",
    "Samples",
    "Sustained",
    "Warmup",
    "growth",
    "growth_over",
    "interleaved",
    "measure",
    "ratio",
    "sample",
    "stated",
    "summarise",
    "typical",
]
