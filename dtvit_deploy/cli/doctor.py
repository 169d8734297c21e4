"""``dtvit-deploy doctor``: what this machine can do, or a device; with ``--explain``, whether it will load an engine and why not."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import GATE_FAILED, explained

if TYPE_CHECKING:
    from dtvit_deploy.formats.engine.explain import Explanation
    from dtvit_deploy.formats.engine.load import Loaded

_WIDTH = 80
_LABELS = 9


@explained
def doctor(
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="ENGINE", help="Say why a TensorRT engine will not load here. Nothing in it runs.", show_default=False
        ),
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="With --explain: load it too, in a process of its own, if nothing speaks against it.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="With --explain: take the engine's word where no manifest vouches for it. Engines are native code."),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Ask a device: ssh://[USER@]HOST[:PORT], or a name or a tag of devices.toml.", show_default=False),
    ] = None,
    as_json: given.Json = False,
) -> None:
    """What this machine can build, emulate, execute and prove for each target, and how to get what is missing.

    With --device: what the device is and has; exit code 3 if it cannot be reached, or can run no artefact.

    With --explain: exit code 0 if the engine will load here, 1 if it will not, or is no engine, 2 if there is no such path, or another
    runtime's artefact.
    """
    from dtvit_deploy.errors import InputError

    if device is not None:
        if explain is not None or load or trust:
            raise InputError("--explain looks at this machine, and --device at another", remedy="give one of them")
        _of_devices(device, as_json=as_json)
        return
    if explain is not None:
        _explain(explain, load=load, trust=trust, as_json=as_json)
        return
    if load or trust:
        raise InputError("--load and --trust say how to treat an engine, and none was given", remedy="add --explain ENGINE")
    from dtvit_deploy.cli import show
    from dtvit_deploy.doctor import examine

    found = examine()
    if as_json:
        show.as_json(found)
        return
    reports = {f"telemetry of {vendor}": how for vendor, how in found.telemetry.items()}
    show.rows("this machine", ("", ""), list((found.machine | reports).items()))
    headings = ("target", "can reach", "with", "what is missing, and how to get it")
    show.rows("targets", headings, [(t.target, t.reach, t.tools, t.missing) for t in found.targets])
    show.rows("packages", ("package", "version", "for"), [(p.name, p.version, p.purpose) for p in found.packages])


def _of_devices(asked: str, *, as_json: bool) -> None:
    """Ask one device, or all that share a tag; those that answer are told, whatever becomes of the others."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.each_device import each, named, raise_all
    from dtvit_deploy.devices.examine import examine
    from dtvit_deploy.devices.needs import missing

    answered, failures = each(named([asked]), "asking", examine)
    found = list(answered.values())
    failures += [missing(one.name, one.missing) for one in found if one.missing]
    if as_json:
        show.as_json(found)
    else:
        for one in found:
            show.rows(one.name, ("", ""), list(one.told().items()))
            for note in one.notes:
                show.note(note, show.console())
    raise_all(failures)


def _explain(engine: Path, *, load: bool, trust: bool, as_json: bool) -> None:
    import msgspec

    from dtvit_deploy.cli import show
    from dtvit_deploy.formats.engine.explain import explain
    from dtvit_deploy.formats.engine.here import this_machine
    from dtvit_deploy.formats.engine.load import Loaded, ask_library, load_engine

    here = this_machine()
    found = explain(engine, here, trust=trust, ask=ask_library)
    loaded = None
    if load:
        loaded = (
            load_engine(Path(found.engine), found.library, found.digest, host_code=found.host_code, dla_core=found.dla_core, gpu=found.gpu)
            if found.loads
            else Loaded(wrong="not tried, for the reasons given")
        )
    if as_json:
        show.as_json({**msgspec.to_builtins(found), "loaded": msgspec.to_builtins(loaded), "here": msgspec.to_builtins(here)})
    else:
        for line in lines(found, loaded):
            show.console().say(line)
    if not found.loads or (loaded and loaded.wrong):
        raise SystemExit(GATE_FAILED)


def lines(found: Explanation, loaded: Loaded | None = None) -> list[str]:
    """The explanation as text of 80 columns: the facts, the cautions, the reasons, and the verdict last."""
    told = _wrapped("/".join(Path(found.engine).parts[-2:]), "")
    for name, value in found.facts.items():
        told += _wrapped(f"{name}: {value}", "  ")
    for each in found.cautions:
        told += _wrapped(f"note: {each}", "")
    for number, reason in enumerate(found.reasons, 1):
        told += ["", f"{number}. {reason.cause.value}"]
        for label, text in (("found:", reason.found), ("needed:", reason.needed), ("do:", reason.remedy)):
            told += _wrapped(f"{label:<{_LABELS - 1}}{text}", "   ", hang=_LABELS + 2)
    told.append("")
    if loaded:
        told += _wrapped(f"loading: {loaded.wrong or 'done: ' + ', '.join(loaded.tensors)}", "")
    count = len(found.reasons)
    if not found.loads:
        told.append(f"FAIL: it will not load here, for {count} reason{'s' * (count > 1)}")
    elif loaded and loaded.wrong:
        told.append("FAIL: nothing spoke against it, and it does not load")
    else:
        told.append("PASS: it loads here" if loaded else "PASS: nothing speaks against loading it here")
    return told


def _wrapped(text: str, indent: str, hang: int | None = None) -> list[str]:
    following = " " * (len(indent) + 2 if hang is None else hang)
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=following, break_on_hyphens=False)
