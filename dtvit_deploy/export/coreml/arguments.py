"""Arguments of a program's operators that coremltools ignores without a word: which, what it takes them for, and what is done about each.

coremltools' translation of an operator reads the arguments that it knows, by position or by name, and none of the others: the package is
then another network than the one that was trained. So every node is held to a table of what each translation ignores, made by
reading ``converters/mil/frontend/torch/ops.py`` of the release that it names and by converting the samples that torch tests its own
operators with, evaluating the packages and comparing; tests hold it to the installed release in both directions. A node whose
argument is other than what is taken for it is written with other operators, or the export ends with the module and the way out. An
argument given by name that neither the translation reads nor the table knows ends it too. See docs/adr/0019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.fx import Node

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.coreml import spelled
from dtvit_deploy.export.coreml.keywords import unread
from dtvit_deploy.export.rewrites.attention import spell_out_attention
from dtvit_deploy.export.rewrites.editor import Editor, arguments, shape_of
from dtvit_deploy.export.rewrites.filled import filled
from dtvit_deploy.export.rewrites.softplus import plain_softplus
from dtvit_deploy.plural import some

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from dtvit_deploy.artifacts.nodes import NodeMap

Given = Mapping[str, Any]
TRAINED = "call eval() on the network, and drop nothing while it infers"
BUFFER = "make the tensor in __init__ and keep it as a buffer"


class Ignored(NamedTuple):
    """An argument that a translation does not read, or reads and leaves out.

    Attributes:
        operator: of ATen, without its overload.
        argument: by the name that it has in torch's schema or, where torch made another operator of it, in torch's Python.
        taken: what coremltools does whatever the argument says, in words that follow "coremltools".
        matters: whether the argument of a node gives another answer than that.
        instead: writes the node with other operators; None where the export is refused.
        remedy: what to do where it is refused.
    """

    operator: str
    argument: str
    taken: str
    matters: Callable[[Node, Given], bool]
    instead: Callable[[Editor, Node, Given], Node] | None = None
    remedy: str = ""


def _is_integer(kind: Any) -> bool:
    return isinstance(kind, torch.dtype) and not kind.is_floating_point and not kind.is_complex and kind is not torch.bool


def _type_of(node: Any) -> Any:
    return node.meta["val"].dtype if isinstance(node, Node) else None


def _shrinks(node: Node, given: Given) -> bool:
    """Antialiasing is the identity where no axis becomes smaller."""
    return any(
        after < before for before, after in zip(shape_of(given.get("self", given.get("input")))[2:], shape_of(node)[2:], strict=True)
    )


def _looks_elsewhere(node: Node, given: Given) -> bool:
    """Whether a factor that torch divides by finds other pixels than the sizes, which the package has, do."""
    source = given.get("self", given.get("input"))
    factors = given.get("scale_factors") or [value for name, value in given.items() if name.startswith("scales")]
    for before, after, factor in zip(shape_of(source)[2:], shape_of(node)[2:], factors or (), strict=False):
        if factor is None:
            continue
        step = torch.tensor(1.0 / factor, dtype=torch.float32)
        torchs = (torch.arange(after, dtype=torch.float32) * step).floor().long().clamp(max=before - 1)
        if not torch.equal(torchs, torch.arange(after) * before // after):
            return True
    return False


def _has_fraction(node: Node, given: Given) -> bool:
    """Whether a fraction is to fill integers."""
    value = given.get("fill_value", given.get("s"))
    return _is_integer(_type_of(node)) and isinstance(value, float) and not value.is_integer()


def _grouped(node: Node, given: Given) -> bool:
    return bool(given["enable_gqa"]) and shape_of(given["key"])[-3] not in (1, shape_of(given["query"])[-3])


def _as_for_all(rewrite: Callable[[Editor, Node], Node | None]) -> Callable[[Editor, Node, Given], Node]:
    """A rewrite that every traced program goes through; what a decomposition has brought since has not."""

    def instead(edit: Editor, node: Node, _: Given) -> Node:
        made = rewrite(edit, node)
        assert made is not None
        return made

    return instead


FILL = "fills with the fraction, whatever the type"
NEAREST = "give whole factors, size=…, or recompute_scale_factor=True"
RELEASES: Mapping[str, Sequence[Ignored]] = {
    "9.0": (
        Ignored("gelu", "approximate", "computes the exact GELU", lambda _, given: given["approximate"] != "none", spelled.tanh_gelu),
        *(
            Ignored(name, "alpha", f"computes {name} as if alpha were 1", lambda _, given: given["alpha"] != 1, spelled.scaled_sum)
            for name in ("add", "sub")
        ),
        Ignored(
            "mean",
            "dtype",
            "computes the mean of integers as an integer",
            lambda _, given: given["dtype"] is not None and _is_integer(_type_of(given["self"])),
            spelled.mean_of_floats,
        ),
        Ignored(
            "_upsample_bilinear2d_aa",
            "antialias",
            "interpolates without antialiasing",
            _shrinks,
            remedy="use antialias=False, average by whole factors (avg_pool2d) before, or multiply by constant matrices, which is exact",
        ),
        *(
            Ignored(name, "scale_factor", "takes pixels by the sizes and not by the factor", _looks_elsewhere, remedy=NEAREST)
            for name in ("upsample_nearest1d", "upsample_nearest2d")
        ),
        Ignored(
            "softplus",
            "threshold",
            "computes softplus beyond the threshold too",
            lambda _, given: float(given["threshold"]) < 20,  # from there on both are the same number in FP32
            _as_for_all(plain_softplus),
        ),
        *(
            Ignored(
                name,
                "dim",
                "searches the last axis where none is given",
                lambda _, given: given["dim"] is None and len(shape_of(given["self"])) > 1,
                spelled.best_of_all,
            )
            for name in ("argmax", "argmin")
        ),
        *(Ignored(name, "dtype", FILL, _has_fraction, _as_for_all(filled)) for name in ("new_full", "full_like")),
        Ignored("scalar_tensor", "dtype", FILL, _has_fraction, remedy=BUFFER),
        *(
            Ignored(
                name, "dtype", "makes fractions where integers are asked for", lambda node, _: _is_integer(_type_of(node)), remedy=BUFFER
            )
            for name in ("linspace", "hann_window")
        ),
        Ignored(
            "clamp",
            "max",
            "answers with the lower bound where tensors as bounds cross",
            lambda _, given: isinstance(given["min"], Node) and isinstance(given["max"], Node),
            spelled.clamp_by_upper,
        ),
        *(
            Ignored(name, "dim1", "keeps the matrix, with zeros beside its diagonal", lambda *_: True, spelled.picked_diagonal)
            for name in ("diagonal", "diagonal_copy")
        ),
        Ignored(
            "native_dropout",
            "train",
            "drops nothing",
            lambda _, given: bool(given["train"]) and given["p"] > 0,
            remedy=TRAINED,
        ),
        Ignored(
            "scaled_dot_product_attention",
            "enable_gqa",
            "leaves keys and values as they are",
            _grouped,
            _as_for_all(spell_out_attention),
        ),
    )
}
"""By release of coremltools. A release that is not here is held to the newest one before it."""


def honour(exported: ExportedProgram, nodes: NodeMap, release: str) -> bool:
    """Have a program say in operators what coremltools would ignore in arguments; it is changed in place.

    Args:
        exported: functional, as the ONNX exporter has left it.
        nodes: of that program.
        release: of coremltools.

    Returns:
        Whether any node was rewritten.

    Raises:
        InputError: an argument would be ignored, and nothing else says the same; each is named with its module.
    """
    edit, changed, refused = Editor(exported), False, []
    rows: dict[str, list[Ignored]] = {}
    for row in rows_of(release):
        rows.setdefault(row.operator, []).append(row)
    for node in [node for node in edit.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]:
        given = arguments(node)
        known = rows.get(_name_of(node), ())
        mattering = [row for row in known if row.matters(node, given)]
        refused += [(node, row.argument, row.taken, row.remedy) for row in mattering if row.instead is None]
        refused += [(node, *unread) for unread in unread(node, {row.argument for row in known})]
        for row in mattering:
            if row.instead is not None:
                with edit.before(node):
                    made = row.instead(edit, node, given)
                edit.become(node, made)
                changed = True
                break
    if refused:
        raise _refusal(refused, nodes, release)
    if changed:
        edit.finish()
    return changed


def rows_of(release: str) -> Sequence[Ignored]:
    """The table of a release, or of the newest before it that there is one for; of the oldest where there is none."""
    known = sorted(RELEASES, key=_numbers)
    return RELEASES[next((name for name in reversed(known) if _numbers(name) <= _numbers(release)), known[0])]


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:2] if part.isdigit())


def _name_of(node: Node) -> str:
    target: Any = node.target
    return str(target.overloadpacket.__name__)


def _refusal(refused: Sequence[tuple[Node, str, str, str]], nodes: NodeMap, release: str) -> InputError:
    found = (
        f"{argument} of {_name_of(node)} ({node.name}) in {nodes.module_of(node.name)}: coremltools {taken}"
        for node, argument, taken, _ in refused
    )
    return InputError(
        f"coremltools {release} ignores what the network asks for: {some(found, separator='; ')}",
        remedy="; ".join(dict.fromkeys(remedy for *_, remedy in refused)) + "; other targets have it: --target onnx",
    )
