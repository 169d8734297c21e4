"""What lies where in a bundle: a folder that does a job where nobody can be reached."""

from __future__ import annotations

AGENT, JOB, RUN, README, RESULTS = "agent.zip", "job.json", "run.sh", "README.txt", "results.dtvit"
"""Its files; `RESULTS` is what it writes, and what is taken back."""
BLOBS = "blobs"
"""Folder of what the job needs, by digest."""
WHOLE = "whole"
"""The last of an archive's files: where it is, the others are."""
