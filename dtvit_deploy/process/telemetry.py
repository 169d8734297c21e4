"""Vendors' libraries that report home as soon as they are imported: told not to, before anything here imports them.

Importing the package does it, so no place that imports a vendor can forget it. Variables reach every process that is started from here;
`dtvit_deploy.process.child` has its processes import the package first. Nobody is asked: whoever wants to report to a vendor can do that
with the vendor's own tools (docs/adr/0022). Nothing is imported but what Python itself has loaded, not even ``__future__`` (see
``__main__``).
"""

import os
import sys

VARIABLES = {
    # ONNX Runtime 1.32 and later: a device number and a database under the user's cache, a file in the temporary folder, an upload.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, which timm imports: a request for each download, and the user agent in it.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The same wish as many tools spell it; huggingface_hub is one of them.
    "DO_NOT_TRACK": "1",
}
"""What is set in the environment. A user's own variables that say more (``HF_HUB_OFFLINE``) stay as they are."""
REPORTER = "openvino_telemetry"
"""What OpenVINO and NNCF report with: a forked process that posts, and files in ``~/intel``. Both go without where it is not installed."""


def switch_off() -> None:
    """Have no vendor report from this process or those that it starts; one that was imported before is not changed."""
    os.environ.update(VARIABLES)
    # An empty entry is how Python is told that a module is not there. OpenVINO's own way out, a file in the user's home, would be one more
    # file in the user's home; that of NNCF, a variable for its vendor's tests, holds for NNCF alone.
    sys.modules.setdefault(REPORTER, None)  # type: ignore[arg-type]


def state() -> dict[str, str]:
    """For each vendor that reports home: ``off`` or ``on``, and why, as it is in this process."""
    blocked = sys.modules.get(REPORTER, REPORTER) is None
    reporter = f"off ({REPORTER} is kept from being imported)" if blocked else f"on ({REPORTER} was imported before dtvit_deploy)"
    return {
        "ONNX Runtime": _variable("ORT_DISABLE_TELEMETRY"),
        "OpenVINO and NNCF": reporter,
        "Hugging Face": _variable("HF_HUB_DISABLE_TELEMETRY"),
    }


def _variable(name: str) -> str:
    value = os.environ.get(name)
    return f"off ({name}={value})" if value == VARIABLES[name] else f"on ({name} was changed)"
