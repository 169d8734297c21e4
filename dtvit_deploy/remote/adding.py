"""In what a device adds the products of FP16, by which the ideal that it is judged by adds, too."""

from __future__ import annotations

from collections.abc import Mapping

from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.formats.job.words import HALF
from dtvit_deploy.runtimes.openvino import HINT


def half_of(results: Results) -> bool | None:
    """Whether the device's ARM cores have arithmetic in FP16; None where it does not say."""
    return {"yes": True, "no": False}.get(results.device.get(HALF, ""))


def adds_in_half(results: Results, runtime: str, conditions: Mapping[str, str]) -> bool:
    """Whether a runtime of a device adds products of FP16 in FP16.

    ONNX Runtime does so on ARM64 cores that have FP16 arithmetic; where nothing tells whether these have, it is what allows more.
    OpenVINO says itself what it computes in. Others are judged as on this machine.

    Args:
        conditions: of the runtime's session there.
    """
    if results.device.get("architecture") not in ("aarch64", "arm64"):
        return False
    if runtime == "openvino":
        return conditions.get(HINT) == "f16"
    return runtime == "onnxruntime" and half_of(results) is not False
