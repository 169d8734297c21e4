"""What this machine can build, execute and prove for each target, and how to get what is missing.

Nothing heavy is imported: a package counts as installed when it can be found and its version is one this package asks for. A runtime
counts as usable only when a process of its own could import it, since no rung is claimed that was not reached.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

import msgspec

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.devices import machine
from dtvit_deploy.devices.packages import PACKAGES, Imports, Installed
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.formats.engine.header import CAPABILITIES
from dtvit_deploy.formats.engine.library import NAMES
from dtvit_deploy.process import telemetry


class Package(msgspec.Struct, frozen=True):
    """A package that some command needs; ``version`` says so when it is absent or not one of those asked for."""

    name: str
    version: str
    purpose: str


class TargetState(msgspec.Struct, frozen=True):
    """How far artefacts of a target can be proved here.

    Attributes:
        reach: the highest rung, in words.
        tools: what reaches it, with versions.
        missing: what would be needed for more, and how to get it; empty when nothing is.
    """

    target: str
    reach: str
    tools: str
    missing: str


class Examination(msgspec.Struct, frozen=True):
    """Everything that ``doctor`` found; ``telemetry`` says by vendor whether it reports home from here."""

    machine: dict[str, str]
    telemetry: dict[str, str]
    targets: tuple[TargetState, ...]
    packages: tuple[Package, ...]


class _Ladder(NamedTuple):
    """What the rungs of one target need on this machine: modules to build with, and the runtime that executes.

    Where there are compilers, one of them is needed to build, and with a GPU it executes too; the runtime then only emulates.
    """

    builds: tuple[str, ...]
    runtime: str
    extra: str
    compilers: tuple[str, ...] = ()


_ONNX = ("torch", "onnx", "onnxscript", "onnxsim", "safetensors", "onnxruntime")
"""onnxruntime is needed to build too: passes compare the graph before and after on real feeds."""
LADDERS = {
    Target.ONNX: _Ladder(_ONNX, "onnxruntime", "export"),
    Target.OPENVINO: _Ladder((*_ONNX, "openvino"), "openvino", "export,openvino"),
    Target.TRT: _Ladder(_ONNX, "onnxruntime", "export", compilers=("tensorrt_rtx", "tensorrt")),
    Target.COREML: _Ladder((*_ONNX, "numpy"), "coremltools", "export,coreml"),
}
"""A target that can be exported has a row here, and a test holds this table to it."""


def examine() -> Examination:
    """Look at the machine; takes less than a second."""
    found = {requirement.module: Installed.of(requirement) for requirement in PACKAGES}
    packages = tuple(Package(each.name, each.told, each.requirement.purpose) for each in found.values())
    imports = Imports()
    states = {Target.TRT: _compiled_target, Target.COREML: _apple_target}
    targets = tuple(states.get(target, _target)(target, ladder, found, imports) for target, ladder in LADDERS.items())
    return Examination(machine=machine.facts(), telemetry=telemetry.state(), targets=targets, packages=packages)


class _Part(NamedTuple):
    """The part of a target's state that its modules decide, the runtime's import included."""

    builds: bool
    runs: bool
    tools: list[str]
    missing: str


def _part(ladder: _Ladder, found: dict[str, Installed], imports: Imports) -> _Part:
    needed = [found[module] for module in dict.fromkeys([*ladder.builds, ladder.runtime])]
    missing = [each.problem for each in needed if each.wrong]
    runtime = found[ladder.runtime]
    refusal = "" if runtime.wrong else imports[ladder.runtime]
    if refusal:
        missing.append(_refused(runtime, refusal))
    # A runtime that only exists on paper builds nothing either, where it is a part of the build.
    builds = not any(found[module].wrong for module in ladder.builds) and not (refusal and ladder.runtime in ladder.builds)
    runs = not runtime.wrong and not refusal
    installed = [f"{each.name} {each.version}" for each in needed if not each.wrong and each is not runtime]
    tools = ([_imported(runtime)] if runs else []) + ([f"{', '.join(installed)} (installed; import not tried)"] if installed else [])
    return _Part(builds, runs, tools, f"{'; '.join(missing)}: pip install 'dtvit-deploy[{ladder.extra}]'" if missing else "")


def _target(target: Target, ladder: _Ladder, found: dict[str, Installed], imports: Imports) -> TargetState:
    part = _part(ladder, found, imports)
    return TargetState(str(target), _reach(part.builds, part.runs), "; ".join(part.tools) or "–", part.missing)


def _reach(builds: bool, executes: bool) -> str:
    if executes:
        return str(Rung.EXECUTED) if builds else f"{Rung.EXECUTED}, of artefacts built elsewhere"
    return f"{Rung.BUILT}, not executed" if builds else "nothing"


def _compiled_target(target: Target, ladder: _Ladder, found: dict[str, Installed], imports: Imports) -> TargetState:
    """One whose vendor's compiler may be there without the device that executes: TensorRT."""
    part = _part(ladder, found, imports)
    usable = [found[module] for module in ladder.compilers if not found[module].wrong and not imports[module]]
    missing = [part.missing] if part.missing else []
    missing += [_refused(found[module], why) for module in ladder.compilers if not found[module].wrong and (why := imports[module])]
    device = gpu.gpus()
    # TensorRT times kernels on the GPU that it builds for. TensorRT-RTX needs none to build, and runs on its own list of them.
    builders = [each for each in usable if each.requirement.module == "tensorrt_rtx" or device.found]
    runners = [each for each in builders if device.found and (each.requirement.module == "tensorrt" or _rtx(device))]
    if not builders:
        remedy = "tensorrt-rtx to build for RTX PCs: pip install 'dtvit-deploy[trt-rtx]'"
        missing.append("tensorrt to build for this machine: pip install 'dtvit-deploy[tensorrt]'" if device.found else remedy)
    if not device.found:
        missing.append(f"a GPU to execute: {device.missing}")
    elif builders and not runners:
        missing.append(
            f"TensorRT-RTX does not run on compute capability {', '.join(one.capability for one in device.found)}: pip install tensorrt"
        )
    bindings = found["cuda.bindings"]
    if runners and bindings.wrong:
        missing.append(f"{bindings.name} to execute: {bindings.wrong}: pip install 'dtvit-deploy[{bindings.requirement.extra}]'")
    tools = [*map(_imported, builders), *part.tools]
    executes = bool(runners) and not bindings.wrong
    return TargetState(str(target), _compiled_reach(part, builders, executes=executes), "; ".join(tools) or "–", "; ".join(missing))


