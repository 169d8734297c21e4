"""What `attention` found, as data, and as the sentences and tables of its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.artifacts.bounds import Cosine
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.harness.attention import MapDrift
from dtvit_deploy.plural import counted
from dtvit_deploy.report import figures
from dtvit_deploy.report.content import Content
from dtvit_deploy.report.figures import plain
from dtvit_deploy.report.tables import Section, amounts, labels_of, listed, prose, table, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRIFT = "drift"
"""Key of the section that is about no picture."""


class AttentionSubject(msgspec.Struct, frozen=True, kw_only=True):
    """An artefact in a runtime, or torch.

    Attributes:
        name: as tables show it (``ONNX FP16``).
        file: the artefact's file name; empty for torch.
        sha256: of the artefact's content; of the exported program for torch.
        precision: that it was exported in.
        rung: how far its maps were proved.
        conditions: of the session that gave the maps, which need not be in the runtime that was asked for: engines and Core ML keep
            their inner tensors to themselves.
        drift: of each map that it gives; none for torch.
        lacking: by map, why it does not give it.
    """

    name: str
    file: str
    sha256: str
    precision: str
    rung: Rung
    conditions: dict[str, str]
    drift: tuple[MapDrift, ...] = ()
    lacking: dict[str, str] = {}


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One map of an image that is drawn.

    Attributes:
        image: as it was given.
        map: whose.
        subject: who looked, by its place among the subjects.
        strongest: numbers of its strongest tokens, the key token first.
        correlation: with torch's map of this image; None of torch's own, and as in `MapDrift`.
    """

    image: str
    map: str
    subject: int
    strongest: tuple[int, ...]
    correlation: Cosine | None


class AttentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the pictures.

    Attributes:
        model: of the registry.
        created: when.
        maps: by name, who looks at what, and the tensor that says so.
        data: which images drift is of, and how they were made feeds.
        between_images: by map, the mean correlation of torch's maps of one image and the next: what a map shares with any other.
        subjects: torch first.
        sights: of the images that are drawn.
        notes: what is to be known.
    """

    model: str
    created: str
    maps: dict[str, str]
    data: dict[str, str]
    between_images: dict[str, Cosine | None]
    subjects: tuple[AttentionSubject, ...]
    sights: tuple[Sight, ...]
    notes: tuple[str, ...] = ()


class Picture(NamedTuple):
    """An image, as the network sees it, and the maps of it.

    Attributes:
        name: as it was given.
        pixels: (height, width, 3), RGB.
        maps: for each subject those that it gives, by name; (heads, tokens, rows, columns) each.
    """

    name: str
    pixels: NDArray[np.uint8]
    maps: tuple[dict[str, NDArray[np.float64]], ...]


class Attention(NamedTuple):
    """What the pictures are drawn of."""

    report: AttentionReport
    maps: tuple[AttentionMap, ...]
    pictures: tuple[Picture, ...]


def attention_content(found: AttentionReport) -> Content:
    """The page: drift first, then a section for each image, whose pictures have its key (`picture_key`)."""
    names = labels_of([(one.name, one.file) for one in found.subjects])
    images = list(dict.fromkeys(sight.image for sight in found.sights))
    sections = [
        _drift(found, names),
        *(_image(found, names, image, number) for number, image in enumerate(images)),
        _conditions(found, names),
    ]
    return Content(
        title=plain(f"attention of {found.model}"),
        created=plain(found.created),
        passed=None,
        reason="",
        notes=tuple(map(plain, found.notes)),
        sections=tuple(sections),
        footer="the same figures: dtvit-deploy attention --json",
    )


def picture_key(number: int) -> str:
    """The key of an image's section."""
    return f"image-{number + 1}"


def _drift(found: AttentionReport, names: list[str]) -> Section:
    rows = [(name, subject, drift) for name, subject in zip(names, found.subjects, strict=True) for drift in subject.drift]
    told = (
        "How far each artefact's attention is from torch's: the correlation (Pearson) of all weights of a map, the mean over images and"
        " that of the worst image; the greatest |Δ| of one weight, of which those of a query add up to 1; on how many images the key token"
        " is the same, and how many of torch's strongest tokens are among the artefact's."
    )
    kinds = [f"{name}: {what}." for name, what in found.maps.items()]
    apart = [
        f"{name}: torch's own maps of one image and the next correlate by {figures.cosine(value)}; drift is to be read beside that."
        for name, value in found.between_images.items()
        if value is not None
    ]
    columns = [
        words("", [name for name, _, _ in rows]),
        words("file", [subject.file for _, subject, _ in rows]),
        words("in", [subject.conditions.get("runtime", "") for _, subject, _ in rows]),
        words("precision", [subject.precision for _, subject, _ in rows]),
        words("rung", [str(subject.rung) for _, subject, _ in rows]),
        words("map", [drift.map for _, _, drift in rows]),
        amounts("images", [str(drift.images) for _, _, drift in rows]),
        amounts("correlation", [figures.cosine(drift.correlation) for _, _, drift in rows]),
        amounts("least", [figures.cosine(drift.least) for _, _, drift in rows]),
        amounts("max |Δ|", [figures.number(drift.max_abs) for _, _, drift in rows]),
        amounts("same key", [figures.share(drift.same_key) for _, _, drift in rows]),
        amounts("strongest", [figures.share(drift.shared) for _, _, drift in rows]),
        amounts("without", [str(drift.undefined) if drift.undefined else "" for _, _, drift in rows]),
    ]
    lacking = [(name, kind, why) for name, one in zip(names, found.subjects, strict=True) for kind, why in one.lacking.items()]
    lacks = [words("", [name for name, _, _ in lacking]), words("map", [kind for _, kind, _ in lacking])]
    tables = [
        table(f"on {counted(int(found.data['samples']), 'image')}: {found.data['source']}", columns),
        table("maps that an artefact does not give", [*lacks, prose("why", [why for _, _, why in lacking])]),
    ]
    return Section(DRIFT, "Attention drift", tuple(map(plain, (told, *kinds, *apart))), tuple(one for one in tables if one.columns))


def _image(found: AttentionReport, names: list[str], image: str, number: int) -> Section:
    sights = [sight for sight in found.sights if sight.image == image]
    columns = [
        words("", [names[sight.subject] for sight in sights]),
        words("map", [sight.map for sight in sights]),
        amounts("correlation", [figures.cosine(sight.correlation) for sight in sights]),
        amounts("key token", [str(sight.strongest[0]) for sight in sights]),
        words("strongest tokens", [", ".join(map(str, sight.strongest)) for sight in sights]),
    ]
    return Section(picture_key(number), plain(image), (), (table("tokens are numbered from 0, row by row", columns),))


def _conditions(found: AttentionReport, names: list[str]) -> Section:
    columns = [
        words("", names),
        words("SHA-256", [subject.sha256[:16] for subject in found.subjects]),
        words("conditions", [listed(subject.conditions) for subject in found.subjects]),
    ]
    told = [f"{name}: {value}" for name, value in found.data.items()]
    return Section("conditions", "Conditions", tuple(map(plain, told)), (table(counted(len(names), "session"), columns),))
