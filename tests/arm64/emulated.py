"""Graphs on an emulated ARM64 core: what they answer there, or what ONNX Runtime says against them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from arm64.environment import Environment

ANSWER = Path(__file__).with_name("answer.py")
Feeds = dict[str, NDArray[Any]]


class Job(NamedTuple):
    """A graph, what it is fed, and settings of its session."""

    graph: onnx.ModelProto
    feeds: Feeds
    config: Mapping[str, str] = MappingProxyType({})


class Answer(NamedTuple):
    """Outputs by name, or the error in place of them; and the seconds that loading and answering took under emulation."""

    outputs: Feeds
    error: str
    seconds: float


@dataclass(frozen=True)
class Machine:
    """One core with one release of ONNX Runtime.

    Attributes:
        folder: for graphs and feeds.
    """

    environment: Environment
    core: str
    onnx_runtime: str
    folder: Path

    def answers(self, jobs: Sequence[Job]) -> list[Answer]:
        """Each job's, all by one process."""
        asked = [self._written(index, job) for index, job in enumerate(jobs)]
        listed, results = self.folder / "jobs.json", self.folder / "results.json"
        listed.write_text(json.dumps(asked))
        results.unlink(missing_ok=True)
        command, settings = self.environment.command(self.core, self.onnx_runtime, str(ANSWER), str(listed), str(results))
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=3600)
        assert results.is_file(), f"the emulated core ended with {done.returncode}: {done.stderr[-2000:]}"
        found = json.loads(results.read_text())
        return [self._read(one, result) for one, result in zip(asked, found, strict=True)]

    def answer(self, graph: onnx.ModelProto, feeds: Feeds) -> Answer:
        return self.answers([Job(graph, feeds)])[0]

    def _written(self, index: int, job: Job) -> dict[str, Any]:
        graph, feeds, answers = (self.folder / f"{index}{end}" for end in (".onnx", "-feeds.npz", "-answers.npz"))
        graph.write_bytes(job.graph.SerializeToString())
        np.savez(feeds, **job.feeds)  # type: ignore[arg-type]  # its stub takes a name for its own options
        return {"graph": str(graph), "feeds": str(feeds), "answers": str(answers), "config": dict(job.config)}

    def _read(self, asked: dict[str, Any], result: dict[str, Any]) -> Answer:
        if result["error"]:
            return Answer({}, result["error"], result["seconds"])
        with np.load(asked["answers"]) as answers:
            return Answer(dict(answers), "", result["seconds"])
