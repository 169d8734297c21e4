"""Who looks at images: torch, or an artefact in the runtime that shows its inner tensors, and the maps that it gives of each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.harness.attention import DriftSums, token_maps
from dtvit_deploy.pipeline.measure import check_feeds
from dtvit_deploy.report.attention import AttentionSubject
from dtvit_deploy.runtimes.base import MissingOperatorError, Session, SessionOptions
from dtvit_deploy.runtimes.pairing import Pairing, looked_into

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.nodes import NodeMap
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.harness.attention import Maps


class Looker:
    """One of those that look.

    Args:
        pairing: an artefact in the runtime that was asked for, or the program in torch.
        maps: what is wanted, by the node of the program that holds it.
        nodes: of the program.
        reference: whether it is torch, which the others are held against.

    Attributes:
        maps: those of ``maps`` that it gives.
        lacking: by a map's name, why it is not given.
        drift: of each that it gives, to be added to; of torch none.
    """

    def __init__(self, pairing: Pairing, maps: Mapping[str, AttentionMap], nodes: NodeMap, *, reference: bool = False) -> None:
        self._pairing, self._nodes, self.reference = pairing, nodes, reference
        self._inside = pairing if reference else looked_into(pairing)
        offered = set(maps) if reference else set(self._inside.runtime.tensors(self._inside.artifact))
        self.maps = {node: asked for node, asked in maps.items() if node in offered}
        name, runtime = pairing.artifact.name, self._inside.runtime.name
        self.lacking = {
            asked.name: f"{node}, the softmax of {asked.module}, is no tensor of {name}: it was fused with what stands beside it"
            if offered
            else f"{runtime} shows no inner tensor of {name}, {node} of {asked.module} neither"
            for node, asked in maps.items()
            if node not in offered
        }
        self.drift = {} if reference else {asked.name: DriftSums(asked) for asked in self.maps.values()}
        self._conditions: dict[str, str] = {}

    def open(self, threads: int) -> Session:
        """A session that returns its maps.

        Raises:
            InputError: the runtime refuses the artefact.
        """
        try:
            session = self._inside.open(SessionOptions(threads=threads, taps=tuple(self.maps)))
        except MissingOperatorError as error:
            raise error.within(self._nodes) from error
        self._conditions = session.conditions
        return session

    def look(self, session: Session, feed: Feeds) -> dict[str, Maps]:
        """Its maps of one image, by name.

        Raises:
            InputError: a tensor has another shape than such a network's.
        """
        outputs = check_feeds(session, feed)
        return {asked.name: token_maps(outputs[node], asked) for node, asked in self.maps.items()}

    def subject(self) -> AttentionSubject:
        """What is to be said of it, once all images were seen."""
        artifact = self._pairing.artifact
        return AttentionSubject(
            name="torch FP32" if self.reference else f"{artifact.manifest.title}{self._pairing.where}",
            file="" if self.reference else artifact.name,
            sha256=artifact.manifest.sha256,
            precision=str(artifact.manifest.precision),
            rung=self._inside.runtime.rung,
            conditions=self._conditions,
            drift=tuple(sums.result() for sums in self.drift.values()),
            lacking=self.lacking,
        )
