"""Clocks of machines that are not here: stand-ins for `jetson_clocks` and `nvidia-smi`, whose state is a file, and who holds them.

They do what NVIDIA documents of the programs, and what the programs were seen to do by those who run them: that one asks before it writes
over a file, ends with status 0 whatever it could not restore, and that the other's driver forgets what it was told as nobody uses it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import captured
from devices import Board

STATE = "var/state.json"
"""Below the root, what the programs' hardware is set to."""
_JETSON = """
import json, os, sys
state = json.load(open(STATE))
def keep():
    json.dump(state, open(STATE, "w"))
def show(name, clock):
    low, high, held, idle = clock["low"], clock["high"], clock.get("held"), clock.get("idle")
    now = high if held or low == high else low
    extra = f" FreqOverride={held}" if held is not None else ""
    if idle is None:
        print(f"{name} MinFreq={low} MaxFreq={high} CurrentFreq={now}{extra}")
    else:
        print(f"{name}: Online=1 Governor=schedutil MinFreq={low} MaxFreq={high} CurrentFreq={now} IdleStates: WFI={idle} c7={idle} ")
action, file = (sys.argv[1:] + ["", ""])[:2]
if state.get("user") != "root":
    print(f"Error: Run this script({sys.argv[0]}) as a root user"); sys.exit(1)
clocks = state["clocks"]
if action == "--show":
    print("SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin Developer Kit")
    print("Online CPUs: " + ",".join(name[3:] for name in clocks if name.startswith("cpu")))
    for name, clock in clocks.items():
        show(name, clock)
    print("NV Power Mode: MAXN")
elif action == "--store":
    if os.path.exists(file):
        print(f"File {file} already exists. Can I overwrite it? Y/N:"); print(f"Error: file {file} already exists!"); sys.exit(1)
    with open(file, "a") as stored:
        for name, clock in clocks.items():
            for key, value in clock.items():
                if key != "high":
                    stored.write(f"/sys/{name}/{key}:{value}\\n")
elif action == "--restore":
    if not os.path.exists(file):
        print(f"Error: {file} file not found !"); sys.exit(1)
    print(f"Restoring system configuration from {file}")
    for line in open(file):
        path, value = line.split(":")
        _, _, name, key = path.split("/")
        if name in state.get("stuck", ()):
            print(f"Error: Failed to restore {path}")
        else:
            clocks[name][key] = int(value)
    keep()
elif not action:
    for name, clock in clocks.items():
        if name in state.get("refuses", ()):
            print("Error: Failed to max GPU frequency!"); continue
        if "held" in clock:
            clock["held"] = 1
        else:
            clock["low"] = clock["high"]
        if "idle" in clock:
            clock["idle"] = 0
    keep()
else:
    print(f"Unknown option: {action}"); sys.exit(1)
"""
_NVIDIA = """
import json, sys
state = json.load(open(STATE))
cards, words = state["cards"], sys.argv[1:]
if "-i" in words:
    uuid = words[words.index("-i") + 1]
    chosen = [card for card in cards if card["uuid"] == uuid]
    if not chosen:
        print("No devices were found"); sys.exit(6)
else:
    chosen = cards
def unloaded(card):
    if not card["persistent"] and not state.get("used"):  # with nobody to keep it, the driver goes as this program ends
        card["lock"] = None
for card in chosen:
    told = {
        "index": cards.index(card), "uuid": card["uuid"], "persistence_mode": "Enabled" if card["persistent"] else "Disabled",
        "compute_cap": card.get("capability", "8.0"), "clocks.default_applications.gr": card.get("default", "[N/A]"),
        "clocks.max.gr": card["most"], "clocks.gr": card["lock"] or card.get("now", card["most"]),
    }
    if any(word.startswith("--query-gpu=") for word in words):
        fields = next(word for word in words if word.startswith("--query-gpu=")).partition("=")[2].split(",")
        for field in fields:
            if field not in told or field in state.get("unknown", ()):
                print(f'Field "{field}" is not a valid field to query.'); sys.exit(2)
        print(", ".join(str(told[field]) for field in fields))
    elif "-pm" in words:
        card["persistent"] = words[words.index("-pm") + 1] == "1"
    elif "-lgc" in words:
        low, high = map(int, words[words.index("-lgc") + 1].split(","))
        if card.get("refuses"):
            print("Setting locked GPU clocks is not supported for this GPU."); print("Treating as warning and moving on."); continue
        card["lock"] = high
        print(f'GPU clocks set to "(gpuClkMin {low}, gpuClkMax {high})"')
    elif "-rgc" in words:
        if state.get("stuck"):
            print("Unable to determine the device handle: GPU is lost."); sys.exit(15)
        card["lock"] = None
    unloaded(card)
json.dump(state, open(STATE, "w"))
"""
_PROGRAMS = {"jetson_clocks": _JETSON, "nvidia-smi": _NVIDIA}
ORIN: dict[str, Any] = {
    "user": "root",
    "clocks": {
        "cpu0": {"low": 729600, "high": 2201600, "idle": 1},
        "cpu1": {"low": 729600, "high": 2201600, "idle": 1},
        "GPU": {"low": 306000000, "high": 1300500000},
        "EMC": {"low": 204000000, "high": 3199000000, "held": 0},
    },
}
UUIDS = ("GPU-8f6c54a2-26a4-1a50-7a0b-6d3f2b0f9d11", "GPU-0a4b3c2d-1111-2222-3333-444455556666")
TWO_CARDS: dict[str, Any] = {
    "cards": [
        {"uuid": UUIDS[0], "persistent": False, "default": 1095, "most": 1410, "lock": None},
        {"uuid": UUIDS[1], "persistent": True, "most": 2520, "lock": None},
    ]
}


