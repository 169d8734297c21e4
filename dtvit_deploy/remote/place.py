"""A device within a command: reached once, asked once for what everything is judged by, and again for the layers of what is wrong."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.devices.examine import python_of, reached
from dtvit_deploy.devices.needs import require
from dtvit_deploy.devices.probe import Facts, probe
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.harness.roofline import Peaks
from dtvit_deploy.remote.asking import Asked, Asking, folder_for_blobs
from dtvit_deploy.remote.built import brought
from dtvit_deploy.remote.commands import Ended
from dtvit_deploy.remote.device import Device
from dtvit_deploy.remote.following import SENDING, asking_user
from dtvit_deploy.remote.limits import require_askable, require_room_here
from dtvit_deploy.remote.needed import SPARE, needs_of, to_run
from dtvit_deploy.remote.profiled import layers_told, peaks_told
from dtvit_deploy.remote.recorded import layer_sums
from dtvit_deploy.remote.request import ask_for, times_of, timings
from dtvit_deploy.remote.there import There

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.devices import inventory
    from dtvit_deploy.formats.job.results import Results
    from dtvit_deploy.harness.energies import Sums
    from dtvit_deploy.runtimes.layer_times import Told

Say = Callable[[str], None]
OFTEN = 10.0
"""Seconds after which one hears again how far a task is."""
_RUNTIME = 200 << 20
"""Bytes of memory of a runtime without a network; of the weights there are two copies while one is loaded."""


class Place:
    """One device, while a command needs it.

    Args:
        device: of the inventory, or by its address.
        say: told what a person should know.
        wait: for the device, where somebody else has it.
    """

    def __init__(self, device: inventory.Device, say: Say, *, wait: bool = True) -> None:
        self.name, self._inventory, self._wait = device.name, device, wait
        self._say = say
        self._told = ("", 0.0)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            transport = stack.enter_context(reached(self._inventory))
            python = python_of(self._inventory)
            self.facts: Facts = probe(transport, python)
            self._device = Device(transport, python=python)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """Under which it is reached."""
        return str(self._inventory.address)

    @property
    def emulator(self) -> str:
        """What emulates its processor; empty where that is a real one, as far as it can be seen."""
        return self.facts.emulator

    def require(self, subjects: Sequence[tuple[Artifact, str]], *, fed: int, answered: int, timed: bool, threads: int) -> None:
        """Refuse, before any work is done, what cannot be done there, or not now.

        Args:
            subjects: artefacts, each in a runtime.
            fed: bytes that they are fed.
            answered: bytes of all their answers.
            timed: whether their latency is wanted.
            threads: of each session.

        Raises:
            InputError: it is more than a device takes at once, or under names that it does not take.
            MissingError: the device lacks what is needed, or somebody has it and nobody waits.
        """
        timed = timed and not self.emulator  # which no time is taken on
        require_askable([artifact for artifact, _ in subjects], timed=timed, threads=threads)
        sizes = [artifact.bytes for artifact in {artifact.path: artifact for artifact, _ in subjects}.values()]
        loaded = sum(sizes) if timed else max(sizes, default=0)  # a latency has all of them loaded at once
        needs = to_run([runtime for _, runtime in subjects])
        needs = needs._replace(disk=SPARE + answered, memory=2 * loaded + _RUNTIME, sent=sum(sizes) + fed)
        require(self.name, self.facts, needs)
        holder = self.facts.holder
        # Who asks again for what was interrupted may hold the device itself, and picks that up.
        if holder and not self._wait and not holder.startswith(f"{asking_user()} since"):
            raise MissingError(
                f"{self.name}: somebody has the device, who says to be {holder}", remedy="wait for them (without --no-wait), or ask them"
            )

    @property
    def modules(self) -> Collection[str]:
        """What its Python has of what runtimes need."""
        return self.facts.packages

    def ask(
        self,
        subjects: Sequence[tuple[Artifact, str]],
        feeds: Iterable[Feeds],
        *,
        threads: int,
        timed: MeasureOptions | None = None,
        vouched: Collection[str] = (),
        lock_clocks: bool = False,
    ) -> tuple[There, ...]:
        """Ask for the answers of artefacts, each in a runtime, to all feeds; and, interleaved on the first feed, for how long they take.

        Args:
            vouched: digests of the engines that may be executed there.
            lock_clocks: whether the device's clocks are held still while they are timed, for root alone.

        Raises:
            InputError: an artefact cannot be read, or the device's answers are none.
            MissingError: the device lacks what is needed, or somebody has it and nobody waits.
            LostError: it cannot be reached any more; what was begun there goes on.
        """
        timed = None if self.emulator else timed
        with folder_for_blobs() as folder:
            asking = Asking(folder, token=self._token(timed=timed is not None))
            ask_for(asking, subjects, feeds, threads=threads, timed=timed, vouched=vouched, lock_clocks=lock_clocks)
            asked = asking.asked
            results = self._performed(asked, keep=timed is None)
        times = {subject: one for task in timings(asked) for subject, one in times_of(asked, results, task, self.name).items()}
        return tuple(
            There(asked, results, subject, f"on {self.name}", place=self, measurement=times.get(subject))
            for subject in range(len(asked.job.subjects))
        )

    def sums(
        self,
        artifact: Artifact,
        runtime: str,
        taps: Sequence[str],
        feeds: Iterable[Feeds],
        references: Sequence[tuple[Outputs, Outputs, Outputs]],
        nodes: NodeMap,
        threads: int,
    ) -> tuple[Sums, int]:
        """Compare inner tensors there; see `dtvit_deploy.remote.recorded.layer_sums`."""
        with folder_for_blobs() as folder:
            asking = Asking(folder, token=self._token(timed=False))
            fed, subject = asking.feeds(feeds), asking.subject(artifact, runtime)
            require_room_here(sum(array.nbytes for each in references for array in each[0].values()), "the reference's inner tensors")
            task = asking.layers(subject, fed, (fp32 for fp32, _, _ in references), taps=taps, nodes=nodes, threads=threads)
            asked = asking.asked
            results = self._performed(asked)
        return layer_sums(asked, results, task, references)

    def layers_told(self, artifact: Artifact, runtime: str, feed: Feeds, threads: int) -> Told:
        """Have the layers timed there; see `dtvit_deploy.remote.profiled.layers_told`."""
        with folder_for_blobs() as folder:
            asking = Asking(folder, token=self._token(timed=True))
            task = asking.profile_layers(asking.subject(artifact, runtime), asking.feeds([feed]), threads=threads)
            asked = asking.asked
            return layers_told(asked, self._performed(asked, keep=False), task)

    def peaks(self, threads: int) -> Peaks:
        """Have what it can do measured; see `dtvit_deploy.remote.profiled.peaks_told`."""
        with folder_for_blobs() as folder:
            asking = Asking(folder, token=self._token(timed=True))
            task = asking.measure_peaks(threads=threads)
            asked = asking.asked
            return peaks_told(asked, self._performed(asked, keep=False), task)

    @property
    def kept_as(self) -> str:
        """Which device it is, and what its figures depend on: by that its peaks are kept."""
        return f"{self.address} {self.identity}"

    def build(self, job: Artifact, path: Path) -> Artifact:
        """Have the engine of a job built there, and bring it back; one that was built there already is brought alone.

        Args:
            job: that devices build for themselves.
            path: for the engine's folder, which is not there yet.

        Raises:
            InputError: the device's TensorRT refuses the graph, the engine answers wrongly, or what comes back is another.
            MissingError: the device lacks what is needed, or somebody has it and nobody waits.
            LostError: it cannot be reached any more; what was begun there goes on.
        """
        with folder_for_blobs() as folder:
            asking = Asking(folder, token=self._token(timed=False))
            task = asking.build(asking.subject(job, "tensorrt"))
            asked = asking.asked
            results = self._performed(asked)
            try:
                return brought(asked, results, task, path, name=self.name, address=self.address)
            except InputError:
                self._device.forget(asked.job)  # else it would answer the same to whoever asks again
                raise

    @property
    def identity(self) -> str:
        """What an engine depends on of this device: which it is, its GPU, driver and libraries, and its power mode."""
        return self._token(timed=False)

    def _token(self, *, timed: bool) -> str:
        """What tells a request from an equal one before the device was changed; of one that measures time also from one of another hour.

        Within that hour a measurement whose end nobody heard is taken; a later command has it made anew.
        """
        about = [self.facts.lasting, *([time.strftime("%Y-%m-%d %H", time.gmtime())] if timed else [])]
        return hashlib.sha256(msgspec.json.encode(about, order="sorted")).hexdigest()

    def _performed(self, asked: Asked, *, keep: bool = True) -> Results:
        """Have a job done; times are kept there no longer than until they are here, so that who asks again has them taken again."""
        require(self.name, self.facts, needs_of(asked.job))
        return self._device.perform(
            asked.job, asked.blobs, say=self._say, advanced=self._advanced, wait=self._wait, keep=keep, to_the_end=False
        )

    def _advanced(self, task: str, part: float) -> None:
        """Tell each task when it begins, and a long one now and then; that something is sent, is told with how much it is."""
        named, at = self._told
        now = time.monotonic()
        if task == SENDING and not part:
            self._told = (task, now)
        elif task != named or (0 < part < 1 and now - at > OFTEN):
            self._told = (task, now)
            self._say(f"{self.name}: {task}" + (f", {part:.0%}" if 0 < part < 1 else ""))


def cleaned(device: inventory.Device) -> int:
    """Remove what is kept on a device, the agent too; bytes that were freed.

    Raises:
        InputError: a job goes on there.
        MissingError: it cannot be reached.
    """
    with reached(device) as transport:
        return Device(transport, python=python_of(device)).clean()


def stopped(device: inventory.Device) -> tuple[Ended, ...]:
    """End this user's jobs on a device; those that went on there.

    Raises:
        InputError: the device's answers are none.
        MissingError: it cannot be reached.
    """
    with reached(device) as transport:
        return Device(transport, python=python_of(device)).end()
