"""From a trained light vision transformer to artefacts for edge runtimes, with proof that they still answer the same.

The command line is ``dtvit-deploy``. In Python, import what you need from its module (``dtvit_deploy.artifacts.artifact``,
``dtvit_deploy.export.onnx.translate``, …): importing the package loads no framework, so that its reading side runs on a device. It switches
off what vendors' libraries report home (``dtvit_deploy.process.telemetry``), which only works before they are imported.
"""

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.process import telemetry

telemetry.switch_off()

__version__ = "0.1.0"

__all__ = ["DeployError", "InputError", "MissingError", "__version__"]
