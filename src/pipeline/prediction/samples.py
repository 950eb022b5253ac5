"""Files, folders and arrays as samples of the shape that a network takes; what is bad is reported, the rest goes on.

Shapes: n samples of a batch.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.images import SUFFIXES, decode, opened
from pipeline.prediction.digits import as_digit
from pipeline.system.errors import DataContractError

if TYPE_CHECKING:
    from pipeline.model.dense import InputSpec

BATCH = 1024
MAX_SIDE = 2048  # px, a side of a picture that is looked at as a digit
DIGIT_KINDS = ("idx", "package")  # data that was made as MNIST was
Report = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """One thing to be answered."""

    name: str
    values: NDArray[Any]  # of the network's shape and type
    done: str = ""  # what was done to it before the network saw it


def batches(inputs: Sequence[str], spec: InputSpec, report: Report) -> Iterator[list[Sample]]:
    """All samples of all inputs, in order; `report` is called with a message for each that cannot be had."""
    batch: list[Sample] = []
    for name in inputs:
        for sample in _samples(name, spec, report):
            batch.append(sample)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _samples(name: str, spec: InputSpec, report: Report) -> Iterator[Sample]:
    path = Path(name)
    try:
        if path.is_dir():
            for file in _pictures_in(path, report):
                yield from _samples(str(file), spec, report)
        elif not path.exists():
            raise DataContractError(f"{name}: there is no such file")
        elif path.suffix.lower() == ".npy":
            yield from _of_array(path, spec, report)
        elif path.suffix.lower() == ".csv":
            yield from _of_table(path, spec, report)
        else:
            yield _of_picture(path, spec)
    except DataContractError as error:
        report(str(error))
    except OSError as error:
        report(f"{name}: {error.strerror or error}")


def _pictures_in(folder: Path, report: Report) -> list[Path]:
    """Of the folder and those in it, in order; what is passed over is counted on stderr."""
    walked = os.walk(folder, onerror=lambda error: report(f"{error.filename}: {error.strerror}"))
    files = [Path(top, name) for top, _, names in walked for name in names]
    pictures = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
    if not pictures:
        raise DataContractError(f"{folder}: expected images in this folder, found none ({', '.join(SUFFIXES)})")
    if others := len(files) - len(pictures):
        print(f"{folder}: {others:,} files are no images by their names and were passed over", file=sys.stderr)
    return pictures


# ---------------------------------------------------------------- pictures


def drawing_as_sample(drawing: NDArray[np.uint8], spec: InputSpec, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    """A drawing, (H, W) or (H, W, 3) as the network takes them, in the network's size, and what was done to it.

    As MNIST was made, where the network learned from data of that kind; else it is resized alone.

    Raises:
        DataContractError: there is nothing on it.
    """
    height, width = spec.shape[:2]
    if _are_digits(spec):
        return as_digit(drawing, (height, width), name)
    if drawing.shape == spec.shape:
        return drawing, []
    resized = Image.fromarray(drawing).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized), [f"scaled from {drawing.shape[1]} x {drawing.shape[0]}"]


def _of_picture(path: Path, spec: InputSpec) -> Sample:
    if len(spec.shape) < 2:
        raise DataContractError(f"{path}: this network takes rows of a table, give a .csv or .npy file")
    color = "gray" if len(spec.shape) == 2 else "rgb"
    drawing = _grey(path) if _are_digits(spec) else decode(path.read_bytes(), str(path), color, None)
    image, done = drawing_as_sample(drawing, spec, str(path))
    return Sample(str(path), image, ", ".join(done))


def _are_digits(spec: InputSpec) -> bool:
    return spec.kind in DIGIT_KINDS and len(spec.shape) == 2


def _grey(path: Path) -> NDArray[np.uint8]:
    """(H, W); what is transparent is the background, and 16 bits a pixel become 8."""
    content = path.read_bytes()
    try:
        with opened(content) as image:
            if image.mode.startswith("I"):
                wide = np.asarray(image).astype(np.float32).clip(0, 65535)
                image = Image.fromarray((wide / 257).round().astype(np.uint8))
            if image.has_transparency_data:
                image = _smaller(image.convert("RGBA"))
                image = Image.alpha_composite(Image.new("RGBA", image.size, _background(image)), image)
            return np.asarray(_smaller(image.convert("L")))
    except Exception:  # each decoder raises what it likes; `decode` names what is wrong
        decode(content, str(path), "gray", None)
        raise


def _smaller(image: Image.Image) -> Image.Image:
    """At most MAX_SIDE pixels a side: no figure needs more, and memory is taken for each."""
    times = -(-max(image.size) // MAX_SIDE)
    return image.reduce(times) if times > 1 else image


def _background(image: Image.Image) -> tuple[int, int, int, int]:
    """White behind dark ink, black behind bright ink."""
    pixels = np.asarray(image).astype(np.float64)
    grey, cover = pixels[..., :3].mean(-1), pixels[..., 3]
    ink = float((grey * cover).sum() / max(cover.sum(), 1.0))
    return (0, 0, 0, 255) if ink > 127 else (255, 255, 255, 255)


# ---------------------------------------------------------------- arrays and tables


def _of_array(path: Path, spec: InputSpec, report: Report) -> Iterator[Sample]:
    """Rows of an array of the network's own shape and type: nothing is done to them."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            raise DataContractError(f"{path}: expected one array that numpy.save wrote, found something else")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file makes numpy raise what its parts like
        raise DataContractError(f"{path}: expected one array that numpy.save wrote, found: {error!r}") from error
    if array.shape == spec.shape:
        array = array[None]
    if array.shape[1:] != spec.shape:
        raise DataContractError(f"{path}: expected samples of the shape {spec.shape}, found {array.shape[1:]}")
    if not _fits(array, spec):
        raise DataContractError(f"{path}: expected {spec.dtype}, found {array.dtype}: convert it before")
    if not len(array):
        raise DataContractError(f"{path}: expected samples, found an array of none")
    for index in range(len(array)):
        with np.errstate(over="ignore"):  # what float32 does not hold is reported below
            values = np.asarray(array[index], dtype=spec.dtype)
        if np.isfinite(values).all():
            yield Sample(f"{path}[{index}]", values)
        else:
            report(f"{path}[{index}]: expected finite numbers, found {values[~np.isfinite(values)][0]}")


