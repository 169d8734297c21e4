"""What the harness and the agent add to a latency: one OpenVINO artefact, measured four ways by turns.

    python benchmarks/overhead.py ARTEFACT [--rounds 15] [--seconds 3]

`app`: OpenVINO's own benchmark_app on the same IR, with the same threads, stream and precision. `here`: this project's harness in a
fresh process. `local`, `ssh`: `profile --device` through the agent, once as a child of the command and once over an ssh server on this
machine. Each way runs once in each round, in a fresh process, and none beside another; the order turns. A ratio is the median over rounds
of one p50 by the other, its 95 % interval a bootstrap over rounds.

Limits: here ÷ app and ssh ÷ local, 2 % and 1 % from 1; the exit code is 1 where a ratio
is beyond, and where its interval alone reaches there, that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home

# isort: split
import numpy as np

from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.harness.latency import MeasureOptions, measure
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.cold import still_feeds
from dtvit_deploy.runtimes.openvino import GRAPH, HINT
from dtvit_deploy.runtimes.registry import open_session
from sshd import Sshd

LIMITS = {("here", "app"): 0.02, ("local", "here"): 0.02, ("ssh", "local"): 0.01}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    artifact = load_artifact(asked.artifact)
    if asked.alone:
        print(json.dumps(alone(artifact, asked.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        board, server = Board(scratch / "board"), Sshd(scratch / "server")
        server.prepare()
        server.start()
        ways_there = {"near": "local", "far": server.address}
        tables = (
            f'[[device]]\nname = "{name}"\naddress = "{address}"\npython = "{board.python}"\n' for name, address in ways_there.items()
        )
        (scratch / "devices.toml").write_text("".join(tables))
        hint = fresh(asked.artifact, asked.seconds)[1]
        try:
            ways: dict[str, Callable[[], float]] = {
                "app": lambda: benchmark_app(artifact, asked.seconds, hint),
                "here": lambda: fresh(asked.artifact, asked.seconds)[0],
                "local": lambda: through_agent(asked.artifact, asked.seconds, server, "near"),
                "ssh": lambda: through_agent(asked.artifact, asked.seconds, server, "far"),
            }
            for way in ("local", "ssh"):
                ways[way]()  # what is sent once is sent
            found = by_turns(ways, asked.rounds)
        finally:
            server.stop()
    for way, taken in found.items():
        print(f"{way}: median of {len(taken)} p50 {np.median(taken):.3f} ms, {min(taken):.3f} to {max(taken):.3f}")
    beyond = False
    for (one, other), limit in LIMITS.items():
        middle, low, high = ratio(found[one], found[other])
        beyond |= abs(middle - 1) > limit
        reaches = "" if 1 - limit <= low and high <= 1 + limit else "; the interval reaches beyond it"
        print(f"{one} ÷ {other}: {middle:.4f} ({low:.4f} to {high:.4f}), limit {limit:.0%} from 1{reaches}")
    return int(beyond)


def by_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, one for each round."""
    names, found = list(ways), {name: list[float]() for name in ways}
    began = time.perf_counter()
    for turn in range(rounds):
        row = names[turn % len(names) :] + names[: turn % len(names)]
        for name in row if turn // len(names) % 2 == 0 else reversed(row):
            found[name].append(ways[name]())
        told = ", ".join(f"{name} {taken[-1]:.3f}" for name, taken in found.items())
        print(f"round {turn + 1} of {rounds} after {time.perf_counter() - began:.0f} s: {told}", file=sys.stderr)
    return found


def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Median over rounds, and its interval."""
    each = np.array(above) / np.array(below)
    drawn = np.random.default_rng(0).choice(each, (10_000, len(each)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(np.median(each)), float(low), float(high)


def benchmark_app(artifact: Artifact, seconds: float, hint: str) -> float:
    """Median of OpenVINO's own tool, with the settings of `dtvit_deploy.runtimes.openvino`."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", str(artifact.path / GRAPH), "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", "1"]
        words += ["-pin", "NO", "-infer_precision", hint, "-t", str(round(seconds))]
        command = [Path(sys.executable).with_name("benchmark_app"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        told = next(line for line in done.stdout.splitlines() if "Median:" in line)
        return float(told.split()[-2])


def fresh(path: Path, seconds: float) -> tuple[float, str]:
    words = [sys.executable, __file__, "--alone", "--seconds", str(seconds), str(path)]
    p50, hint = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return p50, hint


def alone(artifact: Artifact, seconds: float) -> tuple[float, str]:
    """In this process: p50, and the precision that OpenVINO was told to compute in."""
    with open_session(artifact, SessionOptions(threads=1)) as session:
        feed = still_feeds(artifact.manifest)
        found = measure({"it": lambda: session.run(feed)}, MeasureOptions(min_seconds=seconds))["it"]
        return found.p50, session.conditions[HINT]


def through_agent(path: Path, seconds: float, server: Sshd, device: str) -> float:
    """Of `profile` as a user calls it, from the report."""
    words = ["profile", str(path.resolve()), "--device", device, "--seconds", str(seconds), "--json"]
    variables = os.environ | {"DTVIT_DEPLOY_SSH_CONFIG": str(server.config)}
    command = [sys.executable, "-m", "dtvit_deploy", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, cwd=server.folder.parent)
    assert done.returncode in (0, 1), done.stderr
    (taken,) = (one["latency"]["p50"] for one in json.loads(done.stdout)["subjects"] if one["file"])
    return float(taken)


if __name__ == "__main__":
    sys.exit(main())
