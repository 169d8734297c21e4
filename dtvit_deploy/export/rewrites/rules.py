"""What a traced program is rewritten to before any translator sees it: the same answers, in what all of them understand.

One rewrite a file, each of which says what it matches and why it is exact. That the rewritten program answers as the network does is
checked once for all of them (:func:`dtvit_deploy.export.program.require_answers_as`).
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.export.rewrites import filled, masked_assignment, pools, random_slope, softplus
from dtvit_deploy.export.rewrites.adaptive_pools import AVERAGES, MAXIMA, average_by_matrix, maximum_of_slices
from dtvit_deploy.export.rewrites.attention import TARGETS, spell_out_attention
from dtvit_deploy.export.rewrites.editor import Editor, module_path
from dtvit_deploy.export.rewrites.ends import separate_outputs
from dtvit_deploy.export.rewrites.folding import fold
from dtvit_deploy.export.rewrites.own_copy import copy_what_is_written
from dtvit_deploy.export.rewrites.regions import inline_regions

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


OPERATORS: dict[Any, Callable[[Editor, Node], Node | None]] = {
    **dict.fromkeys(TARGETS, spell_out_attention),
    **dict.fromkeys(AVERAGES, average_by_matrix),
    **dict.fromkeys(MAXIMA, maximum_of_slices),
    **dict.fromkeys(pools.AVERAGES, pools.average_in_full),
    **dict.fromkeys(pools.MAXIMA, pools.maximum_in_full),
    **dict.fromkeys(filled.TARGETS, filled.filled),
    **dict.fromkeys(masked_assignment.TARGETS, masked_assignment.choice_by_mask),
    **dict.fromkeys(softplus.TARGETS, softplus.plain_softplus),
    **dict.fromkeys(softplus.LOGARITHMS, softplus.log_sigmoid),
    **dict.fromkeys(random_slope.TARGETS, random_slope.fixed_slope),
}
"""Rewrites of one operator: each is given its node, and returns what stands in its place (of several answers the first), or None."""


def rewrite(exported: ExportedProgram) -> None:
    """Rewrite a program, as ``torch.export`` has traced it, in place."""
    edit = Editor(exported)
    inline_regions(edit)
    copy_what_is_written(edit)
    fold(edit)
    for node in [node for node in edit.graph.nodes if node.target in OPERATORS]:
        with _told(node), edit.before(node):
            made = OPERATORS[node.target](edit, node)
        if made is not None:
            for user in [user for user in node.users if user.target is operator.getitem]:
                if user.args[1] == 0:
                    edit.replace(user, made)
                else:
                    edit.graph.erase_node(user)
            edit.replace(node, made)
    separate_outputs(edit)
    edit.drop_unread(list(edit.held()))
    edit.finish()


@contextlib.contextmanager
def _told(node: Node) -> Iterator[None]:
    """Say where in the network a rewrite met what it does not expect.

    Raises:
        InputError: it did.
    """
    try:
        yield
    except DeployError:
        raise
    except Exception as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{node.target} in {module_path(node) or 'the network itself'} cannot be rewritten for the translators: {said}",
            remedy="write it in other operators, and report it: that is a gap of dtvit-deploy (--debug shows where)",
        ) from error
