"""A network that works in place on its inputs or its buffers works on copies of them.

Matches placeholders that an operator writes to, itself or by a view of them. Exact: what a network answers to one call is the same, and
nobody sees what it wrote. That state which moves on from call to call changes no answer was checked before, with the network itself.
"""

from __future__ import annotations

import torch

from dtvit_deploy.export.rewrites.editor import Editor
from dtvit_deploy.export.rewrites.memory import sources, written_by


def copy_what_is_written(edit: Editor) -> None:
    found = sources(source for node in edit.graph.nodes for source in written_by(node))
    written = [node for node in edit.graph.nodes if node.op == "placeholder" and node in found]
    for node in written:
        first = next(after for after in edit.graph.nodes if after.op != "placeholder")
        readers = dict.fromkeys(node.users)
        with edit.before(first, like=next(iter(readers))):
            copied = edit.call(torch.ops.aten.clone.default, node)
        for reader in readers:
            reader.replace_input_with(node, copied)
    if written:
        (end,) = (node for node in edit.graph.nodes if node.op == "output")
        edit.set_outputs(list(end.args[0]))
