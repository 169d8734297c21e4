"""Which inner tensor of a program is an attention map, and what its axes mean: each family of networks writes it beside its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.errors import InputError

_SOFTMAX = frozenset({"aten.softmax.int", "aten._softmax.default"})


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """One softmax over the keys, of shape (1, heads, queries, keys), between tokens and the parts of the image.

    Attributes:
        name: what people call it.
        what: who looks at what, in a sentence.
        module: dotted path of the torch module that computes it.
        softmax: which of that module's softmaxes it is, from its last: −1, −2, …
        shape: heads, queries and keys.
        asker: whose the queries are: parts of the image, each of whose attention to all keys adds up to 1, or tokens.
        first_token, tokens: where on their axis the tokens begin, and how many they are.
        first_part: where on the other axis the parts of the image begin.
        grid: rows and columns of the parts.
        window: side of the square windows in whose order the parts lie, window by window; 0 where they lie row by row.
        token_grid: rows and columns of the tokens, where each has a place in the image.
    """

    name: str
    what: str
    module: str
    softmax: int
    shape: tuple[int, int, int]
    asker: Literal["image", "tokens"]
    tokens: int
    grid: tuple[int, int]
    first_token: int = 0
    first_part: int = 0
    window: int = 0
    token_grid: tuple[int, int] | None = None


def tensor_of(asked: AttentionMap, nodes: NodeMap) -> str:
    """The node of a program that holds a map, by which it is found in every artefact.

    Raises:
        InputError: the module makes no such softmax.
    """
    made = [node.name for node in nodes.nodes if node.module == asked.module and node.op in _SOFTMAX]
    if len(made) < -asked.softmax:
        raise InputError(
            f"the program has {len(made)} softmaxes in {asked.module}; its {asked.name} would be number {-asked.softmax} from the last",
            remedy="give artefacts of a network of the registry, exported by this version",
        )
    return made[asked.softmax]
