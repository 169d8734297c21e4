"""`make fuzz`: thousands of changed files through the functions behind `verify`, counted. Nothing is kept but the counts.

python -m fuzz [--onnx N] [--openvino N] [--pt N] [--first N] [--workers N]
"""

from __future__ import annotations

import argparse
import collections
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from dtvit_deploy.process.child import child_command
from fuzz.cases import KINDS, Outcome, write_seeds

HANG = 60
"""Seconds that one file may take."""
COUNTS = {"onnx": 3000, "openvino": 3000, "pt": 500}
BATCH = 100
"""Files that one process takes, unless one of them ends it."""


def outcomes(kind: str, first: int, count: int, seeds: Path, work: Path, workers: int) -> Iterator[Outcome]:
    """Of each number, in whatever order they come: some batches at a time."""
    with ThreadPoolExecutor(workers) as pool:
        starts = range(first, first + count, BATCH)
        batches = [pool.submit(_batch, kind, start, min(start + BATCH, first + count), seeds, work) for start in starts]
        for batch in as_completed(batches):
            yield from batch.result()


def _batch(kind: str, number: int, end: int, seeds: Path, work: Path) -> list[Outcome]:
    """Of each number, in a process that is watched: one that ends or hangs is counted, and the next goes on after it."""
    found: list[Outcome] = []
    place = Path(tempfile.mkdtemp(dir=work))
    while number < end:
        code = "from fuzz.cases import main; main(*sys.argv[1:])"
        command = child_command(code, kind, str(number), str(end), str(seeds), str(place))
        # Not buffered: a line that waits in a buffer is none that its file descriptor tells of.
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready: what it imports has its own time
            for line in _lines(process):
                found.append(msgspec.json.decode(line, type=Outcome))
                number += 1
            hung = process.poll() is None
            process.kill()
        if hung or process.returncode != 0:
            what = "hung" if hung else "crashed"
            found.append(Outcome(what, f"{kind} {number}, exit status {process.returncode}", float(HANG), (0, 0)))
            number += 1
    return found


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Lines of its output, until it ends or says nothing for too long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while ready.select(HANG):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            yield line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=COUNTS[kind], metavar="N")
    parser.add_argument("--first", type=int, default=0, help="number of the first file of each kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="files taken at a time; one for each core by default")
    asked = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, work = Path(folder, "seeds"), Path(folder, "work")
        seeds.mkdir()
        work.mkdir()
        write_seeds(seeds)
        for kind in KINDS:
            counts: collections.Counter[str] = collections.Counter()
            slowest, mib, in_child = 0.0, 0, 0
            begun = time.perf_counter()
            for outcome in outcomes(kind, asked.first, getattr(asked, kind), seeds, work, asked.workers):
                counts[outcome.what] += 1
                slowest, mib, in_child = max(slowest, outcome.seconds), max(mib, outcome.mib[0]), max(in_child, outcome.mib[1])
                counts["ended a trial"] += "ends the process" in outcome.said
                if outcome.what in ("crashed", "hung", "defect"):
                    print(f"  {outcome.what}: {outcome.said}", flush=True)
            bad += counts["crashed"] + counts["hung"] + counts["defect"]
            told = ", ".join(f"{counts[what]} {what}" for what in ("refused", "accepted", "crashed", "hung", "defect"))
            print(f"{kind}: {told}; {counts['ended a trial']} refused because they ended a trial's process;", end=" ")
            taken = time.perf_counter() - begun
            print(f"slowest {slowest:.1f} s of {taken:.0f} s, peak {mib} MiB, {in_child} MiB in a trial", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