def with_program(root: Path, name: str, state: dict[str, Any]) -> None:
    """Have a tree that stands for a machine have a program, and what it sets."""
    (root / STATE).parent.mkdir(parents=True, exist_ok=True)
    (root / STATE).write_text(json.dumps(state))
    place = root / "usr/bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(f"#!{sys.executable} -ISB\nSTATE = {str(root / STATE)!r}\n{_PROGRAMS[name]}")
    (place / name).chmod(0o755)


def state_of(root: Path) -> dict[str, Any]:
    """What the programs' hardware is set to now."""
    while True:
        said = (root / STATE).read_text()
        if said:  # else it is being written
            found: dict[str, Any] = json.loads(said)
            return found


def change(root: Path, **what: Any) -> None:
    """Have the hardware be another way."""
    (root / STATE).write_text(json.dumps(state_of(root) | what))


def said(root: Path) -> dict[str, str]:
    """All that a tree says, but for the record."""
    return {str(path): path.read_text().strip() for path in root.rglob("*") if path.is_file() and path.name != "clocks.json"}


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that comes by itself."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.02)


def guards_of(root: Path, *, environment: str = "") -> list[int]:
    """Processes that hold the clocks of a tree; of the root, those that have a text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes()
        except OSError:
            continue
        if any(b"clocks.guard" in word for word in words) and str(root).encode() in words and environment.encode() in variables:
            found.append(int(folder.name))
    return found


def machine(root: Path) -> captured.Tree:
    """A PC with cpufreq and two GPUs, as a tree."""
    tree = captured.Tree(root, captured.lines("intel-turbo.tree"))
    for folder in (root / "sys/devices/system/cpu/cpufreq").glob("policy*"):
        for name, usual in (("base_frequency", "2400000"), ("scaling_min_freq", "400000"), ("scaling_max_freq", "4700000")):
            if not (folder / name).exists():
                (folder / name).write_text(f"{usual}\n")
    with_program(root, "nvidia-smi", TWO_CARDS)
    return tree


def seen_by(board: Board, root: Path) -> None:
    """Have a device see a tree's processor, its programs and its ``/run`` in place of this machine's: in a mount namespace of its own.

    What is started there by root finds it all below ``/``, as on a device.
    """
    place = "sys/devices/system/cpu"
    for name in ("possible", "present", "online"):  # which runtimes count cores by
        (root / place / name).write_text(Path(f"/{place}/{name}").read_text())
    (root / "run").mkdir(exist_ok=True)
    mounts = " && ".join(f"mount --bind {shlex.quote(str(root / one))} /{one}" for one in (place, "run"))
    script = board.python.read_text()
    begin, last = script.rstrip("\n").rsplit("\n", 1)
    path = f"export PATH={shlex.quote(str(root / 'usr/bin'))}:$PATH"
    inside = f"exec unshare -m sh -c {shlex.quote(mounts + ' && exec ' + chr(34) + '$@' + chr(34))} sh {last.removeprefix('exec ')}"
    board.python.write_text(f"{begin}\n{path}\n{inside}\n")


def required() -> None:
    """Have what `seen_by` needs, or skip with the reason."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root, and mount namespaces (unshare)")
    if not Path("/sys/devices/system/cpu/possible").exists():
        pytest.skip("needs Linux's /sys")
