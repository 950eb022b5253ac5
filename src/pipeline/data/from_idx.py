"""Four IDX files as a source of images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessData
from pipeline.data.idx import open_idx
from pipeline.data.source import CHUNK_BYTES, Labels, Part, RawNote, Source
from pipeline.errors import DataContractError

Images = NDArray[np.uint8]


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
