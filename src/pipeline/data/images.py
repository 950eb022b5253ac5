"""A person's folder of images, one folder a class: packed into a tar for DVC to hash, decoded from it to one shape.

A packed member is called part/class/file; part is train or test, or all where there is no test set.
"""

from __future__ import annotations

import io
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.config.schema import PreprocessData
from pipeline.data.source import (
    CHUNK_BYTES,
    REPAIR,
    Part,
    RawFile,
    RawNote,
    Source,
    TextLabels,
    describe_file,
    discovered_classes,
)
from pipeline.system.errors import DataContractError

Pixels = NDArray[np.uint8]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of these suffixes; EPS would run Ghostscript
MODES = {"gray": "L", "rgb": "RGB"}  # data.color -> Pillow's mode
LAYOUT = "expected PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE and PATH/test/CLASS/IMAGE"
MEMBER = re.compile(r"(all|train|test)/[^/.][^/]*/[^/.][^/]*")
MAX_NAMED = 20  # files in a message


# ---------------------------------------------------------------- a folder, packed


@dataclass
class Packed:
    """What was found in the folder."""

    file: RawFile
    num_images: Counter[str]  # part -> images
    classes: set[str]
    ignored: Counter[str] = field(default_factory=Counter)  # kind of thing -> how many of it


def pack_images(folder: Path, out: Path) -> Packed:
    """Pack the images' bytes, unchanged and in sorted order, into out/images.tar.

    Times, owners and modes are dropped, so the same images give the same bytes.

    Raises:
        DataContractError: no such folder, no images, fewer than two classes, a class without images, a link that
            leads out of the folder.
    """
    if not folder.is_dir():
        raise DataContractError(f"data.path={folder} is no folder: {LAYOUT}.")
    packed = Packed(RawFile("images.tar", 0, ""), Counter(), set())
    with tarfile.open(out / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for part, part_folder in _parts(folder, packed):
            for class_folder in _folders(part_folder, packed):
                _pack_class(tar, folder, part, class_folder, packed)
    if len(packed.classes) < 2:
        found = ", ".join(sorted(packed.classes)) or "none"
        raise DataContractError(f"{folder}: expected at least two classes, found {found}. {LAYOUT}.")
    packed.file = describe_file(out / "images.tar")
    return packed


def _parts(folder: Path, packed: Packed) -> Iterator[tuple[str, Path]]:
    """(part, folder of classes): train and test where both are there, else all."""
    if not ((folder / "train").is_dir() and (folder / "test").is_dir()):
        yield "all", folder
        return
    for other in _folders(folder, packed):
        if other.name in ("train", "test"):
            yield other.name, other
        else:
            packed.ignored[f"folder named {other.name}"] += 1


def _folders(folder: Path, packed: Packed) -> Iterator[Path]:
    """The folders in a folder, sorted; anything else is counted as ignored."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            packed.ignored["hidden"] += 1
        elif entry.is_dir():
            yield entry
        else:
            packed.ignored["outside a class folder"] += 1


def _pack_class(tar: tarfile.TarFile, folder: Path, part: str, class_folder: Path, packed: Packed) -> None:
    """Add the images of one class."""
    if any("\ud800" <= character <= "\udfff" for character in class_folder.name):
        raise DataContractError(f"{str(class_folder)!a}: expected a name in UTF-8, since it names a class. Rename it.")
    before = packed.num_images[part]
    for path in sorted(class_folder.iterdir()):
        if path.name.startswith("."):
            packed.ignored["hidden"] += 1
        elif path.suffix.lower() not in SUFFIXES or not path.is_file():
            packed.ignored["not ending as an image"] += 1
        else:
            _check_inside(path, folder)
            _add(tar, path, f"{part}/{class_folder.name}/{path.name}")
            packed.num_images[part] += 1
    if packed.num_images[part] == before:
        raise DataContractError(f"{class_folder} holds no image: expected files ending in {', '.join(SUFFIXES)}.")
    packed.classes.add(class_folder.name)


def _check_inside(path: Path, folder: Path) -> None:
    """A link out of the folder could bring in anything, and would break when the folder moves."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataContractError(
            f"{path} leads to {path.resolve()}, which is outside {folder}: copy the file there instead of linking it."
        )


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)  # time 0, owner 0, mode 0644
    member.size = path.stat().st_size
    with open(path, "rb") as file:
        tar.addfile(member, file)
    tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed; a kilobyte for every member, never needed


# ---------------------------------------------------------------- packed images as a source of samples


