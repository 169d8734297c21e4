"""A stage that has a device build: the engines of the jobs that were made for it."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.artifacts.contents import share
from dtvit_deploy.pipeline.built_there import JOB, engine_from
from dtvit_deploy.pipeline.stages import copy_artifact
from dtvit_deploy.plan.on_device import device_of, lost_is_missing
from dtvit_deploy.plan.work import Task, artifacts_in
from dtvit_deploy.remote.place import Place


def built_there(task: Task, folder: Path) -> None:
    """Engines that a device has built, each with the device in its name."""
    (made,) = task.needs.values()
    device = device_of(task)
    jobs = [one for one in map(load_artifact, artifacts_in(made)) if one.manifest.format == JOB]
    task.progress.step(f"{device.name}: asking what it is")
    with lost_is_missing(), Place(device, task.progress.step, wait=task.wait) as place:
        for job in jobs:
            engine = engine_from(place, job, task.cache)
            copy_artifact(engine, folder, f"{engine.manifest.stem}.{task.asked['label']}.{engine.manifest.format}", share)
