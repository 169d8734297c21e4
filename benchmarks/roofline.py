"""What share of this machine's measured peaks DualToken-ViT-S (mix) reaches, in each precision.

    python benchmarks/roofline.py [--checkpoint FILE --calibration FOLDER] [--seconds 5]

ONNX FP32 and INT8, OpenVINO FP32, BF16 and INT8 (all products that gain in it), one thread, interleaved in one run with torch. Without a
checkpoint the weights are seeded and INT8 is calibrated on noise: neither says anything of accuracy, and latencies do not depend on it.
Exit code 1 when an artefact is told to be faster than the peaks allow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    source = ["-c", str(asked.checkpoint)] if asked.checkpoint else ["-m", "dualtoken-vit-s-mix"]
    observed = ["--data", str(asked.calibration)] if asked.calibration else ["--random-data", "--samples", "20"]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        targets = ["-t", "onnx", "-t", "openvino", "-p", "fp32", "-p", "bf16", "-p", "int8"]
        _call("calibrate", *source, *observed, "-o", str(out / "ranges.json"))
        _call("export", *source, *targets, "--ranges", str(out / "ranges.json"), "--no-search", "-o", str(out / "made"))
        told = _call("profile", str(out / "made"), "--roofline", "--seconds", str(asked.seconds), "--json")
    report = json.loads(told)
    print(f"{report['device']['processor']}, {report['device']['cores']} cores, one thread")
    subjects = [one for one in report["subjects"] if one["roof"] is not None]
    peaks = subjects[0]["roof"]["peaks"]
    for one in peaks["products"]:
        print(
            f"peak {one['precision']}: {one['gflops']:,.0f} ({one['median_gflops']:,.0f}) 10⁹ operations/s, {one['runtime']}, {one['size']}"
        )
    print(f"peak copy: {peaks['copy_gb_s']:.1f} GB/s read and written, {peaks['copy_mib']} MiB")
    over = False
    for one in subjects:
        roof, p50 = one["roof"], one["latency"]["p50"]
        least = max(roof["arithmetic_ms"], roof["memory_ms"])
        over |= least > p50
        macs = ", ".join(f"{count / 1e6:,.0f} {precision}" for precision, count in roof["work"]["macs"].items())
        print(f"{one['name']}: {macs} 10⁶ MAC; least {least:.2f} ms, p50 {p50:.2f} ms {one['latency']['status']}, {least / p50:.0%}")
    return int(over)


def _call(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dtvit_deploy", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
