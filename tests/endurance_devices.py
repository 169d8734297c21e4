"""Commands on a device while whoever works for them is killed, and on three devices behind bad lines: no figure is another one for it.

    python tests/endurance_devices.py [--kills 60] [--seed 0] [--alone]
    make endurance-devices

A command is killed in, or whoever works for it on either side, at moments drawn over all that it takes and as events are seen; then it is
called again. That second call must end with the report of one that nobody disturbed, times apart, and leave nothing but the device's cache.
The lines need root and network namespaces.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench import EVENTS, KINDS, Bench, Ended, Moment
from commandline import DEPLOY, deploy
from devices import Board
from endurance import OF_THE_MOMENT
from far import Far, far_devices
from project import inventory, make_project
from sshd import sshd

COMMANDS = {
    "evaluate": ("evaluate",),
    "verify": ("verify", "--layers"),
    "profile": ("profile", "--seconds", "1", "--samples", "64"),
}
FEW = """
[export]
targets = ["onnx", "openvino"]
precisions = ["fp32"]
"""
"""For what is called again and again."""
MORE = FEW.replace('"fp32"', '"fp32", "fp16"')
TOLD = {2, 3}
"""Exit codes of a command that says what was lost."""
ASKED = {130: signal.SIGINT, 143: signal.SIGTERM}
"""Those of one that was asked to end."""
DELAY, LOSS = 0.1, 0.02
"""Seconds and share of packets, each way: 200 ms there and back."""
PULLED, LONGER = 20.0, 60.0
"""Seconds of an outage that the connection survives, and of one that it does not."""
FIRST_WIRE = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="the kills without the lines")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as in all tests
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the servers are ended
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as name:
        folder, wrong = Path(name), 0
        if asked.kills:
            wrong += _killed(_project(folder / "few", FEW, 24), folder, asked.kills, random.Random(asked.seed))
        if not asked.alone:
            wrong += _far(_project(folder / "more", MORE, 60), folder)
    return int(bool(wrong))


def _project(work: Path, recipe: str, pictures: int) -> Path:
    make_project(work, recipe=recipe, side=64, pictures=pictures)
    deploy("export", "-o", "out", cwd=work, DTVIT_DEPLOY_CACHE=str(work / "cache"))
    return work


def _call(bench: Bench, work: Path, command: str, moment: Moment | None = None, drawn: random.Random | None = None) -> Ended:
    return bench.run(_words(command, "bench"), work, moment, drawn, DTVIT_DEPLOY_CACHE=str(work / "cache"))


def _words(command: str, *devices: str) -> list[str]:
    name, *more = COMMANDS[command]
    return [DEPLOY, name, "out", "--data", "images", *(word for device in devices for word in ("--device", device)), *more, "--json"]


def _killed(work: Path, folder: Path, kills: int, drawn: random.Random) -> int:
    """Kill so many times; how often a call ended otherwise than it may."""
    board = Board(folder / "board")
    wrong = 0
    ends: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    with sshd(folder / "server") as server:
        inventory(work, bench=f'address = "{server.address}"\npython = "{board.python}"')
        bench = Bench(server, board, folder / "user")
        lives, whole = {}, {}
        for command in COMMANDS:
            _call(bench, work, command)  # what is done once for all here is done, so that all calls take as long
            shutil.rmtree(board.root)
            ended, lives[command] = bench.lives(_words(command, "bench"), work, DTVIT_DEPLOY_CACHE=str(work / "cache"))
            whole[command] = _report(ended)
            print(f"undisturbed {command}: {ended.seconds:.1f} s, {len(whole[command])} letters of report", flush=True)
        while sum(map(collections.Counter.total, ends.values())) < kills:
            command = drawn.choice(list(COMMANDS))
            moment = _drawn_moment(drawn, lives[command])
            shutil.rmtree(board.root if drawn.random() < 0.5 else board.root / "jobs", ignore_errors=True)
            disturbed = _call(bench, work, command, moment, drawn)
            if not disturbed.killed:
                continue
            left = bench.left() if disturbed.code in ASKED else []  # who is asked to end ends what goes on there, too
            again = _call(bench, work, command)
            left += bench.left()
            how = _how(disturbed, whole[command])
            then = "the same" if _report(again) == whole[command] else f"OTHER (exit code {again.code}): {again.said[-500:]}"
            ends[moment.kind][how.partition(":")[0]] += 1
            wrong += bool(left) or then != "the same" or how.startswith("OTHER")
            print(f"{command}: {moment}: {how}; the next call: {then}{f'; LEFT: {left}' if left else ''}", flush=True)
    for kind, counted in ends.items():
        print(f"killed {kind}: {', '.join(f'{count} {how}' for how, count in counted.most_common()) or 'never'}", flush=True)
    print(f"{kills} kills: {kills - wrong} next calls the same with nothing left, {wrong} not", flush=True)
    return wrong


def _drawn_moment(drawn: random.Random, lives: dict[str, tuple[float, float]]) -> Moment:
    """Somebody, and a moment of their life, or one at which something begins or ends."""
    kind = drawn.choice([kind for kind in KINDS if kind in lives])
    by = drawn.choice((signal.SIGKILL, signal.SIGKILL, *ASKED.values())) if kind == "client" else signal.SIGKILL
    if drawn.random() < 1 / 3:
        return Moment(kind, event=drawn.choice(EVENTS), by=by)
    return Moment(kind, drawn.uniform(*lives[kind]), by=by)


def _how(ended: Ended, whole: str) -> str:
    """How a disturbed call ended, as far as it may end so."""
    if "Traceback" in ended.said:
        return f"OTHER: a traceback: {ended.said[-800:]}"
    if ended.code == -signal.SIGKILL:
        return "died with it"
    if ended.code in ASKED:
        return "ended as it was asked to"
    if ended.code in (0, 1):
        return "went on to the same report" if _report(ended) == whole else f"OTHER: another report: {ended.said[-500:]}"
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    if ended.code in TOLD and len(errors) == 1:
        return f"said what was lost: {errors[0][:200]} (exit code {ended.code})"
    return f"OTHER: exit code {ended.code}: {ended.said[-500:]}"


def _report(ended: Ended) -> str:
    """A report's figures and judgements, but for what they say of time."""
    if ended.code not in (0, 1):
        return f"exit code {ended.code}: {ended.said[-500:]}"
    return json.dumps(_lasting(json.loads(ended.out)["subjects"]), sort_keys=True)


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _lasting(one) for name, one in value.items() if name not in OF_THE_MOMENT}
        return kept | ({"timed": bool(value["latency"])} if "latency" in value else {})
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _far(work: Path, folder: Path) -> int:
    """Three devices behind bad lines; how often a figure was another one."""
    wrong = 0
    with far_devices(folder / "far", ("one", "two", "three"), first=FIRST_WIRE, delay=DELAY, loss=LOSS) as devices:
        inventory(work, **{name: device.described(name) for name, device in devices.items()})
        environment = {"DTVIT_DEPLOY_CACHE": str(work / "cache"), "DTVIT_DEPLOY_SSH_CONFIG": str(folder / "far" / "client")}
        for command in COMMANDS:
            began = time.monotonic()
            done = deploy(*_words(command, "local", "far")[1:], cwd=work, code=None, **environment)
            differing = _differing(json.loads(done.stdout)["subjects"], list(devices))
            print(f"{command} here and on three at once: {time.monotonic() - began:.0f} s, {_are(differing)}", flush=True)
            wrong += bool(differing)
        for seconds in (PULLED, LONGER):
            wrong += _pulled(work, devices["one"], seconds, environment)
        lost = ", ".join(f"{name} {device.line.lost} of {device.line.lost + device.line.carried}" for name, device in devices.items())
        print(f"packets lost: {lost}", flush=True)
    return wrong


