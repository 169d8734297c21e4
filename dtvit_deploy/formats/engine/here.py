"""This machine, as far as it decides whether an engine loads: a value, so that any other machine can be asked about too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from typing import Any

import msgspec

from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.formats.engine.gpu import Gpu
from dtvit_deploy.formats.engine.library import MODULES
from dtvit_deploy.process.child import child_command

IMPORT_LIMIT = 30.0
"""Seconds for a library to import: it loads half a gigabyte, on a Jetson from a memory card."""
_VERSION = """
import importlib
from dtvit_deploy.formats.engine.library import MODULES, Library
library = Library(sys.argv[1], importlib.import_module(MODULES[sys.argv[1]]))
print(json.dumps([library.version, library.cuda]))
"""


class Installed(msgspec.Struct, frozen=True):
    """One of `MODULES`.

    Attributes:
        version: where it imports.
        wrong: why it does not.
        cuda: major version of the CUDA that its package was built with; empty where the package does not say (a Jetson's does not).
    """

    version: str = ""
    wrong: str = "not installed"
    cuda: str = ""


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine meets.

    Attributes:
        platform: operating system and architecture, as a passport has them.
        gpus: in the driver's order, under the names that passports have; TensorRT uses the first unless told otherwise.
        no_gpu: why there is none; empty where there is.
        cuda: newest CUDA version that the driver supports.
        libraries: by name; a library that is not in it is not installed.
    """

    platform: str
    gpus: tuple[Gpu, ...] = ()
    no_gpu: str = ""
    cuda: str = ""
    driver: str = ""
    jetpack: str = ""
    libraries: dict[str, Installed] = {}

    def installed(self, library: str) -> Installed:
        return self.libraries.get(library, Installed())


def this_machine() -> Here:
    """Ask the driver, the kernel, and each library in a process of its own: one that crashes there is one that cannot be used."""
    return machine_with({name: _installed(name, module) for name, module in MODULES.items()})


def machine_with(libraries: dict[str, Installed]) -> Here:
    """This machine, of whose libraries the caller knows."""
    found = gpu.gpus()
    return Here(
        platform=gpu.this_platform(),
        gpus=tuple(one._replace(name=gpu.device_name(one)) for one in found.found),
        no_gpu=found.missing,
        cuda=found.cuda,
        driver=gpu.driver_version(),
        jetpack=gpu.jetpack(),
        libraries=libraries,
    )


def _installed(library: str, module: str) -> Installed:
    try:
        if importlib.util.find_spec(module) is None:
            return Installed()
    except (ImportError, ValueError):
        return Installed(wrong="half installed: it has no specification")
    answer, wrong = in_child(_VERSION, library, limit=IMPORT_LIMIT)
    if wrong or not isinstance(answer, list):
        return Installed(wrong=f"installed, and does not import: {wrong}")
    return Installed(str(answer[0]), "", answer[1])


def in_child(code: str, *arguments: str, limit: float) -> tuple[Any, str]:
    """What ``code`` printed as its last line, in JSON; or why there is nothing.

    Native code of others runs there: it may print, fail, crash or never end.
    """
    try:
        done = subprocess.run(
            child_command(code, *arguments),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not end within {limit:g} s"
    except OSError as error:
        return None, f"no process could be started: {error.strerror}"
    if done.returncode < 0:
        return None, f"the process was ended by signal {-done.returncode}"
    if done.returncode > 0:
        return None, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    try:
        return json.loads((done.stdout.strip().splitlines() or [""])[-1]), ""
    except ValueError:
        return None, "its answer cannot be understood"
