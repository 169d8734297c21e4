"""The ``trtexec`` command line that builds the engine which a job or this package builds, for TensorRT 10 and for TensorRT 11.

The two releases measure differently when nothing is said, so their latencies are not comparable: 11 replays a CUDA graph, waits spinning
and leaves the transfers out (``InferenceOptions`` in samples/common/sampleOptions.h at v10.3.0 and at v11.1 of
https://github.com/NVIDIA/TensorRT). Both lines here measure as 11 does. For 10 that is spelt out; in 11 it is the default, and the flags
that would say so are deprecated. TF32 is off in both unless it was asked for, as in the builder: a graph that says FP32
means it.

In a job the lines run in the job's own folder and write beside it, as the job's script does: a job's digest is that of its folder, and a
folder that has an engine in it is no longer that job.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.formats.engine.options import BuildOptions

MAJORS = (10, 11)
LAYERS, TIMING_CACHE = ".layers.json", ".timing.cache"
"""In place of the engine's own suffix."""
MEASUREMENT = ("--warmUp=200", "--duration=3", "--iterations=10", "--avgRuns=10", "--infStreams=1")
"""Milliseconds, seconds, runs: the defaults of both releases, written down so that a third one's do not take their place."""
SAID_IN_10 = ("--stronglyTyped", "--useCudaGraph", "--useSpinWait", "--noDataTransfers")
"""What 11 does anyway."""


def trtexec_command(graph: str, engine: str, options: BuildOptions, major: int, library: str = "tensorrt") -> list[str]:
    """The arguments, program first.

    Args:
        graph, engine: paths of the ONNX file to read and of the engine to write; layer information and timings go beside the engine.
        major: release of TensorRT, one of `MAJORS`.

    Raises:
        InputError: there is no trtexec of that release or library, or it would build another engine.
    """
    if library != "tensorrt":
        raise InputError(f"trtexec comes with TensorRT, not with {library}", remedy="build for TensorRT, on a device or on this machine")
    if major not in MAJORS:
        raise InputError(f"no command line is known for trtexec {major}", remedy=f"TensorRT releases: {', '.join(map(str, MAJORS))}")
    if major == 10 and options.dla_core is not None:
        # samples/common/sampleEngines.cpp at v10.3.0, setupNetworkAndConfig
        raise InputError(
            "with --useDLACore trtexec 10 sets precision flags, which a strongly typed network does not allow",
            remedy="build with the job's script, or with trtexec 11",
        )
    command = ["trtexec", f"--onnx={graph}", f"--saveEngine={engine}", *(() if options.tf32 else ("--noTF32",))]
    command.append(f"--builderOptimizationLevel={options.optimization_level}")
    if options.workspace_mib is not None:
        command.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if options.version_compatible:
        command.append("--versionCompatible")
    if options.hardware_compatible:
        command.append("--hardwareCompatibilityLevel=ampere+")
    if options.dla_core is not None:
        command += [f"--useDLACore={options.dla_core}", "--allowGPUFallback"]
    beside = str(PurePosixPath(engine).with_suffix(""))
    command += ["--profilingVerbosity=detailed", f"--exportLayerInfo={beside}{LAYERS}", f"--timingCacheFile={beside}{TIMING_CACHE}"]
    command += MEASUREMENT
    return [*command, *SAID_IN_10] if major == 10 else command


def trtexec_line(graph: str, engine: str, options: BuildOptions, major: int) -> str:
    """The same for a shell, one argument a line."""
    return " \\\n  ".join(map(shlex.quote, trtexec_command(graph, engine, options, major)))


def trtexec_text(graph: str, name: str, options: BuildOptions) -> str:
    """Both lines for a job's folder under a heading each, or why there is none.

    Args:
        graph: file in the job.
        name: of the engine, without a suffix.
    """
    engine = f"../{name}.engine"
    head = f"# Run in this folder. What is written goes beside it ({engine} and more): a job that is changed is no longer taken.\n"
    head += "# Both measure alike: the last flags of the first line are what trtexec 11 does anyway.\n\n"

    def section(major: int) -> str:
        try:
            return trtexec_line(graph, engine, options, major)
        except InputError as error:
            return f"# There is none: {error}."

    return head + "\n\n".join(f"# TensorRT {major}\n{section(major)}" for major in MAJORS) + "\n"
