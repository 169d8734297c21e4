"""What a second worker of a farm gains an evaluation, and what a worker holds in memory.

    python benchmarks/farm.py [--images 20000] [--shard 1000]

A Dask scheduler and one worker, then two, on this machine, over TCP; a small convolutional network at 96×96 and its ONNX artefact in FP32,
on the digits' images, which are taken again and again. Times are of a run that does nothing but the evaluation, cold, with all that goes to
and from the workers; limit 1.7, where there are two cores. Memory: the peak of a worker and of what it started, with a fifth
of the images and with all of them; limit 1.15. The figures have to be those of one process here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from local_farm import local_farm

ROOT = Path(__file__).parents[1]
FASTER, LARGER, FEWER = 1.7, 1.15, 5
NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        widths = (3, 48, 96, 192)
        self.stages = nn.Sequential(*(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU(), nn.Conv2d(after, after, 3, 1, 1), nn.ReLU())
            for before, after in zip(widths, widths[1:])
        ))
        self.head = nn.Linear(192, 10)

    def forward(self, image):
        return self.head(self.stages(image).mean((2, 3)))

def make():
    return Net().eval(), {"image": torch.zeros(1, 3, 96, 96)}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--shard", type=int, default=1000)
    asked = parser.parse_args()
    subprocess.run([sys.executable, ROOT / "examples" / "digits" / "data.py", ROOT / "build" / "digits"], check=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "evaluated.py").write_text(NETWORK)
        many, few = (_recipe(scratch, name, count, asked.shard) for name, count in (("many", asked.images), ("few", asked.images // FEWER)))
        seconds, peaks = {}, {}
        for workers in (1, 2):
            with local_farm(scratch / f"farm{workers}", workers, PYTHONPATH=str(scratch)) as (address, processes):
                _run(few, scratch / f"cache{workers}", "--scheduler", address, "--only", "onnx fp32")  # what is imported, is imported here
                if workers == 1:
                    _run(few, scratch / "cache1", "--scheduler", address, "--only", "accuracy")
                    peaks["few"] = max(map(_peak, processes))
                began = time.perf_counter()
                _run(many, scratch / f"cache{workers}", "--scheduler", address, "--only", "accuracy")
                seconds[workers] = time.perf_counter() - began
                peaks[workers] = max(map(_peak, processes))
            print(
                f"{workers} workers: {seconds[workers]:.1f} s, {asked.images / seconds[workers]:.0f} images a second,"
                f" {peaks[workers]:.0f} MiB at most in a worker"
            )
        _run(many, scratch / "alone", "--workers", "1", "--only", "accuracy")
        same = _figures(scratch / "alone") == _figures(scratch / "cache1") == _figures(scratch / "cache2")
    ratio, growth = seconds[1] / seconds[2], peaks[1] / peaks["few"]
    missed = [
        _missed("time of one / two", ratio, ratio >= FASTER or (os.cpu_count() or 1) < 2, FASTER),
        _missed("peak of many / few", growth, growth <= LARGER, LARGER),
    ]
    print("figures are those of one process" if same else "FIGURES ARE NOT THOSE OF ONE PROCESS")
    return int(any(missed) or not same)


def _missed(what: str, ratio: float, kept: bool, limit: float) -> bool:
    print(f"{what} = {ratio:.2f}, limit {limit}" + ("" if kept else ": MISSED"))
    return not kept


def _recipe(folder: Path, name: str, images: int, shard: int) -> Path:
    """A recipe of the digits with so many images: links to those that there are."""
    held_out = ROOT / "build" / "digits" / "held-out"
    for number in range(images):
        label = held_out / str(number % 10)
        known = sorted(label.iterdir())
        place = folder / name / label.name / f"{number:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(known[number // 10 % len(known)], place) if held_out.stat().st_dev == folder.stat().st_dev else shutil.copy(
            known[number // 10 % len(known)], place
        )
    recipe = folder / f"{name}.toml"
    recipe.write_text(
        '[model]\nname = "evaluated:make"\n[preprocessing]\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n'
        f'[data]\nevaluation = "{folder / name}"\n'
        f'[export]\ntargets = ["onnx"]\nprecisions = ["fp32"]\n[run]\nshard = {shard}\n'
    )
    return recipe


def _run(recipe: Path, cache: Path, *words: str) -> None:
    command = [sys.executable, "-m", "dtvit_deploy", "run", str(recipe), "-o", str(recipe.with_suffix(".out")), *words]
    done = subprocess.run(
        command,
        env=os.environ | {"DTVIT_DEPLOY_CACHE": str(cache), "PYTHONPATH": str(recipe.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)


def _figures(cache: Path) -> object:
    """The accuracies that a cache holds of the most images."""
    import msgspec

    found = [msgspec.msgpack.decode(file.read_bytes()) for file in cache.glob("stage-scored-*/figures.msgpack")]
    accuracies = [one["scored"] for one in found]
    return json.dumps(max(accuracies, key=lambda scored: scored[0]["samples"]), sort_keys=True)


def _peak(process: subprocess.Popen[bytes]) -> float:
    """MiB that a worker and the processes that it started hold at most."""
    words = subprocess.run(["ps", "-o", "pid=", "-g", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    lines = [line for pid in words for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return sum(int(line.split()[1]) for line in lines) / 1024


if __name__ == "__main__":
    sys.exit(main())
