"""Every output is a tensor of its own.

Matches outputs that are an input, a weight or a constant, and outputs that are another output too. Exact: a copy is put between. A format
whose outputs have the names of its tensors cannot tell two apart that are one, and Core ML's converter drops those that nothing computes.
"""

from __future__ import annotations

import torch

from dtvit_deploy.export.rewrites.editor import Editor


def separate_outputs(edit: Editor) -> None:
    (end,) = (node for node in edit.graph.nodes if node.op == "output")
    outputs = []
    for node in end.args[0]:
        if node.op != "placeholder" and node not in outputs:
            outputs.append(node)
            continue
        with edit.before(end, like=node):
            outputs.append(edit.call(torch.ops.aten.clone.default, node))
    edit.set_outputs(outputs)
