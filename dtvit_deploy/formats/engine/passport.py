"""An engine's passport: what it was built from, by what and for what, and how its artefact's folder is laid out.

An engine is native code for one library release and one kind of GPU. TensorRT itself finds out while loading, with an error that names
neither; so everything that decides it is written down when the engine is built, in the options of the manifest's last link.
"""

from __future__ import annotations

import msgspec

from dtvit_deploy.artifacts.artifact import Manifest
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import BuildOptions, Capability, Flavour

LINK = "tensorrt"
"""Kind of the link that an engine, or a job that is to build one, adds to the lineage."""
FORMATS = {Flavour.TENSORRT: "trt", Flavour.RTX: "rtx", Flavour.ON_DEVICE: "trtjob"}
"""Each is a folder; an engine's holds `ENGINE`, `GRAPH` and `LAYERS`, a job's `GRAPH` and what builds it."""
ENGINE = "model.engine"
GRAPH = "graph.onnx"
"""The typed ONNX graph that the engine was, or is to be, built from: what is evaluated where the engine cannot run."""
LAYERS = "layers.json"
"""What the compiler says of the engine's layers, where it says anything."""
PASSPORT = "passport"
"""Key of the link's options."""


class Passport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides where an engine loads.

    Attributes:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library, like ``10.3.0.26``.
        capabilities: compute capabilities of the GPUs that the engine has code for.
        platform: operating system and architecture that it was built for, like ``linux x86_64`` or ``linux aarch64``.
        engine: SHA-256 of the engine file.
        bytes: its size.
        graph: SHA-256 of the typed ONNX graph.
        device: name of the GPU or board that built it; empty where none took part.
        driver, cuda, jetpack: versions there; empty where unknown or absent.
        options: what was asked of the builder.
    """

    library: str
    version: str
    capabilities: tuple[Capability, ...]
    platform: str
    engine: str
    bytes: int
    graph: str
    device: str = ""
    driver: str = ""
    cuda: str = ""
    jetpack: str = ""
    options: BuildOptions = BuildOptions()


def passport_of(manifest: Manifest) -> Passport:
    """The passport in a manifest.

    Raises:
        InputError: the artefact is no engine, or its passport cannot be understood.
    """
    link = manifest.parent(LINK)
    if link is None or PASSPORT not in link.options:
        raise InputError(f"the manifest has no engine's passport: its format is {manifest.format!r}", remedy="give an engine's manifest")
    try:
        return msgspec.convert(link.options[PASSPORT], Passport)
    except msgspec.ValidationError as error:
        raise InputError(f"the engine's passport cannot be understood: {error}", remedy="build the engine again") from error
