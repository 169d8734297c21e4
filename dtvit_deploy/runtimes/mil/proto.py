"""coremltools' protocol buffers, imported without what coremltools says on the way.

Nothing else of coremltools is used: an evaluator that were built on its converter would share the converter's errors.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib import metadata
from typing import Any

from dtvit_deploy.errors import MissingError

REMEDY = "pip install 'dtvit-deploy[coreml]'"


def model_proto() -> Any:
    """The module that defines a Core ML model.

    Raises:
        MissingError: coremltools is not installed.
    """
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # it regrets the compiled parts that only macOS has
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from coremltools.proto import Model_pb2
    except ImportError as error:
        raise MissingError(f"coremltools cannot be imported: {error}", remedy=REMEDY) from error
    finally:
        logging.disable(level)
    return Model_pb2


def coremltools_version() -> str:
    return metadata.version("coremltools")
