"""The splits: which sample goes where, the arrays that hold them, and what is counted while they are written.

Samples pass through memory a chunk at a time, so memory does not grow with them, only with their labels.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PreprocessData
from pipeline.data.card import Duplicates, Scaling, SplitFacts
from pipeline.data.source import CHUNK_BYTES, Array, Labels, Source
from pipeline.system.errors import DataContractError, PipelineError
from pipeline.system.files import sha256_of

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)  # positions in SPLITS
Assignment = dict[str, NDArray[np.int8]]  # part of the source -> (N,) positions in SPLITS
Fingerprints = NDArray[np.uint64]


# ---------------------------------------------------------------- which sample goes where


def assign_splits(source: Source, cfg: PreprocessData) -> Assignment:
    """Say for each sample to which split it goes. Decided by labels, fractions and cfg.split_seed alone.

    Where the data has a test set that is the test split; else it is held out first, and validation from the rest.

    Raises:
        DataContractError: too few samples of a class, or a test set is neither there nor asked for.
    """
    part = "all" if "all" in source.parts else "train"
    labels = source.parts[part].labels
    split_N = np.full(len(labels), TRAIN, dtype=np.int8)
    rng = np.random.default_rng(cfg.split_seed)
    fractions = {TEST: cfg.test_fraction if part == "all" else 0, VALIDATION: cfg.validation_fraction}
    if part == "all" and not cfg.test_fraction:
        raise DataContractError("the data has no test set: give data.test_fraction=0.2 to hold one out.")
    for split, fraction in fractions.items():
        if fraction:
            rest = np.flatnonzero(split_N == TRAIN)
            mask = holdout_mask(labels[rest], source.classes, fraction, rng, SPLITS[split])
            split_N[rest[mask]] = split
    _check_every_class(labels[split_N == TRAIN], source.classes)
    if part == "all":
        return {"all": split_N}
    return {"train": split_N, "test": np.full(len(source.parts["test"].labels), TEST, dtype=np.int8)}


def _check_every_class(train_labels: Labels, classes: tuple[str, ...]) -> None:
    counts = np.bincount(train_labels, minlength=len(classes))
    lacking = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if lacking:
        raise DataContractError(
            f"expected samples of each of the {len(classes)} classes to train on, found none of "
            f"{', '.join(map(repr, lacking))}. Give some, or leave the class out of data.classes."
        )


def holdout_mask(
    labels: Labels, classes: tuple[str, ...], fraction: float, rng: np.random.Generator, split: str
) -> NDArray[np.bool_]:
    """Mark round(fraction * N) of N samples, each class by its share. Returns (N,).

    split: the name of what is held out, for messages.

    Raises:
        DataContractError: so few samples that nothing would be held out, or nothing of a class would be left.
    """
    total = round(fraction * len(labels))
    if total == 0:
        raise DataContractError(
            f"data.{split}_fraction={fraction} of {len(labels):,} samples is not one sample: "
            f"give a larger data.{split}_fraction or more data."
        )
    counts = np.bincount(labels, minlength=len(classes))
    taken = apportion(counts, total)
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label, name in enumerate(classes):
        if taken[label] >= counts[label]:
            raise DataContractError(
                f"class {name!r}: expected samples left to train on after data.{split}_fraction={fraction}, but it has "
                f"{counts[label]} and {taken[label]} would go to {split}. Give more of it or a smaller fraction."
            )
        mask[rng.permutation(np.flatnonzero(labels == label))[: taken[label]]] = True
    return mask


def apportion(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """How many of ``total`` fall to each class, by largest remainder, in integers so that no rounding can tip it.

    counts: (C,) samples per class; total: at most their sum. Returns (C,), summing to total. Among equal remainders
    the first class wins.
    """
    whole, remainder = np.divmod(counts * total, counts.sum())
    missing = total - whole.sum()
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return np.asarray(whole, dtype=np.int64)


# ---------------------------------------------------------------- the arrays


def require_room(out: Path, source: Source, assignment: Assignment, copies: int) -> None:
    """Look whether all that will be written fits on the disk of ``out``, before hours are spent on it.

    copies: how many times the training split is written beside itself.

    Raises:
        PipelineError: it does not; the message has the bytes needed and found, and where.
    """
    sample_bytes = int(np.prod(source.shape)) * np.dtype(source.dtype).itemsize + np.dtype(np.int64).itemsize
    total = sum(len(split_N) for split_N in assignment.values())
    num_train = sum(int((split_N == TRAIN).sum()) for split_N in assignment.values())
    needed = (total + copies * num_train) * sample_bytes
    disk = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        fitting = (free // sample_bytes - total) // num_train
        less = f", or take fewer copies: expand.copies={fitting}" if copies and fitting > 0 else ""
        raise PipelineError(
            f"{out}: expected room for {total + copies * num_train:,} samples, {needed / 1e6:,.0f} MB, "
            f"found {free / 1e6:,.0f} MB free in {disk}. Nothing was written. Make room there{less}."
        )


def write_splits(out: Path, source: Source, assignment: Assignment) -> tuple[dict[str, SplitFacts], Duplicates]:
    """Write every sample to the split that ``assignment`` gives it, in the order of the source.

    Writes  out/{train,validation,test}/{images,labels}.npy    for each split that has samples
    """
    with ExitStack() as stack:
        writers = {}
        for index, split in enumerate(SPLITS):
            labels = np.concatenate(
                [source.parts[part].labels[split_N == index] for part, split_N in assignment.items()]
            )
            if len(labels):
                (out / split).mkdir(parents=True)
                file = stack.enter_context(open(out / split / "images.npy", "wb"))
                write_header(file, (len(labels), *source.shape), np.dtype(source.dtype))
                np.save(out / split / "labels.npy", labels)
                writers[index] = SplitWriter(out / split, file, labels, source.classes)
        for part, split_N in assignment.items():
            start = 0
            for chunk in source.parts[part].chunks():
                split_n = split_N[start : start + len(chunk)]
                for index, writer in writers.items():
                    writer.append(chunk[split_n == index])
                start += len(chunk)
            assert start == len(split_N), f"{part}: {start} samples for {len(split_N)} labels"
    facts = {SPLITS[index]: writer.facts() for index, writer in writers.items()}
    return facts, _duplicates({SPLITS[index]: writer.fingerprints() for index, writer in writers.items()})


@dataclass
class SplitWriter:
    """The images of one split, written a few at a time, and what is counted of them on the way.

    The file grows by plain writes, not through a memory map: on a full disk a write is an error, a map kills the
    process.
    """

    folder: Path
    file: IO[bytes]  # images.npy, open after its header
    labels: Labels  # (N,), of the whole split
    classes: tuple[str, ...]
    _fingerprints: list[Fingerprints] = field(default_factory=list)
    _blank_images: int = 0

    def append(self, samples: Array) -> None:
        """Write some samples (n, *shape), in the order of the labels; n may be 0."""
        if not len(samples):
            return
        flat = np.ascontiguousarray(samples).reshape(len(samples), -1)
        self.file.write(flat.data)
        self._fingerprints.append(_fingerprints(flat))
        if flat.dtype == np.uint8 and flat.shape[1] > 1:
            self._blank_images += int((flat == flat[:, :1]).all(axis=1).sum())

    def fingerprints(self) -> Fingerprints:
        """(N,)."""
        return np.concatenate(self._fingerprints)

    def facts(self) -> SplitFacts:
        """What the split holds, once it is written."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return SplitFacts(
            count=len(self.labels),
            counts_per_class=dict(zip(self.classes, counts.tolist(), strict=True)),
            images_sha256=sha256_of(self.folder / "images.npy"),
            labels_sha256=sha256_of(self.folder / "labels.npy"),
            blank_images=self._blank_images,
            label_range=[int(self.labels.min()), int(self.labels.max())],
        )


