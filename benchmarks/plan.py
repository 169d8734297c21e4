"""Several recipes as one plan against the same recipes one after the other in one process each: wall time, and what a second run takes.

    python benchmarks/plan.py [RECIPE …]

The digits' four recipes by default; their images are made first. Each side begins with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIGITS = [ROOT / "examples" / "digits" / f"{name}.toml" for name in ("recipe", "int8", "tensorrt", "coreml")]
GATES = (0, 1)
"""Exit codes of a run that came to a verdict."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path)
    asked = parser.parse_args()
    if not asked.recipes:
        subprocess.run([sys.executable, ROOT / "examples" / "digits" / "data.py", ROOT / "build" / "digits"], check=True)
    recipes = asked.recipes or DIGITS
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        alone = sum(_run([recipe], scratch / "alone", scratch / "out" / recipe.stem, "--workers", "1") for recipe in recipes)
        plan = _run(recipes, scratch / "plan", scratch / "one")
        again = _run(recipes, scratch / "plan", scratch / "one")
    print(f"{len(recipes)} recipes, {os.cpu_count()} cores")
    print(f"one after the other {alone:.0f} s · as one plan {plan:.0f} s, {plan / alone:.2f} times · again {again:.1f} s")
    return 0


def _run(recipes: list[Path], cache: Path, out: Path, *more: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "dtvit_deploy", "run", *map(str, recipes), "-o", str(out), *more]
    done = subprocess.run(command, env=os.environ | {"DTVIT_DEPLOY_CACHE": str(cache)}, capture_output=True, text=True, check=False)
    if done.returncode not in GATES:
        sys.exit(done.stderr)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
