"""The trtexec lines use flags that each release's parser knows and does not call deprecated, and pin what changed between the two."""

from __future__ import annotations

import re
import shlex

import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.tensorrt.trtexec import trtexec_command, trtexec_line, trtexec_text
from dtvit_deploy.formats.engine.options import BuildOptions

PARSED = {
    # Every option that samples/common/sampleOptions.cpp of https://github.com/NVIDIA/TensorRT reads by one name, at tag v10.3.0.
    10: """
    allocationStrategy allowGPUFallback allowWeightStreaming avgRuns avgTiming best bf16 buildDLAStandalone builderOptimizationLevel
    calib calibProfile consistency device directIO dumpLayerInfo dumpOptimizationProfile dumpOutput dumpProfile dumpRawBindingsToFile
    dumpRefit duration dynamicPlugins errorOnTimingCacheMiss excludeLeanRuntime exportLayerInfo exportOutput exportProfile exportTimes
    exposeDMA fp16 fp8 getPlanVersionOnly hardwareCompatibilityLevel help idleTime ignoreParsedPluginLibs infStreams int4 int8
    iterations leanDLLPath loadEngine loadInputs maxAuxStreams maxShapes memPoolSize minShapes noBuilderCache noCompilationCache
    noDataTransfers noTF32 onnx optShapes percentile persistentCacheRatio pi pluginInstanceNorm plugins precisionConstraints preview
    profilingVerbosity refit restricted runtimePlatform safe saveDebugTensors saveEngine separateProfileRun serialized
    setPluginsToSerialize skipInference sleepTime sparsity staticPlugins std streams stripAllWeights stripWeights stronglyTyped
    tacticSources tempdir threads timeDeserialize timeRefit timingCacheFile useCudaGraph useDLACore useManagedMemory useProfile
    useRuntime useSpinWait vc verbose versionCompatible warmUp weightStreamingBudget weightless
    """,
    # The same at tag v11.1.
    11: """
    accuracyAlgorithm accuracyThreshold adjustForDLA allocationStrategy allowGPUFallback allowWeightStreaming asyncFileReader atol
    avgRuns avgTiming buildDLAStandalone builderOptimizationLevel consistency continue cpuOnly device directIO distributiveIndependence
    dryRun dumpKernelText dumpLayerInfo dumpOptimizationProfile dumpOutput dumpProfile dumpRawBindingsToFile dumpRefit duration
    dynamicPlugins enablePluginOverride errorOnTimingCacheMiss excludeLeanRuntime exportLayerInfo exportOutput exportProfile exportTimes
    exposeDMA getPlanVersionOnly hardwareCompatibilityLevel help helpBuildRoute idleTime ignoreParsedPluginLibs includeDataTransfers
    infStreams int8 iterations l2LimitForTiling leanDLLPath loadEngine loadInputs loadRefOutputs markUnfusedTensorsAsDebugTensors
    maxAuxStreams maxShapes maxTactics memPoolSize minShapes monitorMemory noBuilderCache noCompilationCache noCudaGraph noDataTransfers
    noSpinWait noTF32 onnx optShapes percentile persistentCacheRatio pi pluginInstanceNorm plugins preview profilingVerbosity refPair
    refit refitFromOnnx remoteAutoTuningConfig reportCapabilityDLA rtol runtimePlatform safe safetyPlugins saveAllDebugTensors
    saveAllEngines saveDebugTensors saveEngine separateProfileRun serialized setBuildRoute setPluginsToSerialize skipInference sleepTime
    sparsity staticPlugins std streams stripAllWeights stripWeights stronglyTyped tacticSources tempdir threads tilingOptimizationLevel
    timeDeserialize timeRefit timingCacheFile tuneBuildRouteFile tuneBuildRoutes tuningCacheFile tuningResultFile tuningSearch
    tuningTimeOut uint8AsymmetricQuantizationDLA useCudaGraph useDLACore useManagedMemory useProfile useRuntime useSpinWait vc verbose
    versionCompatible warmUp weightStreamingBudget
    """,
}
DEPRECATED = {
    # What that file, or its help, calls deprecated.
    10: "plugins streams weightless",
    11: "directIO noDataTransfers plugins separateProfileRun streams stronglyTyped useCudaGraph useSpinWait",
}
PRECISION = {"fp16", "bf16", "int8", "fp8", "int4", "best", "calib", "precisionConstraints"}
OPTIONS = [
    BuildOptions(),
    BuildOptions(workspace_mib=512, optimization_level=5, version_compatible=True, hardware_compatible=True),
    BuildOptions(dla_core=1),
]


