"""Peak memory of a process, as the probe reads it."""

from __future__ import annotations

import subprocess
import sys

from dtvit_deploy.runtimes.probe import peak_memory_mib


def test_peak_memory_remembers_what_was_freed() -> None:
    before = peak_memory_mib()
    assert before is not None
    block = bytearray(int(before + 64) << 20)  # more than ever before
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    del block
    after = peak_memory_mib()
    assert after is not None
    assert after >= before + 50


def test_peak_memory_of_a_child_is_not_its_parents() -> None:
    block = bytearray(200 << 20)
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
    program = "from dtvit_deploy.runtimes.probe import peak_memory_mib; print(peak_memory_mib())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 150
