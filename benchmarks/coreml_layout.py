"""Transposes and reshapes of Core ML packages in the default order and in the Neural Engine's, and that both answer alike.

The issue's limit: at most 40 % of the default's. The digits are held to it by the tests too; S (mix) takes a minute, and is here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dtvit_deploy.artifacts.artifact import load_artifact

SHARE, FARTHEST = 0.4, 1e-4
MODEL = "dualtoken-vit-s-mix"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command("export", "-m", MODEL, "-t", "coreml", "-p", "fp32", "--layout", "ane", "-o", scratch)
        path = Path(scratch) / f"{MODEL}.fp32.ane.mlpackage"
        link = load_artifact(path).manifest.parent("layout")
        if link is None:
            sys.exit("the layout was rolled back")
        before, after = link.options["moves_before"], link.options["moves_after"]
        report = json.loads(command("verify", path, "--samples", 4, "--json"))
    farthest = max(one["max_abs"] for one in report["subjects"][1]["parity"])
    print(f"{MODEL}: transposes and reshapes {before} → {after} ({after / before:.0%}, limit {SHARE:.0%}); max |Δ| {farthest:.2g}")
    if after > SHARE * before or farthest > FARTHEST:
        sys.exit("a limit was missed")


def command(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "dtvit_deploy", *map(str, words)], check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
