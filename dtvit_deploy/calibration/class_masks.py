"""Folders of masks for segmentation: PNG files of class indices, one for each image, told apart by their names."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.calibration.decode import opened_image
from dtvit_deploy.calibration.folders import entries, is_image, skipped, walk
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.segmentation import IGNORED
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = ("images", "imgs", "img", "image", "jpegimages")
MASKS = ("masks", "annotations", "labels", "mask", "segmentationclass", "segmentation", "gt")
"""Names, in lower case, of folders that lie beside each other in one."""
_MASK = ".png"
_SCALED = {2: 85, 4: 17}
"""By the bits of a grey pixel: Pillow makes white of the greatest number, and this takes it back."""
_HEADER = 25
"""Bytes of a PNG file up to the number of bits."""


@dataclass(frozen=True)
class MaskedImages:
    """Images, and the file with the mask of each."""

    images: ImageSet
    masks: tuple[str, ...]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what images and masks contain.

        Raises:
            InputError: a file cannot be read.
        """
        try:
            masks = [sha256_of(Path(mask)) for mask in self.masks]
        except OSError as error:
            raise InputError(f"a mask cannot be read: {error}", remedy="check that nothing moves files away") from error
        return hashlib.sha256(repr(sorted(zip(self.images.hashes, masks, strict=True))).encode()).hexdigest()


def open_masked(folder: Path, masks: Path | None = None, *, classes: tuple[str, ...] = ()) -> MaskedImages:
    """Images with a mask each, in the order of their paths; nothing is decoded.

    The mask of ``a/b.jpg`` is ``a/b.png`` of the folder of masks. Without that folder, ``folder`` holds one for images and one for masks
    (:data:`IMAGES`, :data:`MASKS`), or images of another kind with the PNG of the same name beside each. What has no image is passed over,
    with a note.

    Args:
        folder: of images, to any depth.
        masks: of masks, laid out alike.
        classes: names of the classes in the order of the network's scores.

    Raises:
        InputError: a folder is not there, cannot be read or has no images, an image has no mask, or it is unclear which it has.
    """
    if masks is None:
        folder, masks = _folders(folder)
    files, marked = _files(folder), _files(masks)
    beside = folder == masks
    images = {path: name for path, name in files.items() if is_image(path) and not (beside and Path(path).suffix.lower() == _MASK)}
    of_name: defaultdict[str, list[str]] = defaultdict(list)
    for path, name in marked.items():
        if Path(path).suffix.lower() == _MASK:
            of_name[name].append(path)
    if not images:
        raise InputError(
            f"{folder} holds no images" + (" beside PNG files, which are masks there" if beside and of_name else ""),
            remedy=f"put images into {IMAGES[0]}/ and masks into {MASKS[0]}/, under the same names",
        )
    if without := sorted(path for path, name in images.items() if not of_name[name]):
        raise InputError(
            f"{len(without)} of the {counted(len(images), 'image')} of {folder} have no mask in {masks}: {some(without)}",
            remedy=f"a mask is a {_MASK} file with the name of its image; leave images without one out",
        )
    often = Counter(images.values())
    if several := sorted(path for path, name in images.items() if often[name] > 1 or len(of_name[name]) > 1):
        raise InputError(
            f"{some(several)} of {folder}: several images or masks have this name",
            remedy="give each image and its mask a name of their own",
        )
    ordered = sorted(images, key=lambda path: Path(path).parts)
    alone = sum(len(found) for name, found in of_name.items() if name not in often)
    notes = list(skipped([path for path in files if not is_image(path)]))
    if alone:
        notes.append(f"{counted(alone, 'mask')} without an image passed over")
    found = ImageSet(tuple(LabelledImage(path, None) for path in ordered), classes, tuple(notes))
    return MaskedImages(found, tuple(of_name[images[path]][0] for path in ordered))


def read_mask(path: Path, size: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """(H, W) class of each pixel, 255 where nothing is said. Of a palette, the indices count and not the colours.

    Args:
        path: a PNG file.
        size: height and width of its image.
        classes: how many there are.

    Raises:
        InputError: it cannot be read, is no PNG file, holds colours, has another size than the image, or a number that is no class.
    """
    import numpy as np

    try:
        with opened_image(path, ("PNG",)) as opened:
            mode, values = opened.mode, np.asarray(opened)
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", remedy="check that nothing moves files away") from error
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise InputError(
            f"{path} holds colours ({mode}), and no indices of classes", remedy="save it as grey or with a palette, the class as the number"
        )
    if values.shape != size:
        raise InputError(
            f"{path} is {values.shape[1]}×{values.shape[0]} pixels, and its image {size[1]}×{size[0]}",
            remedy="make the mask of the image as it is, upright, and not of one made smaller",
        )
    if mode == "L" and (depth := header[-1]) in _SCALED:
        values = values // _SCALED[depth]
    found = np.unique(values)
    if outside := [int(value) for value in found if not (0 <= value < classes or value == IGNORED)]:
        raise InputError(
            f"{path} has pixels of class {some(map(str, outside))}; the {classes} classes are 0 to {classes - 1}, and {IGNORED} is none",
            remedy="number the classes from 0 in the order of the network's scores, and write 255 where nothing is said",
        )
    return values.astype(np.uint8)


def _folders(folder: Path) -> tuple[Path, Path]:
    """The folder of images and that of masks in one that holds both; that one twice where they lie beside each other."""
    below = {Path(path).name.lower(): Path(path) for path in entries(str(folder))[0]} if folder.is_dir() else {}
    images, masks = ([below[name] for name in names if name in below] for names in (IMAGES, MASKS))
    if not images and not masks:
        return folder, folder
    if len(images) == len(masks) == 1:
        return images[0], masks[0]
    told = some(str(path.name) for path in (*images, *masks))
    raise InputError(
        f"which folders of {folder} hold the images, and which their masks, is unclear: it has {told}",
        remedy=f"call them {IMAGES[0]} and {MASKS[0]}, or name both",
    )


def _files(folder: Path) -> dict[str, str]:
    """All files to any depth, and what each is called there, without its suffix."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; images and masks come from folders",
            remedy="give the folder that holds them",
        )
    folders, files = entries(str(folder))
    for below in folders:
        files += walk(below, str(folder))
    return {path: str(Path(path).relative_to(folder).with_suffix("")) for path in files}