def _fingerprints(flat: Array) -> Fingerprints:
    """64 bits of BLAKE2b for each row (n, values): among a million samples a chance of 3e-8 for a false duplicate."""
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in flat), dtype=np.uint64)


def write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """The beginning of a .npy file. It is as long for any number of samples."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _duplicates(fingerprints: dict[str, Fingerprints]) -> Duplicates:
    within = {split: len(prints) - len(np.unique(prints)) for split, prints in fingerprints.items()}
    splits = list(fingerprints)
    across = {
        f"{first}/{second}": int(np.isin(fingerprints[second], fingerprints[first]).sum())
        for index, first in enumerate(splits)
        for second in splits[index + 1 :]
    }
    return Duplicates(within=within, across=across)


# ---------------------------------------------------------------- scaling: (x - offset) / scale


def scaling_of(images: Path) -> Scaling:
    """Pixels go to 0..1; features of a table to mean 0 and sd 1 over the training rows.

    images: train/images.npy. uint8 counts as pixels if it is an image, or a table whose largest value is 255.
    A feature that never changes gets scale 1 and becomes 0.
    """
    train = np.load(images, mmap_mode="r", allow_pickle=False)
    chunk_len = max(1, CHUNK_BYTES // (8 * int(np.prod(train.shape[1:]))))
    chunks = [train[start : start + chunk_len] for start in range(0, len(train), chunk_len)]  # maps, not copies
    if train.dtype == np.uint8 and (train.ndim > 2 or max(chunk.max() for chunk in chunks) == 255):
        return Scaling(offset=0.0, scale=255.0)
    return _standardising(chunks, len(train))


def _standardising(chunks: list[Array], count: int) -> Scaling:
    """Mean and population sd of each feature, in float64 and two passes.

    Nine digits are kept, more than float32 holds: sums differ in the last bits from one CPU to another.
    """
    mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks) / count
    variance = sum(np.square(chunk - mean).sum(axis=0) for chunk in chunks) / count
    low, high = (extreme([extreme(chunk, axis=0) for chunk in chunks], axis=0) for extreme in (np.min, np.max))
    scale = np.where(low == high, 1.0, np.sqrt(variance))
    offset = np.where(low == high, low, mean)
    return Scaling(offset=_nine_digits(offset), scale=_nine_digits(scale))


def _nine_digits(values: Array) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
