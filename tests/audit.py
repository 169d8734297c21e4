"""Every command, for each target and precision, ended well, by a failure and by signals: what it does behind one's back.

    make audit

Each runs under strace in a place of its own user (tests/quiet_place.py). Exit code 1 where a command opened a socket, started a process
that is not this package's, wrote outside the output, the cache and its own temporary folder, or left anything; 3 where nothing can be
traced here.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from quiet_place import Place, quiet_place
from tracing import Traced, why_not

NETWORK = ("-m", "mine:make")
FLOATS = ("-p", "fp32", "-p", "fp16")
ENDED = {0, 1}
"""Codes of a command that did what it was asked: a gate may have failed, which is an answer too."""
RECIPE = """
[model]
name = "mine:make"
[data]
evaluation = "images"
[export]
targets = ["onnx", "coreml"]
precisions = ["fp32", "fp16"]
"""


class Case(NamedTuple):
    """A command, the exit codes that it may have, and at which step it is sent which signal."""

    arguments: tuple[str, ...]
    codes: set[int] = ENDED
    at: int = 0
    number: signal.Signals | None = None


def exports() -> Iterator[Case]:
    """Each target in each precision, with everything besides that a target has of its own."""
    int8 = ("-p", "int8", "--ranges", "out/ranges.json", "--data", "images")
    yield Case(("calibrate", *NETWORK, "--data", "train", "--evaluation", "images", "--samples", "16", "-o", "out/ranges.json"))
    for target, more in (("onnx", ()), ("openvino", ("-p", "bf16")), ("trt", ()), ("coreml", ())):
        yield Case(("export", *NETWORK, "-t", target, *FLOATS, *more, "-o", "out"))
        yield Case(("export", *NETWORK, "-t", target, *int8, "-o", "out"))
    yield Case(("export", *NETWORK, "-t", "openvino", "-p", "int8", "--quantizer", "nncf", "--calibration", "train", "-o", "out/nncf"))
    yield Case(("export", *NETWORK, "-t", "onnx", *int8, "--calibration", "train", "-o", "out/searched"))
    yield Case(("export", *NETWORK, "-t", "trt", "-p", "fp16", "--flavour", "on-device", "--data", "images", "-o", "out"))
    for weights in ("int8", "palette6", "palette4"):
        yield Case(("export", *NETWORK, "-t", "coreml", "-p", "fp16", "--weights", weights, "-o", "out"))
    yield Case(("export", *NETWORK, "-t", "coreml", "-p", "fp16", "--layout", "ane", "-o", "out"))


def readings(place: Place) -> Iterator[Case]:
    """What reads the artefacts that are there, the reports that come of it, and what looks at the machine."""
    out = place.work / "out"
    kinds = (".onnx", ".openvino", ".mlpackage", ".rtx", ".trtjob")
    made = tuple(f"out/{path.name}" for path in sorted(out.iterdir()) if path.suffix in kinds)
    yield Case(("verify", *made, "--data", "images", "-o", "out/verified"))
    yield Case(("verify", *made[:2], "--data", "images", "--layers"))
    yield Case(("evaluate", *made, "--data", "images"))
    yield Case(("profile", *made, "--seconds", "0.1", "--samples", "8", "--json"), {0, 1})  # a tenth of a second may be too short
    (place.work / "recipe.toml").write_text(RECIPE)
    yield Case(("run", "recipe.toml", "-o", "out/run"))
    yield Case(("report", "out/verified/report.json", "-o", "out/again"))
    onnx = next(name for name in made if name.endswith(".onnx"))
    yield Case(("bundle", onnx, "--data", "images", "--evaluate", "-o", "out/board.tar"))
    yield Case(("compare", "out/verified/report.json", "out/verified/report.json"))
    yield Case(("compare", "out/verified/report.json", "--history", "out/series.jsonl"), {2})  # it has no latency
    yield Case(("ab", *made[:1] * 2, "--processes", "5", "--seconds", "0.1", "--samples", "8"), {0, 1})
    yield Case(("models",))
    yield Case(("doctor",))
    yield Case(("device", "list"))
    yield Case(("doctor", "--explain", "out/mine.make.fp16.rtx", "--load"))
    yield Case(("--help",))


def failures() -> Iterator[Case]:
    """Wrong input, at the beginning and after minutes of work."""
    wrong = {2}
    yield Case(("export", "-m", "mine:absent", "-o", "out/failed"), wrong)
    yield Case(("export", "-m", "mine:odd", "-t", "coreml", "-o", "out/failed"), wrong)
    yield Case(("export", *NETWORK, "-t", "coreml", *FLOATS, "-o", "mine.py/no-folder"), wrong)
    yield Case(("export", *NETWORK, "-t", "coreml", *FLOATS, "--keep-fp32", "absent", "-o", "out/failed"), wrong)
    yield Case(("verify", "mine.py"), wrong)
    yield Case(("profile", "out/damaged.onnx"), wrong)
    yield Case(("calibrate", *NETWORK, "--data", "nowhere", "-o", "out/failed.json"), wrong)
    yield Case(("run", "mine.py"), wrong)
    yield Case(("report", "mine.py"), wrong)
    yield Case(("report", "--import", "mine.py", "-o", "out/failed"), wrong)
    yield Case(("doctor", "--explain", "mine.py"), {1, 2})


def interruptions() -> Iterator[Case]:
    """Ctrl-C and a request to terminate, at steps of what takes time."""
    everything = ("export", *NETWORK, *FLOATS, "--no-cache", "-t", "onnx", "-t", "openvino", "-t", "coreml", "-t", "trt", "-o", "out/ended")
    for number, step in itertools.product((signal.SIGINT, signal.SIGTERM), (1, 2, 4, 6, 7, 9)):
        yield Case(everything, {128 + number}, step, number)
    others = (
        ("calibrate", *NETWORK, "--data", "train", "--samples", "16", "-o", "out/ended.json"),
        ("verify", "out/mine.make.fp16.mlpackage", "out/mine.make.fp16.onnx", "--data", "images"),
        ("profile", "out/mine.make.fp16.openvino", "--seconds", "5"),
        ("run", "recipe.toml", "-o", "out/ended"),
    )
    for number, arguments in itertools.product((signal.SIGINT, signal.SIGTERM), others):
        yield Case(arguments, {128 + number}, 1, number)


def main() -> int:
    """Run all of them, and print what was found; the exit code."""
    if wrong := why_not():
        print(f"nothing was audited: {wrong}")
        return 3
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = quiet_place(Path(folder) / "place")
        kinds = {"ended well": exports(), "read": readings(place), "failed": failures(), "were interrupted": interruptions()}
        for kind, cases in kinds.items():
            for case in cases:
                found = place.run(*case.arguments, at=case.at, number=case.number)
                total["commands"] += 1
                total["otherwise"] += _audited(place, case, found, total, kind)
                shutil.rmtree(place.root / "logs")
    print(f"\n{total['commands']} commands, {total['otherwise']} of which ended otherwise than they should:")
    print(f"sockets opened {total['sockets']}, forks not ours {total['forks']},", end=" ")
    print(f"files outside output, cache and own temporary folder {total['outside']}, leftovers {total['left']}")
    return int(any(total[what] for what in ("otherwise", "sockets", "forks", "outside", "left")))


def _audited(place: Place, case: Case, found: Traced, total: Counter[str], kind: str) -> bool:
    """Count what one command did, and say it; whether it ended otherwise than it should."""
    seen = {"sockets": found.sockets, "forks": found.forks, "outside": place.outside(found), "left": place.left(found)}
    for path in seen["left"]:  # or it would be counted for the next one again
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    total.update({what: len(each) for what, each in seen.items()})
    otherwise = found.code not in case.codes
    sent = f" ({case.number.name} at step {case.at})" if case.number else ""
    print(f"{kind}: {' '.join(case.arguments)}{sent}: exit code {found.code}", flush=True)
    for what, each in seen.items():
        for one in each:
            print(f"    {what}: {one}")
    if otherwise:
        print("    expected", " or ".join(map(str, sorted(case.codes))), "and it said:", found.said[-1000:])
    return otherwise


if __name__ == "__main__":
    sys.exit(main())
