"""Packed images of any size and mode as a source of arrays of one shape."""

from __future__ import annotations

import io
import re
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.config.schema import PreprocessData
from pipeline.data.labels import TextLabels, discovered_classes
from pipeline.data.source import AGAIN, CHUNK_BYTES, Part, RawNote, Source
from pipeline.errors import DataContractError

Pixels = NDArray[np.uint8]
MODES = {"gray": "L", "rgb": "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of pack_images' suffixes; EPS would run Ghostscript
MAX_NAMED = 20
MEMBER = re.compile(r"(all|train|test)/[^/.][^/]*/[^/.][^/]*")


def source_from_images(raw: Path, note: RawNote, cfg: PreprocessData) -> Source:
    """Open the images that download packed; the classes are the names of their folders, sorted.

    Raises:
        DataContractError: a folder that is no class; an image that cannot be read or, without data.image_shape, has
            another shape than the first. Most images are read only when `Part.chunks` comes to them.
    """
    tar = raw / note.files["images"].file
    seen: dict[str, TextLabels] = {}
    for name in _names(tar):
        part, folder, _ = name.split("/", 2)
        seen.setdefault(part, TextLabels()).add([folder])
    if set(seen) not in ({"all"}, {"train", "test"}):
        raise DataContractError(
            f"{tar} holds {', '.join(sorted(seen)) or 'no image'}: expected train and test, or all. {AGAIN}"
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
            wrong = list(_wrong(tar, cfg))
            more = [f"and {len(wrong) - MAX_NAMED:,} more files"] if len(wrong) > MAX_NAMED else []
            raise DataContractError("\n".join(wrong[:MAX_NAMED] + more)) from error
        yield name, image


def _wrong(tar: Path, cfg: PreprocessData) -> Iterator[str]:
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


def _names(tar: Path) -> Iterator[str]:
    with _explained(tar):
        for _, member in _headers(tar):
            yield member.name


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
        raise DataContractError(f"{tar} is damaged ({error}): expected what download packs. {AGAIN}") from error
