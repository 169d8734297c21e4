"""From a trained light vision transformer to artefacts for edge runtimes, with proof that they still answer the same.

The command line is ``dtvit-deploy``; in Python the same is `export`, `calibrate`, `verify`, `evaluate`, `profile` and `run`, with a
`Recipe` for a request (docs/api.md). They are loaded when they are asked for: importing the package loads no framework, so that its
reading side runs on a device. It switches off what vendors' libraries report home (``dtvit_deploy.process.telemetry``), which only works
before they are imported.
"""

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.process import telemetry

telemetry.switch_off()

TYPE_CHECKING = False  # as type checkers have it; the module that defines it would be the first to be loaded
if TYPE_CHECKING:
    from dtvit_deploy.api import (
        Artifact,
        BuildOptions,
        CoreMlOptions,
        Cpu,
        Data,
        Device,
        Export,
        Flavour,
        Gates,
        Int8,
        Limits,
        Method,
        Model,
        Parity,
        Precision,
        PreprocessingChanges,
        Profile,
        Recipe,
        Report,
        Run,
        Target,
        TensorRt,
        TensorSpec,
        calibrate,
        evaluate,
        export,
        load_artifact,
        load_recipe,
        profile,
        run,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "BuildOptions",
    "CoreMlOptions",
    "Cpu",
    "Data",
    "DeployError",
    "Device",
    "Export",
    "Flavour",
    "Gates",
    "InputError",
    "Int8",
    "Limits",
    "Method",
    "MissingError",
    "Model",
    "Parity",
    "Precision",
    "PreprocessingChanges",
    "Profile",
    "Recipe",
    "Report",
    "Run",
    "Target",
    "TensorRt",
    "TensorSpec",
    "__version__",
    "calibrate",
    "evaluate",
    "export",
    "load_artifact",
    "load_recipe",
    "profile",
    "run",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name == "export":  # the package of that name, which can be called; it would take the function's place once it is imported
        return importlib.import_module("dtvit_deploy.export")
    return getattr(importlib.import_module("dtvit_deploy.api"), name)


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