def source_from_images(raw: Path, note: RawNote, cfg: PreprocessData) -> Source:
    """Open the images that download packed; the classes are the names of their folders, sorted.

    Raises:
        DataContractError: a folder that is no class; an image that cannot be read or, without data.image_shape, has
            another shape than the first. Most images are read only when `Part.chunks` comes to them.
    """
    tar = raw / note.files["images"].file
    seen: dict[str, TextLabels] = {}
    with _explained(tar):
        for _, member in _headers(tar):
            part, folder, _ = member.name.split("/", 2)
            seen.setdefault(part, TextLabels()).add([folder])
    if set(seen) not in ({"all"}, {"train", "test"}):
        raise DataContractError(
            f"{tar} holds {', '.join(sorted(seen)) or 'no image'}: expected train and test, or all. {REPAIR}"
        )
    classes = cfg.classes or discovered_classes(seen["train" if "train" in seen else "all"])
    first_name, first = next(_images(tar, "train" if "train" in seen else "all", cfg))
    parts = {
        part: Part(
            labels.as_classes(classes, f"folders of {part}"), partial(_chunks, tar, part, cfg, first_name, first)
        )
        for part, labels in seen.items()
    }
    return Source(classes, first.shape, "uint8", None, parts)


def _chunks(tar: Path, part: str, cfg: PreprocessData, first_name: str, first: Pixels) -> Iterator[Pixels]:
    """The images of a part, decoded, some at a time."""
    size, chunk = max(1, CHUNK_BYTES // first.size), []
    for name, image in _images(tar, part, cfg):
        if image.shape != first.shape:
            raise DataContractError(
                f"{name} has the shape {image.shape}, {first_name} has {first.shape}: expected one shape for all. "
                "Have them resized: data.image_shape=[28,28]"
            )
        chunk.append(image)
        if len(chunk) == size:
            yield np.stack(chunk)
            chunk.clear()
    if chunk:
        yield np.stack(chunk)


def _images(tar: Path, part: str, cfg: PreprocessData) -> Iterator[tuple[str, Pixels]]:
    """(name, image) of each image of a part.

    Raises:
        DataContractError: an image that cannot be read; it names those of all parts, so that one look repairs them all.
    """
    for name, data in _members(tar, part):
        try:
            image = decode(data, name, cfg.color, cfg.image_shape)
        except DataContractError as error:
            mistakes = list(_mistakes(tar, cfg))
            more = [f"and {len(mistakes) - MAX_NAMED:,} more files"] if len(mistakes) > MAX_NAMED else []
            raise DataContractError("\n".join(mistakes[:MAX_NAMED] + more)) from error
        yield name, image


def _mistakes(tar: Path, cfg: PreprocessData) -> Iterator[str]:
    """What is wrong with each image that cannot be read."""
    for part in ("all", "train", "test"):
        for name, data in _members(tar, part):
            try:
                decode(data, name, cfg.color, cfg.image_shape)
            except DataContractError as error:
                yield str(error)


def decode(data: bytes, name: str, color: str | None, shape: tuple[int, ...] | None) -> Pixels:
    """One image file as (H, W) for gray, (H, W, 3) for rgb; turned as its EXIF note says.

    Resizing to `shape`, (height, width), averages the area behind each new pixel (BOX: no ringing, exact for whole
    ratios) and does not keep the aspect ratio. Transparency is dropped.

    Raises:
        DataContractError: no image, a damaged or huge one, or more than 8 bits a channel.
    """
    assert color is not None, "data.kind=image_folder has a color"
    try:
        with opened(data) as file:
            mode = file.mode
            image = file.convert(MODES[color])
    except UnidentifiedImageError as error:
        what = "an unknown format" if data else "0 bytes"
        raise DataContractError(f"{name}: expected an image, found {what}. Repair or remove the file.") from error
    except Exception as error:  # each decoder raises what it likes
        raise DataContractError(
            f"{name}: expected an image, found what cannot be decoded ({error}). Repair or remove the file."
        ) from error
    if mode.startswith(("I", "F")):
        raise DataContractError(f"{name}: expected 8 bits a channel, found mode {mode}. Convert the image to 8 bits.")
    if shape and image.size != shape[::-1]:
        image = image.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(image)


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """An image file of a known format, turned as its EXIF note says; a huge one is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            yield ImageOps.exif_transpose(file)


def _members(tar: Path, part: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file of a part."""
    with _explained(tar):
        for archive, member in _headers(tar):
            if member.name.startswith(f"{part}/"):
                file = archive.extractfile(member)
                assert file is not None, "a plain file"
                yield member.name.removeprefix("all/"), file.read()


def _headers(tar: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member of the archive, without the list of all of them that TarFile keeps.

    Raises:
        ValueError: a member that download does not pack: no plain file, or one that is longer than the archive.
    """
    num_bytes = tar.stat().st_size
    with tarfile.open(tar, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # as in pack_images
            plain = member.isreg() and not member.issparse() and 0 <= member.size <= num_bytes - member.offset_data
            if not plain or not MEMBER.fullmatch(member.name):
                raise ValueError(f"the member {member.name!r} is no plain file PART/CLASS/IMAGE")
            yield archive, member


@contextmanager
def _explained(tar: Path) -> Iterator[None]:
    """What is wrong with the archive itself, as our error."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataContractError(f"{tar} is damaged ({error}): expected what download packs. {REPAIR}") from error
