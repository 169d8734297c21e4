"""A runtime without a framework: any function of the feeds, made to err where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.runtimes.base import Availability, SessionOptions

if TYPE_CHECKING:
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs


class FakeClock:
    """A clock that stands still until it is told; ``now`` takes the place of ``time.perf_counter``."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def now(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._seconds += seconds


@dataclass(frozen=True, kw_only=True)
class FakeRuntime:
    """A runtime that answers with a function.

    Attributes:
        function: outputs and inner tensors by name; by default a linear map of all inputs, flattened and joined,
            whose weights follow from the artefact's SHA-256: another artefact gives other answers.
        inner: names of the inner tensors that the function gives, in order.
        noise: standard deviation of what is added to every floating output, another draw on every run.
        nan: whether the first element of every floating output is NaN.
        fails_at: index of the run, from 0, that raises RuntimeError as a vendor's library would.
        latency: seconds by index of the run, by which ``clock`` advances.
        device: seconds by index of the run, by the clock of the device; None for a runtime without one.
        missing: why the runtime is not installed; empty when it is.
        rung: nothing was proved by a fake, so the lowest unless a test needs another.
    """

    function: Callable[[Feeds], Outputs] | None = None
    inner: tuple[str, ...] = ()
    noise: float = 0.0
    nan: bool = False
    fails_at: int | None = None
    latency: Callable[[int], float] | None = None
    clock: FakeClock = field(default_factory=FakeClock)
    device: Callable[[int], float] | None = None
    missing: str = ""
    rung: Rung = Rung.BUILT
    name: str = "fake"

    def available(self, artifact: Artifact | None = None) -> Availability:
        return Availability(version=None if self.missing else "1", missing=self.missing)

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        return self.inner

    def load(self, artifact: Artifact, options: SessionOptions) -> FakeSession:
        """Open a session.

        Raises:
            InputError: a tap is no inner tensor.
            MissingError: it was built as missing.
        """
        if self.missing:
            raise MissingError(f"runtime {self.name} is not installed: {self.missing}")
        if unknown := [tap for tap in options.taps if tap not in self.inner]:
            raise InputError(f"no tensor is called {', '.join(unknown)}; there are {', '.join(self.inner) or 'none'}")
        return (FakeSession if self.device is None else FakeDeviceSession)(self, artifact, options)


class FakeSession:
    """One artefact, loaded by a :class:`FakeRuntime`."""

    def __init__(self, runtime: FakeRuntime, artifact: Artifact, options: SessionOptions) -> None:
        self._runtime, self._artifact, self._options = runtime, artifact, options
        self._function = runtime.function or _linear_map(artifact)
        self._runs = 0
        self._closed = False

    @property
    def signature(self) -> Signature:
        return self._artifact.manifest.signature

    @property
    def conditions(self) -> dict[str, str]:
        precision = str(self._artifact.manifest.precision)
        return {"runtime": f"{self._runtime.name} 1", "threads": str(self._options.threads), "precision": precision}

    def run(self, feeds: Feeds) -> Outputs:
        """Run once.

        Raises:
            RuntimeError: this is the run that fails, or the session was left.
        """
        import numpy as np

        if self._closed:
            raise RuntimeError("the session was left; it cannot run")
        index, self._runs = self._runs, self._runs + 1
        if self._runtime.latency is not None:
            self._runtime.clock.advance(self._runtime.latency(index))
        if index == self._runtime.fails_at:
            raise RuntimeError(f"run {index} fails, as the fake was told")
        made = self._function(feeds)
        names = [spec.name for spec in self.signature.outputs] + list(self._options.taps)
        outputs = {name: np.array(made[name]) for name in names}  # a copy, since it may be spoilt below
        noise = np.random.default_rng(index)
        for values in outputs.values():
            if np.issubdtype(values.dtype, np.floating):
                values += (self._runtime.noise * noise.standard_normal(values.shape)).astype(values.dtype)
                if self._runtime.nan:
                    values.flat[:1] = np.nan
        return outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True


class FakeDeviceSession(FakeSession):
    """One whose device has a clock of its own."""

    @property
    def device_ms(self) -> float:
        assert self._runtime.device is not None
        return self._runtime.device(self._runs - 1) * 1e3


def _linear_map(artifact: Artifact) -> Callable[[Feeds], Outputs]:
    import numpy as np

    signature = artifact.manifest.signature
    width = sum(int(np.prod(spec.shape)) for spec in signature.inputs)
    rng = np.random.default_rng(list(artifact.manifest.sha256.encode()))
    weights = {spec.name: rng.standard_normal((int(np.prod(spec.shape)), width)) / width**0.5 for spec in signature.outputs}

    def apply(feeds: Feeds) -> Outputs:
        flat = np.concatenate([np.ravel(feeds[spec.name]).astype(np.float64) for spec in signature.inputs])
        return {spec.name: (weights[spec.name] @ flat).reshape(spec.shape).astype(spec.dtype) for spec in signature.outputs}

    return apply
