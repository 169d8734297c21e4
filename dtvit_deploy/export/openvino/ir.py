"""ONNX to OpenVINO's intermediate representation: the graph in an ``.xml`` file, and its constants in a ``.bin`` file beside it.

The ONNX front end alone, not ``openvino.convert_model``: that guesses the format by trying every front end, reports to its vendor where
telemetry is on, and fuses attention, by which 56 of the 1,291 tensors of DualToken-ViT-S lose their names. What it fuses, the runtime
fuses when it loads; answers and latency are the same (benchmarks/openvino_ir.py).

Precision comes with the ONNX artefact. An FP16 one is typed already (docs/adr/0007): its constants are stored as FP16, and what stays
FP32 in it stays FP32 here. OpenVINO's own ``compress_to_fp16`` knows nothing of that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError, MissingError

if TYPE_CHECKING:
    import openvino


def openvino_from_onnx(source: Path, target: Path) -> None:
    """Convert an ONNX file, and write ``target`` (``.xml``) and the ``.bin`` beside it; equal graphs give equal bytes.

    Raises:
        InputError: OpenVINO has no translation for the graph.
        MissingError: OpenVINO is not installed.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
    except ImportError as error:
        raise MissingError(f"OpenVINO cannot be imported: {error}", remedy="pip install 'dtvit-deploy[openvino]'") from error
    frontend = FrontEndManager().load_by_framework("onnx")
    try:
        model = frontend.convert(frontend.load(str(source)))
    except Exception as error:  # a class for each kind of failure, and no base of their own
        raise InputError(
            # Above its last line OpenVINO lists the places in its source that the error passed through.
            f"OpenVINO {openvino.__version__} cannot translate {source.name}: {str(error).strip().splitlines()[-1]}",
            remedy="replace the operators that it names in your network, or export another target",
        ) from error
    _require_carried(model)
    name_operators(model)
    openvino.save_model(model, target, compress_to_fp16=False)


def _require_carried(model: openvino.Model) -> None:
    """Refuse what the CPU plugin reads and takes no notice of (findings/openvino-resize-attributes.sh): it would answer otherwise."""
    resized = (operator for operator in model.get_ordered_ops() if operator.get_type_name() == "Interpolate")
    if ignored := [operator for operator in resized if operator.get_attributes().get("antialias")]:
        names = sorted(min(operator.output(0).get_names(), default="a resize") for operator in ignored)
        raise InputError(
            f"OpenVINO ignores what the network asks for: antialias of {', '.join(names)}",
            remedy="use antialias=False, average by whole factors (avg_pool2d) before, or multiply by constant matrices, which is exact;"
            " other targets have it: --target onnx",
        )


def name_operators(model: openvino.Model) -> None:
    """Name each operator after the tensor that it makes, as a profile of it should read, or by its place.

    The front end's names hold the number of operators that the process has made so far; equal graphs would give other bytes.
    """
    for place, operator in enumerate(model.get_ordered_ops()):
        if operator.get_type_name() not in ("Parameter", "Result"):  # these have the names of inputs and outputs
            tensors = sorted(operator.output(0).get_names())
            operator.set_friendly_name(tensors[0] if tensors else f"{operator.get_type_name()}.{place}")
