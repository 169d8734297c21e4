"""A device that is a Mac as far as a stand-in goes: its system says so, and its coremltools gives answers that were recorded before.

Nothing of Apple's runs. coremltools' protocol buffers are its own, so that packages are really read; the model in the middle answers what
`answers.npz` beside it has for the package and the feeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devices import Board, place_of
from dtvit_deploy.formats.job.feeds import feed_digest

PLATFORM = """
import os
with open(os.path.join(os.path.dirname(os.__file__), "platform.py")) as file:
    exec(compile(file.read(), file.name, "exec"))

def mac_ver():
    return "15.1", ("", "", ""), "arm64"
"""
"""The standard library's, on a Mac."""
COREMLTOOLS = """
import enum
from coremltools import models

class ComputeUnit(enum.Enum):
    ALL, CPU_AND_GPU, CPU_ONLY, CPU_AND_NE = range(1, 5)
"""
MODELS = """
from coremltools.models.model import MLModel
"""
MODEL = """
import os
import numpy

ANSWERS = numpy.load(os.path.join(os.path.dirname(__file__), "answers.npz"))

class _MLModelProxy:
    @staticmethod
    def maximum_supported_specification_version():
        return 9

class MLModel:
    def __init__(self, path, compute_units):
        self._name, self._units = os.path.basename(path), compute_units
        with open(os.path.join(os.path.dirname(__file__), "opened.txt"), "a") as file:
            file.write(self._units.name + chr(10))

    def get_compiled_model_path(self):
        return self._name

    def predict(self, data):
        from dtvit_deploy.formats.job.feeds import feed_digest
        key = feed_digest({name: values for name, values in data.items()})
        return {name.split("/")[1]: ANSWERS[name] for name in ANSWERS.files if name.startswith(key)}
"""
UTILS = """
import os
from coremltools.proto import Model_pb2

def load_spec(path):
    model = Model_pb2.Model()
    with open(os.path.join(path, "Data", "com.apple.CoreML", "model.mlmodel"), "rb") as file:
        model.ParseFromString(file.read())
    return model
"""
UNAME = """
case $1 in
    -s) echo Darwin ;;
    -r) echo 24.1.0 ;;
    -m) echo arm64 ;;
esac
"""


class Mac(Board):
    """It has coremltools 9 and no other runtime.

    Attributes:
        programs: a folder that its users' PATH begins with.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        super().__init__(folder, **variables)
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name, text in (("uname", UNAME), ("sysctl", 'test "$2" = machdep.cpu.brand_string && echo "Apple M2 Pro"')):
            (self.programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.programs / name).chmod(0o755)
        packages = folder / "packages"
        for name in ("onnxruntime", "openvino"):
            (packages / name).unlink(missing_ok=True)
        real = place_of("coremltools")
        assert real is not None
        for name, text in (("__init__", COREMLTOOLS), ("models/__init__", MODELS), ("models/model", MODEL), ("models/utils", UTILS)):
            path = packages / "coremltools" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (packages / "coremltools" / "proto").symlink_to(real / "proto")
        (packages / "google").symlink_to(place_of("google") or "")
        (packages / "platform.py").write_text(PLATFORM)
        info = packages / "coremltools-9.0.dist-info" / "METADATA"
        info.parent.mkdir()
        info.write_text("Metadata-Version: 2.1\nName: coremltools\nVersion: 9.0\n")

    def records(self, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """From now on its Core ML answers so to these feeds."""
        arrays = {f"{feed_digest(dict(feed))}/{name}": value for feed, answer in pairs for name, value in answer.items()}
        np.savez(self.folder / "packages" / "coremltools" / "models" / "answers.npz", **arrays)

    @property
    def opened(self) -> set[str]:
        """The compute units with which packages were opened."""
        path = self.folder / "packages" / "coremltools" / "models" / "opened.txt"
        return set(path.read_text().split()) if path.exists() else set()
