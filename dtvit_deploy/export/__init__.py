"""From the exported program to each target's format. Called, it is `dtvit_deploy.api.export`, whose name it shares."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    """A package that is the function ``dtvit_deploy.export(…)`` too: whichever was imported first, the name means both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("dtvit_deploy.api").export(*args, **kwargs)  # by name: the function stands far above this package


sys.modules[__name__].__class__ = _Called
