"""The NVIDIA GPUs of this machine, asked of the driver itself: no toolkit, no framework and no context on the GPU are needed for that.

CUDA driver API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and …_MINOR."""


class Gpu(NamedTuple):
    """One GPU: its name, compute capability (``8.9``) and memory in bytes."""

    name: str
    capability: str
    memory: int


class Gpus(NamedTuple):
    """What the driver says.

    Attributes:
        found: in the driver's order.
        cuda: newest CUDA version that the driver supports, like ``12.6``; empty without a driver.
        missing: why there is none to be had; empty when there is.
    """

    found: tuple[Gpu, ...]
    cuda: str
    missing: str


@functools.cache
def gpus() -> Gpus:
    """The GPUs that a process here can use."""
    try:
        driver: Any = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Gpus((), "", "no NVIDIA driver is installed (libcuda cannot be loaded)")
    number, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if (status := driver.cuInit(0)) != 0 or (status := driver.cuDeviceGetCount(ctypes.byref(number))) != 0:
        return Gpus((), cuda, f"the NVIDIA driver finds no GPU (CUDA error {status})")
    found = tuple(_gpu(driver, index) for index in range(number.value))
    return Gpus(found, cuda, "" if found else "the NVIDIA driver finds no GPU")


def _gpu(driver: Any, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)


def driver_version(root: Path = Path("/")) -> str:
    """The driver's release, like ``560.35.03``; empty where the kernel shows none (a Jetson's has no number of its own)."""
    match = re.search(r"Kernel Module(?: for \w+)?\s+([\d.]+)", _text(root / "proc/driver/nvidia/version"))
    return match[1] if match else ""


def jetpack(root: Path = Path("/")) -> str:
    """A Jetson's L4T release, which decides its JetPack, like ``L4T 36.4.0``; empty elsewhere."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    return f"L4T {match[1]}.{match[2]}" if match else ""


def board(root: Path = Path("/")) -> str:
    """The board's model where it has a device tree, as a Jetson's has: ``NVIDIA Jetson Orin Nano Developer Kit``; empty elsewhere."""
    return _text(root / "proc/device-tree/model").strip("\0\n ")


def device_name(gpu: Gpu, root: Path = Path("/")) -> str:
    """What an engine's passport calls the device of a GPU: the board that it is a part of, or the GPU's own name.

    All Orins have one GPU's name, and differ in what their engines are. A job's script, which runs without this package, says the same
    (`describe_host` in ``export/tensorrt/on_device_build.py``), and a test holds the two together.
    """
    return board(root) or gpu.name


def identity() -> tuple[str, ...]:
    """What an engine depends on of this machine's GPUs, driver and libraries; of a machine without one, the CUDA release alone."""
    found = gpus()
    names = (device_name(one) for one in found.found)
    return (*names, found.cuda, *((driver_version(), jetpack()) if found.found else ()))


def this_platform() -> str:
    """Operating system and architecture, as a passport has them: ``linux x86_64``."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{platform.system().lower()} {machine}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
