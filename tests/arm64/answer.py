"""Runs on the emulated core, with NumPy and ONNX Runtime alone: loads graphs, answers feeds, and says what came of each.

    python3.11 answer.py JOBS.json RESULTS.json

JOBS is a list of ``{"graph": PATH, "feeds": PATH.npz, "answers": PATH.npz, "config": {KEY: VALUE}, "level": NAME}``; feeds are named
``INPUT`` or ``INDEX:INPUT``, answers ``OUTPUT`` or ``INDEX:OUTPUT`` accordingly. RESULTS is a list of ``{"error": TEXT, "seconds": NUMBER}``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def answer(job: dict[str, object]) -> dict[str, object]:
    started = time.monotonic()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for key, value in job.get("config", {}).items():
        options.add_session_config_entry(key, value)
    if "level" in job:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, job["level"])
    try:
        session = onnxruntime.InferenceSession(job["graph"], options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers = {}
        with np.load(job["feeds"]) as given:
            samples: dict[str, dict[str, np.ndarray]] = {}
            for key in given.files:
                sample, _, name = key.rpartition(":")
                samples.setdefault(sample, {})[name] = given[key]
        for sample, feeds in samples.items():
            for name, value in zip(names, session.run(names, feeds), strict=True):
                if value is None:
                    raise RuntimeError(f"the output {name} is not set")
                answers[f"{sample}:{name}" if sample else name] = value
        np.savez(job["answers"], **answers)
    except Exception as error:  # ONNX Runtime's classes are private; what it says is what the caller wants to know
        return {"error": str(error).strip() or type(error).__name__, "seconds": time.monotonic() - started}
    return {"error": "", "seconds": time.monotonic() - started}


if __name__ == "__main__":
    jobs = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([answer(job) for job in jobs]))
