"""A plan that is killed again and again, two that share a cache, and farms of several sizes: each must end as one that nobody disturbed.

    python tests/endurance.py [--kills 30] [--seed 0] [--alone] [--workers [N …]] [RECIPE …]      # the digits' four recipes by default
    make endurance

What is compared are artefacts, manifests and range tables by SHA-256, and of reports everything but times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from commandline import begun
from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.recipe.reading import requests
from dtvit_deploy.recipe.writing import written
from local_farm import local_farm

ROOT = Path(__file__).parents[1]
DIGITS = [ROOT / "examples" / "digits" / f"{name}.toml" for name in ("recipe", "int8", "tensorrt", "coreml")]
OF_THE_MOMENT = {"latency", "conditions", "device", "verdict"}
"""What reports say of time, and what follows from it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="without two runs on one cache")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="sizes of farms")
    asked = parser.parse_args()
    subprocess.run([sys.executable, ROOT / "examples" / "digits" / "data.py", ROOT / "build" / "digits"], check=True)
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        recipes = [_without_search(recipe, scratch) for recipe in asked.recipes or DIGITS]
        seconds, whole = _timed(recipes, scratch / "whole")
        print(f"undisturbed: {seconds:.0f} s, {len(whole)} files", flush=True)
        for what, found in _tried(recipes, scratch, asked, seconds):
            differing = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
            print(f"{what}: {'the same' if not differing else f'OTHERS: {differing}'}", flush=True)
            wrong += differing
    return int(bool(wrong))


def _tried(recipes: list[str], scratch: Path, asked: argparse.Namespace, seconds: float) -> Iterator[tuple[str, dict[str, str]]]:
    """What each trial ended with, as soon as it has."""
    if asked.kills:
        drawn = random.Random(asked.seed)
        yield f"killed {asked.kills} times", _killed(recipes, scratch / "killed", asked.kills, seconds, drawn)
    if not asked.alone:
        for which, found in _two(recipes, scratch / "two"):
            yield f"{which} of two on one cache", found
    for size in asked.workers:
        yield f"a farm of {size}", _on_a_farm(recipes, scratch / f"farm{size}", size)


def _without_search(recipe: Path, folder: Path) -> str:
    """The same request without the search of INT8, which decides by how long modules take."""
    (_, asked), *others = requests(recipe, {}, {})
    assert not others, f"{recipe} has several models"
    copy = folder / recipe.name
    if Precision.INT8 in asked.export.precisions:
        asked = msgspec.structs.replace(asked, int8=msgspec.structs.replace(asked.int8, search=False))
    copy.write_text(written(asked, folder))
    return str(copy)


def _command(recipes: list[str], folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "dtvit_deploy", "run", *recipes, "-o", str(folder / "out"), *words]


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"DTVIT_DEPLOY_CACHE": str(folder / "cache")}


def _run(recipes: list[str], folder: Path, *words: str) -> dict[str, str]:
    done = subprocess.run(_command(recipes, folder, *words), env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return _state(folder / "out")


def _timed(recipes: list[str], folder: Path) -> tuple[float, dict[str, str]]:
    began = time.monotonic()
    state = _run(recipes, folder)
    return time.monotonic() - began, state


def _state(folder: Path) -> dict[str, str]:
    """What lies in a folder, by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == "report.json":
            subjects = [_lasting(one) for one in json.loads(path.read_text())["subjects"]]
            found[name] = json.dumps(subjects, sort_keys=True)
        elif path.is_file() and not path.name.startswith("report."):
            found[name] = sha256_of(path)
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(one) for name, one in value.items() if name not in OF_THE_MOMENT}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _killed(recipes: list[str], folder: Path, kills: int, seconds: float, drawn: random.Random) -> dict[str, str]:
    """Kill every process of a run at moments drawn over all that it takes, and begin it again; from nothing, where it came to its end.

    What was done before a kill is kept, so that late stages are reached too.
    """
    moments, ended, reached = [], 0, set()
    while len(moments) < kills:
        with tempfile.TemporaryFile() as said:
            with subprocess.Popen(
                _command(recipes, folder), env=_environment(folder), stdout=said, stderr=said, start_new_session=True
            ) as process:
                moment = drawn.uniform(0.2, 3 * seconds / kills)  # one and a half times a whole run in all
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    moments.append(moment)
            said.seek(0)
            words = said.read().decode()
        if process.returncode in (0, 1):
            ended += 1
            shutil.rmtree(folder / "cache")
            shutil.rmtree(folder / "out")
        elif process.returncode != -signal.SIGKILL:
            sys.exit(f"after a kill: exit code {process.returncode}\n{words}")
        else:
            reached.add(begun(words)[-1].rpartition("/")[2] if begun(words) else "nothing")
    print(
        f"killed after {min(moments):.1f} to {max(moments):.1f} s, in {', '.join(sorted(reached))}; came to an end {ended} times",
        flush=True,
    )
    return _run(recipes, folder)


def _two(recipes: list[str], folder: Path) -> list[tuple[str, dict[str, str]]]:
    """Two runs at the same time that share a cache."""
    folders = [folder / "first", folder / "second"]
    environment = os.environ | {"DTVIT_DEPLOY_CACHE": str(folder / "cache")}
    logs = [folder / "first.log", folder / "second.log"]
    folder.mkdir()
    processes = []
    for one, log in zip(folders, logs, strict=True):
        with log.open("wb") as said:
            processes.append(subprocess.Popen(_command(recipes, one), env=environment, stdout=said, stderr=said))
    for process, log in zip(processes, logs, strict=True):
        if process.wait() not in (0, 1):
            sys.exit(log.read_text())
    return [(one.name, _state(one / "out")) for one in folders]


def _on_a_farm(recipes: list[str], folder: Path, size: int) -> dict[str, str]:
    with local_farm(folder, size) as farm:
        return _run(recipes, folder, "--scheduler", farm.address)


if __name__ == "__main__":
    sys.exit(main())
