"""Core ML's compute plan, read.

https://apple.github.io/coremltools/source/coremltools.models.html#coremltools.models.compute_plan.MLComputePlan
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import DeployError
from dtvit_deploy.runtimes.compute_plan import ComputePlan, PlannedOperation

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact


def plan_of(plan: Any, units: str, artifact: Artifact) -> ComputePlan:
    """Read one of coremltools' ``MLComputePlan``, of a package or of one on a device."""
    found, unplanned, nodes = [], 0, _nodes(artifact)
    for operation in _operations(function.block for function in plan.model_structure.program.functions.values()):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            unplanned += operation.operator_name.rpartition(".")[2] != "const"
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        name = operation.outputs[0].name if operation.outputs else ""
        found.append(
            PlannedOperation(
                name=name,
                operator=operation.operator_name,
                preferred=_unit(usage.preferred_compute_device),
                supported=tuple(sorted({_unit(device) for device in usage.supported_compute_devices})),
                cost=None if cost is None else float(cost.weight),
                node=nodes.get(name, ""),
            )
        )
    return ComputePlan.of(units, found, unplanned)


def _nodes(artifact: Artifact) -> dict[str, str]:
    """Nodes of the exported program by variable; none where the package's program cannot be read, which a plan does without."""
    try:
        from dtvit_deploy.runtimes.mil.load import load_program
        from dtvit_deploy.runtimes.mil.names import tensors_by_node

        return {variable: node for node, variable in tensors_by_node(load_program(artifact.path)).items()}
    except (ImportError, DeployError):  # torch is not needed to run a package, but to read its program
        return {}


def _operations(blocks: Iterable[Any]) -> Iterator[Any]:
    """Operations of blocks, each followed by those of the blocks that are nested in it."""
    for block in blocks:
        for operation in block.operations:
            yield operation
            yield from _operations(operation.blocks)


def _unit(device: Any) -> str:
    from coremltools.models.compute_device import MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice

    names = {MLCPUComputeDevice: "CPU", MLGPUComputeDevice: "GPU", MLNeuralEngineComputeDevice: "Neural Engine"}
    return next((name for kind, name in names.items() if isinstance(device, kind)), type(device).__name__)
