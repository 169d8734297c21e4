"""The flags that say what a recipe's keys say, each one line of one table: the key, what people type, what it means.

What commands do not repeat cannot differ between them: a command names the flags that it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.cli import spelling
from dtvit_deploy.cli.flag import Flag
from dtvit_deploy.cli.spelling import ChannelOrder, Filter, Ios, Quantizer
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.mlpackage.options import Layout, Weights
from dtvit_deploy.runtimes.registry import of_artefacts


def _unique(values: Iterable[Any]) -> list[Any]:
    return [getattr(value, "value", value) for value in dict.fromkeys(values)]


def _tables(names: Iterable[str]) -> list[dict[str, str]]:
    """Devices as a recipe's tables have them."""
    return [{"name": name} for name in _unique(names)]


def _value(one: Any) -> Any:
    return one.value


NAME = Flag("model.name", ("--model", "-m"), str, "A name from `dtvit-deploy models`, timm:NAME, or package.module:factory.")
CHECKPOINT = Flag("model.checkpoint", ("--checkpoint", "-c"), Path, "Weights: .safetensors, .pt, .ckpt (no code in it runs).")
INPUTS = Flag(
    "model.inputs",
    ("--input",),
    list[str],
    "NAME=1x3x224x224[:float32], repeatable: inputs of a network of your own.",
    lambda texts: [msgspec.to_builtins(spelling.parse_input(text)) for text in texts],
)
OUTPUTS = Flag("model.outputs", ("--output",), list[str], "Name of an output, repeatable, in order.")
INPUT_SIZE = Flag(
    "model.input_size", ("--input-size",), str, "HEIGHTxWIDTH of the image.", lambda text: spelling.size("--input-size", text)
)
CLASSES = Flag("model.num_classes", ("--num-classes",), int, "Outputs of the classifier.", least=1)
SEED = Flag("model.seed", ("--seed",), int, "Of weights where there is no checkpoint.", spelling.seed, least=0)
NETWORK = (NAME, CHECKPOINT)
MODEL = (*NETWORK, INPUTS, OUTPUTS, INPUT_SIZE, CLASSES, SEED)

_KINDS = "Class-folder tree, folder or list (text, CSV, COCO) of images, or an .npz of feeds"
DATA = Flag("data.evaluation", ("--data",), Path, f"{_KINDS}.")
CHECKS = Flag("data.checks", ("--data",), Path, f"{_KINDS}, that converters check themselves on.")
CALIBRATION_DATA = Flag("data.calibration", ("--data",), Path, f"{_KINDS}, to observe.")
CALIBRATION = Flag("data.calibration", ("--calibration",), Path, "Training images that INT8's ranges are observed on.")
EVALUATION = Flag("data.evaluation", ("--evaluation",), Path, "Held-out images, none of which may be among the calibration's.")
CLASS_MAP = Flag("data.class_map", ("--class-map",), Path, "What images call the classes: names, WordNet ids or numbers (text, CSV, JSON).")
SAMPLES = Flag("data.samples", ("--samples",), int, "Real samples that parity is proved on.", least=1)

PREPROCESSING = (
    Flag("preprocessing.resize", ("--resize",), int, "Pixels of the shorter side, in place of the checkpoint's.", least=1),
    Flag(
        "preprocessing.crop",
        ("--crop",),
        str,
        "HEIGHTxWIDTH of the centre crop, in place of the checkpoint's.",
        lambda text: spelling.size("--crop", text),
    ),
    Flag(
        "preprocessing.mean",
        ("--mean",),
        str,
        "R,G,B of a 0-1 image, in the order of --channels, in place of the checkpoint's.",
        lambda text: spelling.triple("--mean", text),
    ),
    Flag("preprocessing.std", ("--std",), str, "Standard deviations, like --mean.", lambda text: spelling.triple("--std", text)),
    Flag("preprocessing.interpolation", ("--interpolation",), Filter, "Of the resize, in place of the checkpoint's.", _value),
    Flag("preprocessing.channels", ("--channels",), ChannelOrder, "In place of the checkpoint's.", _value),
)

