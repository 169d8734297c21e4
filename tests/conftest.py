"""What holds for every test: the vendors are quiet, a computation takes one thread, and no example is too slow."""

from __future__ import annotations

import os

# Before anything that counts cores: files run side by side, and threads that wait for each other actively take what others would use.
os.environ["OMP_NUM_THREADS"] = "1"

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the base install has none; what needs it skips
    pass
else:
    # A busy machine takes any time for an example, and to think of one.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
