"""This machine, as far as it decides whether an engine loads: a value, so that any other machine can be asked about too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from typing import Any

import msgspec

from dtvit_deploy.child import child_command
from dtvit_deploy.trt import gpu
from dtvit_deploy.trt.gpu import Gpu
from dtvit_deploy.trt.library import MODULES

IMPORT_LIMIT = 30.0
"""Seconds for a library to import: it loads half a gigabyte, on a Jetson from a memory card."""


class Installed(msgspec.Struct, frozen=True):
    """One of `MODULES`: its version where it imports, and otherwise why not."""

    version: str = ""
    wrong: str = "not installed"


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine meets.

    Attributes:
        platform: operating system and architecture, as a passport has them.
        gpus: in the driver's order; TensorRT uses the first unless told otherwise.
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
    found = gpu.gpus()
    return Here(
        platform=gpu.this_platform(),
        gpus=found.found,
        no_gpu=found.missing,
        cuda=found.cuda,
        driver=gpu.driver_version(),
        jetpack=gpu.jetpack(),
        libraries={name: _installed(module) for name, module in MODULES.items()},
    )


def _installed(module: str) -> Installed:
    try:
        if importlib.util.find_spec(module) is None:
            return Installed()
    except (ImportError, ValueError):
        return Installed(wrong="half installed: it has no specification")
    code = "import importlib, json; print(json.dumps(importlib.import_module(sys.argv[1]).__version__))"
    version, wrong = in_child(code, module, limit=IMPORT_LIMIT)
    return Installed(str(version or ""), wrong and f"installed, and does not import: {wrong}")


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