TARGETS = Flag(
    "export.targets",
    ("--target", "-t"),
    list[Target],
    "Repeatable.",
    _unique,
    parser=spelling.parse_target,
    metavar=f"[{'|'.join(map(str, Target))}]",
)
PRECISIONS = Flag("export.precisions", ("--precision", "-p"), list[Precision], "Repeatable.", _unique)
KEEP_FP32 = Flag("export.keep_fp32", ("--keep-fp32",), list[str], "Torch module that stays FP32, repeatable.")
ARM64 = Flag(
    "export.cpu",
    ("--arm64/--no-arm64",),
    bool,
    "ONNX artefacts are to run on an ARM64 CPU (Apple silicon, Graviton, Raspberry Pi 5), which adds in FP16.",
    lambda asked: (Cpu.ARM64 if asked else Cpu.X86_64).value,
)

RANGES = Flag("int8.ranges", ("--ranges",), Path, "What `calibrate` wrote, for INT8; else --calibration is observed.")
METHOD = Flag("int8.method", ("--method",), Method, "How INT8's ranges are drawn from what was observed.", _value)
SEARCH = Flag(
    "int8.search",
    ("--search/--no-search",),
    bool,
    "Look on the calibration's images for the modules that should stay in float in INT8 artefacts.",
)
QUANTIZER = Flag(
    "int8.quantizer", ("--quantizer",), Quantizer, "What makes INT8: ours, or OpenVINO's NNCF, which observes --calibration itself.", _value
)
SMOOTH_QUANT = Flag("int8.smooth_quant", ("--smooth-quant/--no-smooth-quant",), bool, "SmoothQuant, of NNCF.")
BIAS_CORRECTION = Flag("int8.bias_correction", ("--bias-correction/--no-bias-correction",), bool, "Fast bias correction, of NNCF.")
OBSERVED = Flag("int8.samples", ("--samples",), int, "Images to observe, evenly from all classes.", least=2, most=100_000)
ALLOW_LEAK = Flag("int8.allow_leak", ("--allow-leak/--no-allow-leak",), bool, "Calibrate on evaluation images all the same, and say so.")
PERCENTILE = Flag("int8.percentile", ("--percentile",), float, "Per cent that the percentile method keeps.", least=50, most=100)
RANDOM_DATA = Flag("int8.random_data", ("--random-data/--no-random-data",), bool, "No images but random numbers: to try things out only.")
SAMPLING_SEED = Flag("int8.sampling_seed", ("--sampling-seed",), int, "Of which images, and in what order.", least=0)
OBSERVING = (OBSERVED, ALLOW_LEAK, PERCENTILE, RANDOM_DATA, SAMPLING_SEED)
INT8 = (CALIBRATION, RANGES, METHOD, SEARCH, QUANTIZER, SMOOTH_QUANT, BIAS_CORRECTION, ALLOW_LEAK)

_BUILD = "tensorrt.build."
TENSORRT = (
    Flag(
        "tensorrt.flavours",
        ("--flavour",),
        list[Flavour],
        "Of trt: where the engine is compiled. Repeatable.",
        _unique,
        "auto, the best that is here",
    ),
    Flag(
        f"{_BUILD}capabilities",
        ("--capability",),
        list[str],
        "Of trt: GPUs that an rtx engine has code for. Repeatable.",
        spelling.capabilities,
        "8.9 and 12.0",
    ),
    Flag(f"{_BUILD}workspace_mib", ("--workspace",), int, "Of trt: MiB of scratch memory.", least=1),
    Flag(
        f"{_BUILD}optimization_level",
        ("--optimization-level",),
        int,
        "Of trt: how long the builder looks for the fastest kernels.",
        least=0,
        most=5,
    ),
    Flag(f"{_BUILD}tf32", ("--tf32/--no-tf32",), bool, "Of trt: let products of FP32 be rounded to TF32."),
    Flag(
        f"{_BUILD}version_compatible",
        ("--version-compatible/--no-version-compatible",),
        bool,
        "Of trt: an engine for later minor releases of TensorRT too.",
    ),
    Flag(
        f"{_BUILD}hardware_compatible",
        ("--hardware-compatible/--no-hardware-compatible",),
        bool,
        "Of trt: an engine for every GPU from Ampere on.",
    ),
    Flag(f"{_BUILD}dla_core", ("--dla-core",), int, "Of trt: a Jetson's DLA; the GPU takes the rest.", least=0, most=1),
)
COREML = (
    Flag(
        "coreml.ios",
        ("--ios",),
        Ios,
        "Of coreml: oldest iOS that loads the package (and macOS of its year). INT8 needs 17.",
        lambda ios: int(ios.value),
    ),
    Flag("coreml.weights", ("--weights",), Weights, "Of coreml: how an FP16 package stores its weights.", _value, "as FP16"),
    Flag(
        "coreml.layout", ("--layout",), Layout, "Of coreml: order of the tensors; ane is the Neural Engine's.", _value, "the network's own"
    ),
    Flag("coreml.image", ("--image-input/--no-image-input",), bool, "Of coreml: take an image's pixels, and normalise them inside."),
    Flag("coreml.classifier", ("--classifier/--no-classifier",), bool, "Of coreml: answer with class labels and probabilities too."),
    Flag("coreml.author", ("--author",), str, "Of coreml: shown by Xcode."),
    Flag("coreml.licence", ("--licence",), str, "Of coreml: shown by Xcode."),
    Flag("coreml.version", ("--model-version",), str, "Of coreml: shown by Xcode."),
    Flag("coreml.description", ("--description",), str, "Of coreml: shown by Xcode."),
)