def _fits(array: NDArray[Any], spec: InputSpec) -> bool:
    return array.dtype == spec.dtype or (spec.dtype == "float32" and array.dtype.kind in "fiu")


def _of_table(path: Path, spec: InputSpec, report: Report) -> Iterator[Sample]:
    """Rows of a CSV, by the names of its columns where the network was trained on names, else by their order.

    Columns that the network does not know, such as the label, are left out.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if header is None:
                raise DataContractError(f"{path}: expected a table, found an empty file")
            columns = _columns(path, header, spec)
            first = [] if _is_header(header, spec) else [header]
            for number, row in enumerate(itertools.chain(first, reader), start=2 - len(first)):
                try:
                    if row:
                        yield _row(path, number, row, columns, spec)
                except DataContractError as error:
                    report(str(error))
        except csv.Error as error:
            raise DataContractError(f"{path}: expected a table: {error}") from error


def _is_header(row: list[str], spec: InputSpec) -> bool:
    """Names, or pandas' own: 0, 1, 2, …"""
    if spec.features is not None or row == [str(number) for number in range(len(row))]:
        return True
    return all(_number(cell) is None for cell in row)


def _columns(path: Path, header: list[str], spec: InputSpec) -> list[int]:
    """Where each value of a sample stands."""
    if spec.features is None:
        expected = math.prod(spec.shape)
        if len(header) != expected:
            raise DataContractError(f"{path}: expected {expected:,} columns, one a value, found {len(header):,}")
        return list(range(expected))
    lacking = [name for name in spec.features if name not in header]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise DataContractError(f"{path}: the columns {', '.join(lacking[:3])}{more} are lacking in its first row")
    return [header.index(name) for name in spec.features]


def _row(path: Path, number: int, row: list[str], columns: list[int], spec: InputSpec) -> Sample:
    name = f"{path}:{number}"
    if len(row) <= max(columns):
        raise DataContractError(f"{name}: expected {max(columns) + 1} cells, found {len(row)}")
    cells = [row[column] for column in columns]
    wrong = [cell for cell in cells if _number(cell) is None]
    if wrong:
        raise DataContractError(f"{name}: expected numbers, found {wrong[0]!r:.40}")
    values = np.array(cells, dtype=np.float64)
    whole = (values == values.round()) & (values >= 0) & (values <= 255)
    if spec.dtype == "uint8" and not whole.all():
        raise DataContractError(f"{name}: expected whole numbers from 0 to 255, found {values[~whole][0]:g}")
    return Sample(name, values.astype(spec.dtype).reshape(spec.shape))


def _number(cell: str) -> float | None:
    """None: it is none, or not finite as float32."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= float(np.finfo(np.float32).max) else None