def _compiled_reach(part: _Part, builders: list[Installed], *, executes: bool) -> str:
    names = " and ".join(NAMES[each.name] for each in builders)
    if executes:
        return _reach(part.builds, executes)
    if not part.builds:
        return f"{Rung.EMULATED}, of artefacts built elsewhere" if part.runs else "nothing"
    if not builders:
        return f"{Rung.PREPARED} for a device and {Rung.EMULATED} (ONNX Runtime), not built"
    return f"{Rung.BUILT} ({names}) and {Rung.EMULATED} (ONNX Runtime), not executed"


def _apple_target(target: Target, ladder: _Ladder, found: dict[str, Installed], _: Imports) -> TargetState:
    """Core ML: coremltools builds and our evaluator runs packages anywhere; what executes them is a part of macOS.

    Only on a Mac is the import tried, and a device looked for: it takes seconds, and fails for a NumPy that the version tells.
    """
    needed = [found[module] for module in (*ladder.builds, ladder.runtime)]
    wrong = [each.problem for each in needed if each.wrong]
    missing = [f"{'; '.join(wrong)}: pip install 'dtvit-deploy[{ladder.extra}]'"] if wrong else []
    executed = []
    if platform.system() != "Darwin":
        missing.append("a Mac to execute: Core ML is a part of Apple's systems")
    elif not wrong:
        from dtvit_deploy.runtimes.registry import RUNTIMES

        for runtime, rung in (("coreml", Rung.EXECUTED), ("coreml-iphone", Rung.ON_DEVICE)):
            usable = RUNTIMES[runtime]().available()
            if usable.version is not None:
                executed.append(f"{rung} (--runtime {runtime})")
            else:
                missing.append(f"--runtime {runtime}: {usable.missing}" + f": {usable.remedy}" * bool(usable.remedy))
    emulates = not found[ladder.runtime].wrong and not found["torch"].wrong
    if wrong:
        reach = f"{Rung.EMULATED}, of artefacts built elsewhere"
    else:
        reach = f"{Rung.PREPARED} and {Rung.EMULATED} (torch), {' and '.join(executed) or 'not executed'}"
    tools = ", ".join(f"{each.name} {each.version}" for each in needed if not each.wrong)
    told = f"{tools} (installed; import not tried)" if tools else "–"
    return TargetState(str(target), reach if emulates else "nothing", told, "; ".join(missing))


def _rtx(device: gpu.Gpus) -> bool:
    return any(one.capability in CAPABILITIES for one in device.found)


def _imported(package: Installed) -> str:
    return f"{package.name} {package.version} (imports)"


def _refused(package: Installed, why: str) -> str:
    return f"{package.name} {package.version} is installed and cannot be used: {why}"