THREADS = Flag("run.threads", ("--threads",), int, "Compute threads of one inference; recorded with every figure.", least=1)
RUNTIME = Flag(
    "run.runtimes",
    ("--runtime",),
    list[str],
    f"Load artefacts in this one, repeatable; the best here if none: {', '.join(of_artefacts())}.",
    _unique,
)
DEVICE = Flag(
    "device",
    ("--device",),
    list[str],
    "Measure there, repeatable: local, ssh://[USER@]HOST[:PORT], or a name or tag of devices.toml.",
    _tables,
    "this machine",
)
BUILDER = Flag(
    "device",
    ("--device",),
    list[str],
    "Of trt: build the engine there and bring it back, repeatable: ssh://[USER@]HOST[:PORT], or a name or tag of devices.toml.",
    _tables,
    "only the job for it",
)
RUNNING = (THREADS, RUNTIME)
MEASURING = (*RUNNING, DEVICE)
ADVERSARIAL = Flag(
    "parity.adversarial",
    ("--adversarial/--no-adversarial",),
    bool,
    "Compare on zeros, one colour, saturated pictures and noise, too, not on real input alone.",
    shown="adversarial",
)
TOLERANCE = Flag(
    "parity.tolerance",
    ("--tolerance",),
    list[str],
    "OUTPUT=NUMBER, repeatable: greatest |Δ| of an output, in place of a measured limit.",
    spelling.tolerances,
)
CLASS_SCORES = Flag(
    "parity.class_scores",
    ("--class-scores",),
    list[str],
    "Output that is class scores, repeatable, or none: its greatest entry is a decision.",
    lambda names: [] if names == ["none"] else names,
    shown="by names, by the number of classes, or the only floating output",
)
PROFILE = (
    Flag("profile.seconds", ("--seconds",), float, "Least time for each, or ten times that for all.", least=0.1),
    Flag("profile.samples", ("--samples",), int, "Least number of samples, for each; fewer than 64 are INVALID.", least=1),
    Flag(
        "profile.sustained",
        ("--sustained",),
        float,
        "Seconds of load after which burst and sustained latency are told apart; a minute at least.",
        least=60,
    ),
    Flag(
        "profile.energy",
        ("--energy",),
        float,
        "Seconds of each block in which energy is taken, where a rail can be read; 0 for no energy.",
        least=0,
        most=600,
    ),
    Flag(
        "profile.lock_clocks",
        ("--lock-clocks/--clocks-as-shipped",),
        bool,
        "Hold the clocks of this machine, or the device, still meanwhile; root alone may.",
        shown="clocks-as-shipped",
    ),
    Flag(
        "profile.cuda_graph",
        ("--cuda-graph/--no-cuda-graph",),
        bool,
        "On a GPU: launch all kernels of an inference at once.",
        shown="cuda-graph",
    ),
    Flag(
        "profile.layer_times",
        ("--layer-times/--no-layer-times",),
        bool,
        "Where the time goes, by layers and torch modules.",
    ),
    Flag(
        "profile.roofline",
        ("--roofline/--no-roofline",),
        bool,
        "Beside each p50: its share of what the machine can do, by peaks measured once (some 10 s).",
    ),
)
TIMES = (
    PROFILE[0],
    Flag("profile.samples", ("--latency-samples",), int, "Least number of runs that are timed; fewer than 64 are INVALID.", least=1),
    *(flag for flag in PROFILE if flag.key in ("profile.layer_times", "profile.roofline")),
)
"""Of `PROFILE`, what is asked of a device, for a command whose ``--samples`` are those of parity."""
