"""Runs on the emulated core, with NumPy and ONNX Runtime alone: loads graphs, answers feeds, and says what came of each.

    python3.11 answer.py JOBS.json RESULTS.json

JOBS is a list of ``{"graph": PATH, "feeds": PATH.npz, "answers": PATH.npz, "config": {KEY: VALUE}}``. RESULTS is a list of
``{"error": TEXT, "seconds": NUMBER}``, the error empty where the answers were written, by the names of the outputs.
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
    try:
        session = onnxruntime.InferenceSession(job["graph"], options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        with np.load(job["feeds"]) as feeds:
            answers = dict(zip(names, session.run(names, dict(feeds)), strict=True))
        unset = [name for name, value in answers.items() if value is None]
        if unset:
            raise RuntimeError(f"the output {unset[0]} is not set")
        np.savez(job["answers"], **answers)
    except Exception as error:  # ONNX Runtime's classes are private; what it says is what the caller wants to know
        return {"error": str(error).strip() or type(error).__name__, "seconds": time.monotonic() - started}
    return {"error": "", "seconds": time.monotonic() - started}


if __name__ == "__main__":
    jobs = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([answer(job) for job in jobs]))
