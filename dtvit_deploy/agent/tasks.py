"""One task, done in a process of its own, whose standard output is its frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.agent.building import built, empty, sent
from dtvit_deploy.agent.log import how_ended, last_line
from dtvit_deploy.agent.sessions import assembled, blob_bytes, open_subject, profiled_subject
from dtvit_deploy.agent.store import Store
from dtvit_deploy.agent.worker import ARTIFACTS
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.devices.clocks.locking import held
from dtvit_deploy.devices.emulation import emulated
from dtvit_deploy.devices.state.everything import facts
from dtvit_deploy.devices.state.watcher import watching
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.feeds import read_feeds
from dtvit_deploy.formats.job.frames import Kind, frame_bytes
from dtvit_deploy.formats.job.job import Answers, Build, Digest, Job, Latency, Layers, MeasurePeaks, ProfileLayers, State, Task, decode_job
from dtvit_deploy.harness.energies import noise_energies
from dtvit_deploy.harness.latency import MeasureOptions, sample
from dtvit_deploy.harness.latency.starts import Starts, Taken
from dtvit_deploy.harness.state.blocks import take_blocks
from dtvit_deploy.harness.state.carried import state_arrays
from dtvit_deploy.process.child import child_command
from dtvit_deploy.process.memory import ran_out
from dtvit_deploy.runtimes.base import DeviceTimed, SessionOptions
from dtvit_deploy.runtimes.carried_layers import layer_arrays
from dtvit_deploy.runtimes.cold import Told, required, starts_in, take, told
from dtvit_deploy.runtimes.peaks import measured

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs
    from dtvit_deploy.runtimes.base import Session

_COLD = "from dtvit_deploy.agent.tasks import cold; cold(*sys.argv[1:])"
_COLD_SECONDS = 600
_STEP = 0.02
"""Share of a measurement, from one report of its progress to the next."""
Put = Callable[..., None]


def main(root: str, name: str, index: str) -> None:
    """Do a task; what it says besides goes to the log."""
    out = os.dup(1)
    os.dup2(2, 1)  # a vendor's library may print there
    with os.fdopen(out, "wb") as stream:

        def put(kind: Kind, **what: Any) -> None:
            stream.write(frame_bytes(kind, task=int(index), **what))
            stream.flush()

        store = Store(Path(root), private=False)
        try:
            doing = _Doing(store, name, put)
            conditions = doing.do(doing.job.tasks[int(index)])
            put("done", body={"conditions": conditions, "state": facts(), **doing.told})
        except Exception as error:
            store.doubt()
            put("failed", body=_told(error))
    os._exit(0)  # what a library does at its own end is no fault of the artefact's


def cold(root: str, name: str, subject: str, threads: str, warm: str) -> None:
    """What the own process of starts does: prints `Told` as JSON."""

    def taking() -> Taken:
        doing = _Doing(Store(Path(root), private=False), name, lambda kind, **what: None)
        artifact, runtime = doing.artifact(int(subject)), doing.job.subjects[int(subject)].runtime

        def load(cache: str) -> Session:
            return open_subject(artifact, runtime, SessionOptions(threads=int(threads), cache=cache))

        return take(runtime, artifact.manifest, artifact.path, load, warm=warm == "True")

    sys.stdout.write(msgspec.json.encode(told(taking)).decode() + "\n")
    sys.stdout.flush()
    os._exit(0)


class _Doing:
    """A job whose tasks are done here."""

    def __init__(self, store: Store, name: str, put: Put) -> None:
        self.store, self.put = store, put
        self.folder = store.jobs / name
        self.job: Job = decode_job((self.folder / "job.json").read_bytes())
        self.told: dict[str, Any] = {}  # at the end of a task, beside its conditions

    def do(self, task: Task) -> dict[str, str]:
        """Do it, and return the conditions of its session."""
        if isinstance(task, Answers):
            return self.answers(task)
        if isinstance(task, Layers):
            return self.layers(task)
        if isinstance(task, Latency):
            return self.latency(task)
        if isinstance(task, ProfileLayers):
            return self.profile_layers(task)
        if isinstance(task, MeasurePeaks):
            return self.measure_peaks(task)
        if isinstance(task, Build):
            return self.build(task)
        assert isinstance(task, State)
        return {}

    def artifact(self, subject: int) -> Artifact:
        """One of the job's artefacts, put together."""
        return assembled(self.store, self.job.subjects[subject], self.folder / ARTIFACTS / str(subject))

    def answers(self, task: Answers) -> dict[str, str]:
        """Send the outputs for each feed."""
        artifact = self.artifact(task.subject)
        names = [spec.name for spec in artifact.manifest.signature.outputs]
        with open_subject(artifact, self.job.subjects[task.subject].runtime, SessionOptions(threads=task.threads)) as session:
            for index, feed in enumerate(self.feeds(task.feeds)):
                session.signature.check(feed)
                found = session.run(feed)
                self.put("part", index=index, arrays={name: found[name] for name in names})
            return session.conditions

    def layers(self, task: Layers) -> dict[str, str]:
        """Send the energies of inner tensors' differences for each feed; NaN for what cannot be compared here."""
        import numpy as np

        artifact = self.artifact(task.subject)
        options = SessionOptions(threads=task.threads, taps=task.taps)
        suffix = blob_bytes(self.store, task.suffix)
        with open_subject(artifact, self.job.subjects[task.subject].runtime, options, suffix) as session:
            for index, (feed, reference) in enumerate(zip(self.feeds(task.feeds), self.feeds(task.reference), strict=True)):
                session.signature.check(feed)
                found = session.run(feed)
                answer = {name: found[name] for name in task.taps if name in found} | {node: found[output] for node, output in task.outputs}
                noises = noise_energies(answer, reference)
                values = np.array([noises.get(name, np.nan) for name in task.tensors], np.float64)
                self.put("part", index=index, arrays={"noise": values})
            return session.conditions

    def latency(self, task: Latency) -> dict[str, str]:
        """Send each subject's samples, and its starts; then the state that the device was in meanwhile.

        Raises:
            InputError: the processor is emulated, which says nothing of how long anything takes.
            MissingError: clocks are to be locked, and cannot be, or did not stay so.
        """
        _require_no_emulator()
        import numpy as np

        options = msgspec.convert(_whole(task.options), MeasureOptions)
        with ExitStack() as stack:
            clocks_are = stack.enter_context(held(task.lock_clocks))
            starts = [self.starts(subject, task.threads) for subject in task.subjects]
            runs: dict[str, Callable[[], object]] = {}
            opened = []
            for subject, digest in zip(task.subjects, task.feeds, strict=True):
                feed = next(self.feeds((digest,)))
                session = stack.enter_context(
                    open_subject(self.artifact(subject), self.job.subjects[subject].runtime, SessionOptions(threads=task.threads))
                )
                session.signature.check(feed)
                runs[str(len(runs))] = partial(session.run, feed)
                opened.append(session)
            clocks = {str(index): partial(_device_ms, one) for index, one in enumerate(opened) if isinstance(one, DeviceTimed)}
            watch = stack.enter_context(watching(self.folder))
            taken = sample(runs, options, progress=_Steps(self.put), devices=clocks, begins=watch.begins)
            watch.ends()
            rails = watch.rails and options.energy_seconds
            blocks = take_blocks(tuple(runs.values()), options.energy_seconds, since=watch.origin) if rails else ()
            watched = watch.finished()
            told = {"clocks": clocks_are} if clocks_are else {}
            said = [session.conditions | told for session in opened]
        for index, (one, start, conditions) in enumerate(zip(taken.values(), starts, said, strict=True)):
            series = {"samples_ms": np.array(one.samples_ms, np.float64), "stamps_s": np.array(one.stamps_s, np.float64)}
            series |= {"device_ms": np.array(one.device_ms, np.float64)} if one.device_ms else {}
            about = {"warmup": msgspec.to_builtins(one.warmup), "tick_ms": one.tick_ms, "conditions": conditions}
            self.put("part", index=index, arrays=series, body={**about, "starts": msgspec.to_builtins(start)})
        arrays, body = state_arrays(watched, blocks)
        self.put("part", index=len(runs), arrays=arrays, body=body)
        return {}

    def profile_layers(self, task: ProfileLayers) -> dict[str, str]:
        """Send what the runtime tells of its layers; an emulated processor is refused, as of a latency."""
        _require_no_emulator()
        feed = next(self.feeds(task.feeds))
        told = profiled_subject(self.artifact(task.subject), self.job.subjects[task.subject].runtime, feed, task.threads)
        self.put("part", arrays=layer_arrays(told))
        return {}

    def measure_peaks(self, task: MeasurePeaks) -> dict[str, str]:
        """Send what the device can do; an emulated processor is refused, as of a latency."""
        _require_no_emulator()
        self.put("part", body={"peaks": msgspec.to_builtins(measured(task.threads, _Steps(self.put)))})
        return {}

    def build(self, task: Build) -> dict[str, str]:
        """Build an engine and send it."""
        import numpy as np

        job, began, parts = self.artifact(task.subject), time.monotonic(), count()

        def said(line: str) -> None:
            told = line or f"{time.monotonic() - began:.0f} s so far"
            self.put("progress", body={"fraction": 0.0, "said": told})

        with empty(self.folder / ARTIFACTS / "made") as out:
            engine = built(job, out, said)
            took = time.monotonic() - began
            self.told["made"] = msgspec.to_builtins(
                sent(engine, task.most, lambda piece: self.put("part", index=next(parts), arrays={"piece": np.frombuffer(piece, np.uint8)}))
            )
        return {"built": f"in {took:.1f} s", "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def starts(self, subject: int, threads: int) -> Starts:
        """Its starts, in processes of their own.

        Raises:
            InputError: it does not load or run there.
        """
        return starts_in(self.job.subjects[subject].runtime, partial(self.started, subject, threads))

    def started(self, subject: int, threads: int, warm: bool) -> Taken:
        """What one of those processes finds.

        Raises:
            InputError: it does not load or run there.
        """
        name = self.artifact(subject).name
        command = child_command(_COLD, str(self.store.root), self.folder.name, str(subject), str(threads), str(warm))
        for _ in range(2):
            try:
                done = subprocess.run(command, capture_output=True, timeout=_COLD_SECONDS, check=False, stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired as error:
                raise InputError(f"{name} did not load and run once within {_COLD_SECONDS} s") from error
            if done.returncode != -signal.SIGKILL:  # which somebody did, most often, and tells nothing of the artefact
                break
        if done.returncode:
            words = last_line(done.stderr.decode(errors="replace"))
            raise InputError(
                f"{name} could not be loaded and run alone: the process {how_ended(done.returncode)}", remedy=f"it said: {words}"
            )
        said: Told = msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Told)
        return required(said)

    def feeds(self, digests: tuple[Digest, ...]) -> Iterator[Outputs]:
        """What several blobs hold, one feed in memory at a time."""
        for digest in digests:
            yield from read_feeds(self.store.blob(digest))


class _Steps:
    """Tells the progress of a measurement, not at each of its thousands of rounds."""

    def __init__(self, put: Put) -> None:
        self._put, self._told = put, 0.0

    def __call__(self, fraction: float) -> None:
        if fraction >= self._told + _STEP:
            self._told = fraction
            self._put("progress", body={"fraction": min(1.0, fraction)})


def _require_no_emulator() -> None:
    if found := emulated():
        raise InputError(f"no latency is taken on an emulated processor ({found})", remedy="compare answers there, and measure on a device")


def _told(error: Exception) -> dict[str, object]:
    if isinstance(error, DeployError):
        return {"message": str(error), "remedy": error.remedy, "exit_code": error.exit_code}
    traceback.print_exception(error)
    if ran_out(error):
        return {"message": "the device's memory does not suffice", "remedy": "end other programs there"}
    return {"message": f"a defect of the agent: {type(error).__name__}: {error}", "remedy": "report it, with the job's log"}


def _whole(options: Mapping[str, float]) -> dict[str, float]:
    """Numbers of samples as whole ones."""
    return {name: int(value) if name.endswith("samples") else value for name, value in options.items()}


def _device_ms(session: DeviceTimed) -> float:
    return session.device_ms