def flags(command: list[str]) -> dict[str, str]:
    assert command[0] == "trtexec"
    assert all(argument.startswith("--") for argument in command[1:])
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in command[1:])


@pytest.mark.parametrize(("major", "options"), [*((10, options) for options in OPTIONS[:2]), *((11, options) for options in OPTIONS)])
def test_every_flag_is_known_to_the_release_and_none_is_deprecated_there(major: int, options: BuildOptions) -> None:
    used = flags(trtexec_command("graph.onnx", "model.engine", options, major)).keys()
    assert used <= set(PARSED[major].split())
    assert not used & set(DEPRECATED[major].split())
    assert not used & PRECISION  # precision is in the graph


def test_both_releases_build_the_same_and_measure_the_same_way() -> None:
    ten, eleven = (flags(trtexec_command("graph.onnx", "model.engine", OPTIONS[1], major)) for major in (10, 11))
    # What 11 does by default (InferenceOptions and BuildOptions in sampleOptions.h at v11.1), and 10 only when told.
    assert ten.keys() - eleven.keys() == {"stronglyTyped", "useCudaGraph", "useSpinWait", "noDataTransfers"}
    assert ten.items() >= eleven.items()
    assert ten["memPoolSize"] == "workspace:512M"
    assert ten["builderOptimizationLevel"] == "5"
    assert ten["hardwareCompatibilityLevel"] == "ampere+"
    assert {"versionCompatible", "noTF32", "timingCacheFile", "exportLayerInfo", "warmUp", "duration"} <= ten.keys()
    plain = flags(trtexec_command("graph.onnx", "model.engine", BuildOptions(), 11))
    assert not plain.keys() & {"memPoolSize", "versionCompatible", "hardwareCompatibilityLevel", "useDLACore", "allowGPUFallback"}


def test_the_accelerator_is_for_11_since_10_would_set_precision_flags() -> None:
    eleven = flags(trtexec_command("graph.onnx", "model.engine", OPTIONS[2], 11))
    assert (eleven["useDLACore"], eleven["allowGPUFallback"]) == ("1", "")
    with pytest.raises(InputError, match="precision flags"):
        trtexec_command("graph.onnx", "model.engine", OPTIONS[2], 10)
    assert "There is none: with --useDLACore" in trtexec_text("graph.onnx", "net", OPTIONS[2])


def test_nothing_is_written_into_a_jobs_folder() -> None:
    """What is in it is the job; with an engine or timings in it, it would be another one."""
    lines = trtexec_text("graph.onnx", "net.fp16", BuildOptions())
    written = re.findall(r"--(saveEngine|exportLayerInfo|timingCacheFile)=(\S+)", lines)
    beside = [
        ("saveEngine", "../net.fp16.engine"),
        ("exportLayerInfo", "../net.fp16.layers.json"),
        ("timingCacheFile", "../net.fp16.timing.cache"),
    ]
    assert written == [*beside, *beside]
    assert "goes beside it" in lines


@pytest.mark.parametrize(("major", "library"), [(9, "tensorrt"), (12, "tensorrt"), (11, "tensorrt-rtx")])
def test_what_there_is_no_trtexec_of_is_refused(major: int, library: str) -> None:
    with pytest.raises(InputError, match="trtexec"):
        trtexec_command("graph.onnx", "model.engine", BuildOptions(), major, library)


def test_the_printed_line_is_the_command() -> None:
    line = trtexec_line("a graph.onnx", "model.engine", BuildOptions(), 10)
    assert shlex.split(line.replace("\\\n", "")) == trtexec_command("a graph.onnx", "model.engine", BuildOptions(), 10)


@pytest.mark.parametrize("major", [10, 11])
def test_tf32_is_left_out_unless_it_was_asked_for(major: int) -> None:
    assert "--noTF32" in trtexec_command("graph.onnx", "model.engine", BuildOptions(), major)
    assert "--noTF32" not in trtexec_command("graph.onnx", "model.engine", BuildOptions(tf32=True), major)
