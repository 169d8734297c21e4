"""From a trained light vision transformer to artefacts for edge runtimes, with proof that they still answer the same.

The command line is ``dtvit-deploy``. In Python, import what you need from its module (``dtvit_deploy.artifact``,
``dtvit_deploy.export.onnx``, …): importing the package loads no framework, so that its reading side runs on a device.
"""

from dtvit_deploy.errors import DeployError, InputError, MissingError

__version__ = "0.1.0"

__all__ = ["DeployError", "InputError", "MissingError", "__version__"]
