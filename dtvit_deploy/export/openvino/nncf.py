"""OpenVINO's own quantiser, NNCF, as a second opinion: an FP32 IR and real input become an INT8 IR.

NNCF observes the graph itself and chooses by itself what becomes INT8, so neither a range table nor this package's choice of products
takes part. It is told two things that it cannot know: that the network is a transformer, and that activations need not be symmetric.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.export.openvino.ir import name_operators
from dtvit_deploy.process.quiet import quiet

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

REMEDY = "pip install 'dtvit-deploy[nncf]'"


@dataclass(frozen=True, kw_only=True)
class NncfOptions:
    """What NNCF does besides.

    Attributes:
        smooth_quant: scale activations down and weights up, channel by channel. By default NNCF does; it made this network worse.
        bias_correction: shift biases by the mean error that quantised weights cause, by NNCF's fast method. On the trained digits
            network it changed no constant, and neither did the slow one.
    """

    smooth_quant: bool = False
    bias_correction: bool = False


def openvino_from_nncf(source: Path, feeds: Iterable[Feeds], count: int, target: Path, options: NncfOptions) -> None:
    """Quantise an FP32 IR, and write ``target`` (``.xml``) and the ``.bin`` beside it; equal graphs and feeds give equal bytes.

    Args:
        source: ``.xml`` of the IR, its ``.bin`` beside it.
        feeds: what is observed, gone through more than once, each time from the first on.
        count: how many of them are.
        target: what is written.
        options: what is done besides.

    Raises:
        InputError: NNCF cannot quantise the graph; or what the feeds raise.
        MissingError: NNCF is not installed.
    """
    nncf = _imported()
    import openvino

    advanced: dict[str, Any] = {"disable_bias_correction": not options.bias_correction}
    if not options.smooth_quant:
        advanced["smooth_quant_alphas"] = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    model = openvino.Core().read_model(source)
    try:
        with quiet():
            quantised = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=count,
                fast_bias_correction=True,
                advanced_parameters=nncf.AdvancedQuantizationParameters(**advanced),
            )
    except DeployError:
        raise
    except Exception as error:  # NNCF's own, OpenVINO's, and whatever the two run into
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"NNCF {nncf.__version__} cannot quantise {source.parent.name}: {reason}", remedy="use --quantizer ours with --ranges"
        ) from error
    name_operators(quantised)
    openvino.save_model(quantised, target, compress_to_fp16=False)


def _imported() -> Any:
    try:
        with quiet():
            import nncf
    except ImportError as error:
        raise MissingError(f"NNCF cannot be imported: {error}", remedy=REMEDY) from error
    return nncf
