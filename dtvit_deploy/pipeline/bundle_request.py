"""What a bundle was asked for, written down beside it: by this its results are understood when they come back, weeks later.

It may come from elsewhere as well as the results. It is read strictly, names no network and no code, and nothing that it leads to is
believed: artefacts are held to their manifests and, as the samples, to the digests of the job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from dtvit_deploy.artifacts.artifact import encode_json
from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.job import LARGEST, Job, Latency, decode_job, encode_job, job_id
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.recipe.tables import Data, Recipe, Run
from dtvit_deploy.remote.bundle import folder_of
from dtvit_deploy.remote.recorded import options_of

SCHEMA = 1
SUFFIX = ".request.json"
_TOLD: dict[str, tuple[str, ...]] = {
    "data": ("evaluation", "samples", "class_map"),
    "run": ("threads", "runtimes"),
    "parity": (),
    "profile": (),
    "gates": (),
}
"""Tables of a recipe that a request has, and their keys, where it does not have all of them."""
_LARGEST = 2 * LARGEST
"""Bytes; most of it is the job."""
_MOST = 10_000
"""Files of a folder that are looked at."""
_WHERE = f"give the folder that `bundle` wrote to, or the {SUFFIX} itself"


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which figures are made of the answers; see `dtvit_deploy.pipeline.figures.Figures`."""

    parity: bool
    layers: bool | None
    accuracy: bool
    latency: bool


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle's request.

    Attributes:
        created: UTC, ISO 8601.
        job: that the bundle does; its name is that of the request, too.
        artefacts: where those of the job's subjects lie, in that order. In the file, what lies below its own folder is relative to it.
        figures: that are made of the answers.
        recipe: how, and which gates they are held to; see `told_by`.
    """

    schema: int = SCHEMA
    created: Annotated[str, msgspec.Meta(max_length=100)]
    job: Job
    artefacts: tuple[Path, ...]
    figures: Wanted
    recipe: Recipe

    @property
    def identity(self) -> str:
        """The job's name."""
        return job_id(encode_job(self.job))

    @property
    def wanted(self) -> Figures:
        """The figures."""
        return Figures(**msgspec.structs.asdict(self.figures))


def told_by(recipe: Recipe) -> Recipe:
    """What of a recipe is about figures of artefacts that are there: no network, which might be code, and no address."""
    data = Data(**{name: getattr(recipe.data, name) for name in _TOLD["data"]})
    run = Run(**{name: getattr(recipe.run, name) for name in _TOLD["run"]})
    return Recipe(data=data, run=run, parity=recipe.parity, profile=recipe.profile, gates=recipe.gates)


def file_of(identity: str) -> str:
    """The name of a job's request: that of the folder which the archive is unpacked into."""
    return folder_of(identity) + SUFFIX


def encode_request(request: Request, folder: Path) -> bytes:
    """Its JSON, for a file in a folder.

    Raises:
        InputError: a path is not UTF-8.
    """
    home = folder.resolve()

    def stored(value: object) -> str:
        given = Path(str(value))
        path = given.parent.resolve() / given.name  # where a link leads is not what an artefact is called
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    said = msgspec.to_builtins(request, enc_hook=stored)
    said["recipe"] = {
        table: {name: value for name, value in said["recipe"][table].items() if name in names or not names}
        for table, names in _TOLD.items()
    }
    try:
        return encode_json(said)
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object!r} is not UTF-8, and a request is", remedy="give it another name") from error


def read_request(path: Path) -> Request:
    """A request of its file.

    Raises:
        InputError: it cannot be read, is none, is of another schema, or contradicts itself.
    """

    def joined(kind: type, value: Any) -> Any:
        if kind is not Path or not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"Expected a path, got {value!r:.100}")
        return path.parent / value

    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:  # a pipe might never end
            raise ValueError("it is no file, or larger than any")
        content = path.read_bytes()
        require_shallow_json(content)
        schema = msgspec.json.decode(content, type=_Versioned).schema  # by itself, since what else another schema has is not known
        if schema != SCHEMA:
            raise InputError(f"{path} has schema {schema}; this version reads schema {SCHEMA}", remedy="make the bundle again")
        request: Request = msgspec.json.decode(content, type=Request, dec_hook=joined)
        _require_sound(request)
    except (OSError, ValueError, OverflowError) as error:  # msgspec's own, an encoding's and too deep a nest are each a ValueError
        raise InputError(f"{path} is not a bundle's request: {error}", remedy=_WHERE) from error
    return request


class _Versioned(msgspec.Struct):
    schema: int


def _require_sound(request: Request) -> None:
    job = decode_job(encode_job(request.job))
    names = [subject.name for subject in job.subjects]
    if [path.name for path in request.artefacts] != names or not names:
        raise ValueError("its artefacts are not the subjects of its job")
    if request.recipe != told_by(request.recipe):
        raise ValueError("its recipe is about more than figures of artefacts that are there")
    figures = request.figures
    if not (figures.parity or figures.layers or figures.accuracy or figures.latency):
        raise ValueError("it wants no figure")
    for task in job.tasks:
        if isinstance(task, Latency):
            options_of(task)


def find_request(identity: str, places: Sequence[Path]) -> tuple[Path, Request]:
    """The request of a job: in one of several folders, or one of several files.

    Raises:
        InputError: it is in none of them, or is damaged.
    """
    others: list[str] = []
    for place in places:
        if place.is_dir() and (place / file_of(identity)).exists():
            found = read_request(place / file_of(identity))
            if found.identity == identity:
                return place / file_of(identity), found
        for path in _requests(place):
            if not place.is_dir():
                found = read_request(path)
            else:
                try:
                    found = read_request(path)
                except InputError:  # of another, maybe; that of this job has its name, and was read
                    continue
            if found.identity == identity:
                return path, found
            others.append(path.name)
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    told = f"; there are {', '.join(dict.fromkeys(others))}" if others else ""
    raise InputError(f"these are results of the bundle {identity[:12]}, whose request is not in {looked}{told}", remedy=_WHERE)


def _requests(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    with contextlib.suppress(OSError):
        return sorted(path for path in place.iterdir() if path.name.endswith(SUFFIX))[:_MOST]
    return []
