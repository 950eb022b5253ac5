"""Arrays of one's own as a source of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from pipeline.data.source import CHUNK_BYTES, Array, Labels, Part, Source, TextLabels, discovered_classes
from pipeline.system.errors import DataContractError

SHAPES = "(N, height, width) or (N, height, width, 3) for images, (N, features) for rows"


def source_from_arrays(parts: Mapping[str, tuple[ArrayLike, ArrayLike]], classes: Sequence[str] | None) -> Source:
    """Check the arrays, find the classes.

    Args:
        parts: "train" and "test", or "all" → samples and labels. Images are uint8, rows any finite numbers; labels are
            whole numbers or text, (N,) or (N, 1).
        classes: names in the order of the labels; None: the labels that occur, in order.

    Raises:
        DataContractError: samples of another shape or type, not finite, not as many as labels; a label that has no
            class.
    """
    arrays = {part: _samples(samples, part) for part, (samples, _) in parts.items()}
    shapes = {array.shape[1:] for array in arrays.values()}
    if len(shapes) > 1:
        raise DataContractError(f"expected samples of one shape to train on and to test with, found {shapes}")
    texts = {part: _texts(labels, part, len(arrays[part]), classes) for part, (_, labels) in parts.items()}
    names = tuple(classes or discovered_classes(texts["train" if "train" in texts else "all"]))
    dtype = np.dtype("uint8" if all(array.dtype == np.uint8 for array in arrays.values()) else "float32")
    found = {
        part: Part(
            texts[part].as_classes(names, f"labels of {part}"), partial(_chunks, array.astype(dtype, copy=False))
        )
        for part, array in arrays.items()
    }
    (shape,) = shapes
    features = tuple(map(str, range(shape[0]))) if len(shape) == 1 else None
    return Source(names, shape, "uint8" if dtype == np.uint8 else "float32", features, found)


def _samples(values: ArrayLike, part: str) -> Array:
    array = np.asarray(values)
    if array.ndim not in (2, 3) and not (array.ndim == 4 and array.shape[3] == 3):
        raise DataContractError(f"samples of {part}: expected {SHAPES}, found {array.shape}")
    if not array.size:
        raise DataContractError(f"samples of {part}: expected some, found an array of the shape {array.shape}")
    if array.ndim > 2 and array.dtype != np.uint8:
        raise DataContractError(
            f"images of {part}: expected uint8, 0 to 255, found {array.dtype}. Give them unscaled: scaling is the "
            "network's first step"
        )
    if array.dtype.kind not in "uif":
        raise DataContractError(f"samples of {part}: expected numbers, found {array.dtype}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise DataContractError(f"samples of {part}: expected finite numbers, found {array[row]} at {row}")
    return array


def _texts(values: ArrayLike, part: str, count: int, classes: Sequence[str] | None) -> TextLabels:
    """Labels as the names of their classes: a whole number is a place among the classes where these are given."""
    array: Array = np.asarray(values)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,):
        raise DataContractError(f"labels of {part}: expected one for each of {count:,} samples, found {array.shape}")
    if array.dtype.kind in "ui" and classes is not None:
        return _numbered(array, part, classes)
    if array.dtype.kind not in "uiUO":
        raise DataContractError(f"labels of {part}: expected whole numbers or text, found {array.dtype}")
    found = TextLabels()
    found.add(map(str, array.tolist()))
    return found


def _numbered(labels: Array, part: str, classes: Sequence[str]) -> TextLabels:
    bad: Labels = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(bad):
        raise DataContractError(
            f"labels of {part}: expected 0..{len(classes) - 1} for the {len(classes)} classes, found {labels[bad[0]]} "
            f"at position {bad[0]:,} ({len(bad):,} such labels)"
        )
    found = TextLabels()
    found.add(classes[label] for label in labels.tolist())
    return found


def _chunks(samples: Array) -> Iterator[Array]:
    step = max(1, CHUNK_BYTES // samples[0].nbytes)
    for start in range(0, len(samples), step):
        yield samples[start : start + step]


def samples_like(values: ArrayLike, shape: tuple[int, ...], dtype: str) -> Array:
    """Samples (N, *shape) of a network's own shape and type.

    Args:
        dtype: "uint8", which takes any whole numbers from 0 to 255; "float32", which takes any finite numbers.

    Raises:
        DataContractError: they are not.
    """
    array = np.asarray(values)
    if array.shape[1:] != shape:
        one = ". For one sample give samples[None]" if array.shape == shape else ""
        raise DataContractError(f"expected samples {('N', *shape)}, found an array {array.shape}{one}".replace("'", ""))
    if array.dtype == dtype:
        return array
    if dtype == "uint8" and not (array.dtype.kind in "ui" and array.size and 0 <= array.min() <= array.max() <= 255):
        raise DataContractError(
            f"expected uint8, 0 to 255, as the network was trained on, found {array.dtype}. Give samples unscaled: "
            "scaling is the network's first step"
        )
    if array.dtype.kind not in "uif":
        raise DataContractError(f"expected numbers, found {array.dtype}")
    return array.astype(dtype)
