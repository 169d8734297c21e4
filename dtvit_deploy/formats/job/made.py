"""What a device has made comes back as bytes in parts: a manifest, then files, one behind the other.

The last frame of the task says where each ends, and the SHA-256 of all of them; the manifest has that of the whole artefact.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from dtvit_deploy.artifacts.artifact import LARGEST_MANIFEST
from dtvit_deploy.formats.engine.passport import ENGINE, LAYERS
from dtvit_deploy.formats.job.frames import ResultsError
from dtvit_deploy.formats.job.job import Digest
from dtvit_deploy.formats.job.words import clean

PIECE = 16 << 20
"""Bytes of a part, but for the last, which may have fewer."""
FALLBACK = "fallback.json"
"""What a deep-learning accelerator leaves to the GPU, where one was asked for."""
COMES_BACK = (ENGINE, FALLBACK, LAYERS)
"""Files of an engine's folder that come back; its graph was sent there, and is at hand."""


class Made(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task's parts are.

    Attributes:
        sha256: of all of their bytes.
        manifest: bytes that the manifest has, which comes first.
        files: bytes of each file by its name; they come in the order of their names.
    """

    sha256: Digest
    manifest: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_MANIFEST)]
    files: dict[str, Annotated[int, msgspec.Meta(ge=0, le=1 << 36)]]

    @property
    def bytes(self) -> int:
        """How many there are in all."""
        return self.manifest + sum(self.files.values())


def made_of(told: Any) -> Made:
    """What a frame says of that.

    Raises:
        ResultsError: it is no such thing, or names a file that no engine has.
    """
    try:
        found: Made = msgspec.convert(told, Made)
    except ValueError as error:
        raise ResultsError(
            f"what the device has made is not described: {clean(str(error))}", remedy="have the device do it again"
        ) from error
    if odd := set(found.files) - set(COMES_BACK) or {ENGINE} - set(found.files):
        name = clean(min(odd))[:100]
        raise ResultsError(
            f"the device sends back an engine {'without' if name == ENGINE else 'with'} {name}", remedy="have the device do it again"
        )
    return found
