"""How long artefacts take, interleaved in one run, and which units their runtimes mean to run them on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import msgspec

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.failure import Failure
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.devices.state.watcher import watching
from dtvit_deploy.errors import DeployError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, interleaved, measure, stated
from dtvit_deploy.harness.latency.starts import Start, Starts, Taken, starts_of
from dtvit_deploy.harness.layer_times import LayerTimes
from dtvit_deploy.harness.roofline import Roof
from dtvit_deploy.harness.state.blocks import Block, take_blocks
from dtvit_deploy.pipeline.measure import Bench, check_feeds
from dtvit_deploy.runtimes.base import DeviceTimed, Elsewhere, OnDevice, Planned, Session
from dtvit_deploy.runtimes.compute_plan import ComputePlan
from dtvit_deploy.runtimes.failed import LOAD, of_error
from dtvit_deploy.runtimes.pairing import Pairing
from dtvit_deploy.runtimes.probe import probe

_Key = tuple[str, str]
"""Of a pairing."""


class Timed(NamedTuple):
    """What profiling found of one subject.

    Attributes:
        plan: where its runtime tells one.
        roof: the least time that this machine allows for it; None where nobody asked, or it is not known.
        layers: where its time goes; None where nobody asked, or its runtime does not tell.
        failure: why there is no latency, where it failed.
        notes: why it does not, where it should.
    """

    latency: Measurement | None = None
    plan: ComputePlan | None = None
    roof: Roof | None = None
    layers: LayerTimes | None = None
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


def latency(bench: Bench, options: MeasureOptions | None = None) -> list[Timed]:
    """Latency of all but those that are emulated, interleaved in one run; load times, first inference and memory from processes of their
    own. Nothing for what is emulated; and for the reference too where nothing is left to show beside it. What a device has measured is as
    it is told, of a run of the device's own. An artefact that fails costs the others nothing: its failure is told in place of its latency.

    Raises:
        InputError: all of them fail; as the first did.
    """
    timed = [one for one in bench.pairings if not one.emulated and not isinstance(one.runtime, Elsewhere)]
    here = [bench.reference, *timed] if timed else []
    found = iter(_latency(bench, here, options) if here else ())
    return [_measured_elsewhere(one) or (next(found) if one in here else Timed()) for one in bench.everything]


def _measured_elsewhere(pairing: Pairing) -> Timed | None:
    return Timed(pairing.runtime.measurement) if isinstance(pairing.runtime, Elsewhere) else None


def _latency(bench: Bench, subjects: Sequence[Pairing], options: MeasureOptions | None) -> list[Timed]:
    feed = next(iter(bench.material.feeds()))
    options = options or MeasureOptions()
    starts: dict[_Key, Starts | None] = {}
    failures: dict[_Key, DeployError] = {}
    opened: dict[_Key, Session] = {}
    for pairing in bench.progress.track(subjects, "starts", len(subjects)):
        with _kept(failures, pairing, bench.reference):
            _try(bench, pairing)
            starts[pairing.key] = _starts(bench, pairing)
    with ExitStack() as stack:
        for pairing in (one for one in subjects if one.key in starts):
            with _kept(failures, pairing, bench.reference):
                session = stack.enter_context(bench.open(pairing))
                check_feeds(session, feed)
                opened[pairing.key] = session
        if len(failures) == len(subjects) - 1:  # nothing is left beside the reference
            raise next(iter(failures.values()))
        sessions = list(opened.values())
        runs: Mapping[str, Callable[[], object]] = {str(index): partial(session.run, feed) for index, session in enumerate(sessions)}
        bench.progress.step(f"measuring latency of {len(sessions)}, interleaved")
        devices = {str(index): partial(_device_ms, session) for index, session in enumerate(sessions) if isinstance(session, DeviceTimed)}
        remote = frozenset(str(index) for index, session in enumerate(sessions) if isinstance(session, OnDevice))
        here = [str(index) for index in range(len(sessions)) if str(index) not in remote]
        watch = stack.enter_context(watching())
        measured = measure(runs, options, devices=devices, remote=remote, begins=watch.begins)
        watch.ends()
        blocks: tuple[Block, ...] = ()
        if watch.rails and here and options.energy_seconds:
            bench.progress.step("measuring energy, each by itself")
            blocks = take_blocks([runs[name] for name in here], options.energy_seconds, since=watch.origin)
        watched = watch.finished()
        measured |= {name: stated(measured[name], watched, blocks, place) for place, name in enumerate(here)}
        found = {}
        for index, (key, session) in enumerate(opened.items()):
            one = msgspec.structs.replace(
                measured[str(index)],
                conditions={**session.conditions, "measured": interleaved(str(index), measured), "batch": "1"},
                starts=_told_by(session) if isinstance(session, OnDevice) else starts[key],
            )
            plan, why = _planned(session, bench.program.nodes)
            found[key] = Timed(one, plan, notes=why)
    for key, error in failures.items():
        found[key] = Timed(failure=of_error(error, LOAD))
        bench.said.setdefault(key, {"runtime": key[1], "threads": str(bench.threads)})
    return [found[pairing.key] for pairing in subjects]


@contextlib.contextmanager
def _kept(failures: dict[_Key, DeployError], pairing: Pairing, reference: Pairing) -> Iterator[None]:
    """Keep the failure of an artefact, which is a result; without the reference there is none."""
    try:
        yield
    except DeployError as error:
        if pairing is reference:
            raise
        failures[pairing.key] = error


def _told_by(session: OnDevice) -> Starts:
    """The one start that a device tells of, its memory not."""
    return starts_of(Taken(first=(Start(load_ms=session.load_ms, first_ms=session.first_ms),)))


def _try(bench: Bench, pairing: Pairing) -> None:
    """Open what is not trusted once here, where it is tried within limits that the processes of starts have not.

    What has changed since it was looked at they refuse themselves, before any of it is read.
    """
    artifact = pairing.artifact
    if artifact.trusted or pairing.runtime.rung is Rung.ON_DEVICE or sha256_of(artifact.path) != artifact.manifest.sha256:
        return
    with pairing.open(bench.options()):
        pass


def _starts(bench: Bench, pairing: Pairing) -> Starts | None:
    """Nothing for a device, which tells its own: a process here would time how its app is built."""
    return None if pairing.runtime.rung is Rung.ON_DEVICE else probe(pairing, bench.options())


def _device_ms(session: DeviceTimed) -> float:
    return session.device_ms


def _planned(session: Session, nodes: NodeMap) -> tuple[ComputePlan | None, tuple[str, ...]]:
    """The plan with the torch modules of its operations; a note where there should be one and it is not told."""
    if not isinstance(session, Planned):
        return None, ()
    try:
        plan = session.compute_plan()
    except DeployError as error:
        return None, (f"no compute plan: {error}",)
    named = (msgspec.structs.replace(one, module=nodes.module_of(one.node) if nodes.get(one.node) else "") for one in plan.operations)
    return msgspec.structs.replace(plan, operations=tuple(named)), ()
