"""coremltools' protocol buffers, imported without what coremltools says on the way.

Nothing else of coremltools is used: an evaluator that were built on its converter would share the converter's errors.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from dtvit_deploy.errors import MissingError
from dtvit_deploy.process.quiet import quiet

REMEDY = "pip install 'dtvit-deploy[coreml]'"


def model_proto() -> Any:
    """The module that defines a Core ML model.

    Raises:
        MissingError: coremltools is not installed.
    """
    try:
        with quiet():
            from coremltools.proto import Model_pb2
    except ImportError as error:
        raise MissingError(f"coremltools cannot be imported: {error}", remedy=REMEDY) from error
    return Model_pb2


def coremltools_version() -> str:
    return metadata.version("coremltools")