def _pulled(work: Path, device: Far, seconds: float, environment: dict[str, str]) -> int:
    """A profile in whose middle the cable is pulled for so long."""
    words = [*_words("profile", "one"), "--seconds", "12"]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(words, cwd=work, env=os.environ | environment, stdout=out, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said, workers = [], set()
        for line in process.stderr:
            said.append(line)
            if "latency of" in line and not device.line.pulled and not workers:
                workers.update(device.board.workers())
                device.line.pulled = True
                threading.Timer(seconds, setattr, (device.line, "pulled", False)).start()
            workers.update(device.board.workers())
        process.wait()
        out.seek(0)
        subjects = json.loads(out.read())["subjects"] if process.returncode in (0, 1) else []
    timed = [one["latency"]["samples_ms"] for one in subjects if one["file"]]
    wrong = len(timed) != 4 or not all(timed) or len(workers) != 1
    lost = "made anew" if any("connection is lost" in line for line in said) else "stood"
    print(
        f"cable pulled for {seconds:.0f} s in a profile: exit code {process.returncode}, {len(timed)} of 4 artefacts timed"
        f" ({', '.join(str(len(one)) for one in timed)} samples), the job was begun {len(workers)} time(s), the connection {lost}",
        flush=True,
    )
    return int(wrong)


def _differing(subjects: list[dict[str, Any]], devices: list[str]) -> list[str]:
    """Artefacts of which a figure of a device is not this machine's."""
    found = {one["name"]: _lasting(one | {"name": ""}) for one in subjects if one["file"]}
    here = [name for name in found if " on " not in name]
    assert len(here) == 4, sorted(found)
    return [f"{name} on {device}" for name in here for device in devices if not _alike(found[name], found.get(f"{name} on {device}"))]


def _alike(here: Any, there: Any, *, summed: bool = False) -> bool:
    """Whether two reports are the same but for where they were taken; what a walk through layers sums up has another order there."""
    if isinstance(here, dict) and isinstance(there, dict):
        names = (here.keys() | there.keys()) - {"rung"}
        return all(_alike(here.get(name), there.get(name), summed=summed or name == "layers") for name in names)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(_alike(*both, summed=summed) for both in zip(here, there, strict=True))
    if summed and isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=1e-6)
    return bool(here == there)


def _are(differing: list[str]) -> str:
    return f"OTHERS: {differing}" if differing else "every figure that of this machine"


if __name__ == "__main__":
    sys.exit(main())
