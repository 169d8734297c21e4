"""A device that builds engines: a `Board` whose Python has stand-ins of what a Jetson brings (`jetson_device`), and nobody else's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from devices import Board, place_of

TESTS = Path(__file__).parent
NEEDED = ("onnx", "google", "ml_dtypes", "typing_extensions.py")
"""What the stand-in of TensorRT reads graphs with."""
CTYPES = """
import os
__path__ = [os.path.join(os.path.dirname(os.__file__), "ctypes")]
with open(os.path.join(__path__[0], "__init__.py")) as file:
    exec(compile(file.read(), file.name, "exec"))

class CDLL(CDLL):
    def __new__(cls, name, *arguments, **more):
        if name == "libcuda.so.1":
            from jetson_device import Driver
            return Driver()
        return super().__new__(cls)
"""
"""The standard library's, in which one library is to be had that no machine of the tests has."""
TENSORRT = "import sys, jetson_device; sys.modules[__name__] = jetson_device.tensorrt()\n"
RUNTIME = "import sys, jetson_device; sys.modules[__name__] = jetson_device.Bindings()\n"


class Jetson(Board):
    """It has TensorRT 10.3, an Orin's GPU and the bindings."""

    def __init__(self, folder: Path, **variables: str) -> None:
        super().__init__(folder, **variables)
        for name in NEEDED:
            (self.packages / name).symlink_to(place_of(name))
        for name in ("jetson_device.py", "integration/tensorrt_api.py", "integration/tensorrt_api.json"):
            (self.packages / Path(name).name).write_bytes((TESTS / name).read_bytes())  # a link would have its folder's neighbours
        self.write("ctypes/__init__.py", CTYPES)
        self.write("tensorrt/__init__.py", TENSORRT)
        self.write("cuda/__init__.py", "")
        self.write("cuda/bindings/__init__.py", '__version__ = "12.6.0"\n')
        self.write("cuda/bindings/runtime.py", RUNTIME)
        self.has("tensorrt", "10.3.0")
        self.has("cuda-bindings", "12.6.0")
        self.behaves()

    @property
    def packages(self) -> Path:
        return self.folder / "packages"

    @property
    def builds(self) -> int:
        """How many engines it has begun to build."""
        log = self.packages / "builds.txt"
        return len(log.read_text().split()) if log.exists() else 0

    def behaves(self, **how: Any) -> None:
        """From now on: ``spoils`` answers, ``refuses`` operators, ``lies`` about its release, takes ``seconds``, ``pads`` with bytes."""
        self.write("behaviour.json", json.dumps(how))

    def has(self, distribution: str, version: str) -> None:
        """Its Python has so much of a package as tells its version."""
        for earlier in self.packages.glob(f"{distribution.replace('-', '_')}-*.dist-info"):
            shutil.rmtree(earlier)
        folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
        self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")

    def write(self, name: str, text: str) -> None:
        path = self.packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
