"""Which of the packages that some command needs are on this machine, in which version, and whether they can be used.

Nothing heavy is imported: a package counts as installed when it can be found and its version is one this package asks for. Whether it can
be imported too, a process of its own finds out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
from typing import NamedTuple

from dtvit_deploy.process.child import child_command

IMPORT_LIMIT = 30.0
"""Seconds within which a runtime must import: one second where nothing else is done, many on a busy machine."""


class Requirement(NamedTuple):
    """A package: the module to look for, the distribution that has its version, and the extra that installs it."""

    module: str
    distribution: str
    extra: str
    purpose: str


PACKAGES = (
    Requirement("torch", "torch", "export", "the reference, and the exported program"),
    Requirement("onnx", "onnx", "export", "reading and writing ONNX"),
    Requirement("onnxscript", "onnxscript", "export", "torch's ONNX exporter"),
    Requirement("onnxsim", "onnxsim", "export", "simplifying ONNX"),
    Requirement("onnxruntime", "onnxruntime", "export", "executing ONNX"),
    Requirement("openvino", "openvino", "openvino", "writing and executing OpenVINO"),
    Requirement("nncf", "nncf", "nncf", "INT8 for OpenVINO, as its vendor does it"),
    Requirement("tensorrt_rtx", "tensorrt-rtx", "trt-rtx", "TensorRT engines for RTX PCs, built without a GPU"),
    Requirement("tensorrt", "tensorrt", "tensorrt", "TensorRT engines for this machine's GPU"),
    Requirement("coremltools", "coremltools", "coreml", "Core ML packages, and evaluating them where no Mac is"),
    Requirement("numpy", "numpy", "coreml", "everything; coremltools works with older releases alone"),
    Requirement("cuda.bindings", "cuda-bindings", "gpu", "executing TensorRT engines"),
    Requirement("safetensors", "safetensors", "export", "checkpoints"),
    Requirement("PIL", "pillow", "export", "images"),
    Requirement("jinja2", "jinja2", "report", "the report in HTML"),
    Requirement("matplotlib", "matplotlib", "report", "the pictures of the report"),
    Requirement("pycocotools", "pycocotools", "coco", "average precision of detections, and polygons of annotations"),
    Requirement("distributed", "distributed", "farm", "plans on many machines"),
    Requirement("timm", "timm", "", "models named timm:NAME"),
)


class Installed(NamedTuple):
    """What is known of a package without importing it. ``wrong`` is empty when it is installed in a version that is asked for."""

    requirement: Requirement
    version: str
    wrong: str

    @property
    def name(self) -> str:
        """The distribution's, by which pip knows it."""
        return self.requirement.distribution

    @property
    def problem(self) -> str:
        """What is wrong with it, as one reads it in a list of what is missing."""
        return f"{self.name}: {self.wrong}{f', found {self.version}' if self.version else ''}"

    @property
    def told(self) -> str:
        if not self.version:
            return self.wrong
        return f"{self.version} ({self.wrong})" if self.wrong else self.version

    @classmethod
    def of(cls, requirement: Requirement) -> Installed:
        try:
            spec = importlib.util.find_spec(requirement.module)
            if spec is None or spec.origin is None:  # without an origin it is a mere folder of that name
                return cls(requirement, "", "not installed")
        except ModuleNotFoundError:  # the package around it is absent
            return cls(requirement, "", "not installed")
        except (ImportError, ValueError):  # half installed, or stood in for by something without a spec
            return cls(requirement, "", "not importable")
        version, bounds = _version(requirement), _bounds(requirement)
        fits = all(_parts(version) >= _parts(bound) if sign == ">=" else _parts(version) < _parts(bound) for sign, bound in bounds)
        listed = ", ".join(sign + bound for sign, bound in bounds)
        return cls(requirement, version, "" if fits or not _parts(version) else f"asked for: {listed}")


def _version(requirement: Requirement) -> str:
    try:
        return importlib.metadata.version(requirement.distribution)
    except importlib.metadata.PackageNotFoundError:
        # The same module comes in other distributions (onnxruntime-gpu); finding which reads every package's metadata.
        names = importlib.metadata.packages_distributions().get(requirement.module, ())
        return f"{names[0]} {importlib.metadata.version(names[0])}" if names else "unknown version"


def _bounds(requirement: Requirement) -> list[tuple[str, str]]:
    """The bounds that this package's own metadata set for a distribution, in the extra that installs it."""
    try:
        lines = importlib.metadata.requires("dtvit-deploy") or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return []
    pattern = re.compile(rf"{re.escape(requirement.distribution)}\b(?![-.\[])([^;]*)(;.*)?", re.IGNORECASE)
    matches = [match for line in lines if (match := pattern.fullmatch(line)) and f'extra == "{requirement.extra}"' in (match[2] or "")]
    return [(sign, bound) for match in matches for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", match[1])]


def _parts(version: str) -> tuple[int, ...]:
    """The numbers of a release: ``2.13.0+cpu`` → (2, 13, 0). Those before a space are a distribution's name."""
    release = re.match(r"\d+(\.\d+)*", version.rpartition(" ")[2])
    return tuple(map(int, release[0].split("."))) if release else ()


class Imports(dict[str, str]):
    """Why a module does not import, empty where it does; each is tried once, and only when it is asked for."""

    def __missing__(self, module: str) -> str:
        self[module] = import_failure(module)
        return self[module]


def import_failure(module: str) -> str:
    """Why a module does not import, tried in a process of its own; empty when it does."""
    try:
        done = subprocess.run(
            child_command(f"import {module}"),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=IMPORT_LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"its import did not end within {IMPORT_LIMIT:g} s"
    except OSError as error:
        return f"no process could be started to try it: {error.strerror}"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
