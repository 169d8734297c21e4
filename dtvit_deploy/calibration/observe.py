"""What every tensor of an exported program reaches on an image: all of them in one pass, at little more than the pass itself costs.

An observer stands after each node that makes a tensor, in a copy of the program's graph, which then runs as torch compiled it: walking
the nodes one by one would cost more than observing them. Extremes are taken over all values. Counting takes a sample, since a histogram
of twelve million values an image would be no better: every so many of them, where that number has no factor in common with a tensor's
size, so that no channel is passed over, and starting elsewhere with every image.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

from dtvit_deploy.artifacts.nodes import NodeMap, is_view
from dtvit_deploy.calibration.counts import Observed
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Signature
    from dtvit_deploy.calibration.histogram import Histograms


class Observer:
    """An exported program that counts what its tensors reach.

    Attributes:
        tensors, inputs: see :class:`dtvit_deploy.calibration.counts.Terms`.
    """

    def __init__(self, program: ExportedProgram, nodes: NodeMap, signature: Signature, threads: int) -> None:
        module = program.module(check_guards=False)
        self.inputs = tuple(node.name for node in module.graph.nodes if node.op == "placeholder")
        made = _makers(module.graph, nodes)
        self.tensors = tuple(tensor for _, tensor in made)
        self._signature = signature
        self._threads = threads
        strides, lengths = [tensor.stride for tensor in self.tensors], [tensor.counted for tensor in self.tensors]
        self._image = 0
        sample, extremes = torch.zeros(sum(lengths)), torch.zeros(2, len(lengths))
        parts, lows, highs = torch.split(sample, lengths), extremes[0].unbind(), extremes[1].unbind()

        def observe(index: int, value: torch.Tensor) -> None:
            floats = value.float()
            torch.aminmax(floats, out=(lows[index], highs[index]))
            stride = strides[index]
            parts[index].copy_(floats.flatten()[self._image % stride :: stride][: lengths[index]])

        last_input = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
        for index, (node, _) in enumerate(made):
            with module.graph.inserting_after(last_input if node.op == "placeholder" else node):
                module.graph.call_function(observe, (index, node))
        module.recompile()
        self._module = module
        self._sample, (self._low, self._high) = sample.numpy(), extremes.numpy()

    def observe(self, feed: Feeds, image: int, name: str, into: Histograms) -> None:
        """Run one feed, and count.

        Args:
            feed: fits the signature (the caller has checked).
            image: its number, which decides which values are counted.
            name: of the image, for a message.
            into: what counts, for the tensors in their order.

        Raises:
            InputError: a tensor holds NaN.
        """
        if torch.get_num_threads() != self._threads:  # a setting of the process
            torch.set_num_threads(self._threads)
        self._image = image
        with torch.inference_mode():
            self._module(*(torch.from_numpy(np.require(feed[spec.name], requirements=("C", "W"))) for spec in self._signature.inputs))
        if np.isnan(self._low).any():
            tensor = self.tensors[int(np.isnan(self._low).argmax())]
            made_by = f"{tensor.op} in {tensor.module or 'the network itself'}"
            raise InputError(
                f"{tensor.name} ({made_by}) holds NaN on {name}: it has no range, nor has what follows from it",
                remedy="look there for a division by zero or an overflow, in the weights or from this input; mend it, or leave it out",
            )
        into.add(self._sample, self._low, self._high)


def processor() -> str:
    """The kind of processor, as far as torch chooses its kernels by it: another one adds in another order."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _makers(graph: torch.fx.Graph, nodes: NodeMap) -> list[tuple[torch.fx.Node, Observed]]:
    """The nodes whose values are observed, in the order of execution."""
    found, passed_on = [], set()
    for node in graph.nodes:
        known, value = nodes.get(node.name), node.meta.get("val")
        if known is not None and is_view(known) and known.inputs and known.inputs[0] in passed_on:
            passed_on.add(node.name)
        elif isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() and (known or node.op == "placeholder"):
            passed_on.add(node.name)
            made_by = (known.module, known.op) if known else ("", "input")
            found.append((node, Observed(node.name, *made_by, value.numel())))
    return found
