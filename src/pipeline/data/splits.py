"""Which samples are held out: stratified by class, decided by a seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import Labels
from pipeline.system.errors import DataContractError


def shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """How many of ``total`` fall to each class, by largest remainder, in integers so that no rounding can tip it.

    counts: (C,) samples per class; total: at most their sum. Returns (C,), summing to total. Among equal remainders
    the first class wins.
    """
    whole, remainder = np.divmod(counts * total, counts.sum())
    missing = total - whole.sum()
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return np.asarray(whole, dtype=np.int64)


def held_out(
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
    taken = shares(counts, total)
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label, name in enumerate(classes):
        if taken[label] >= counts[label]:
            raise DataContractError(
                f"class {name!r}: expected samples left to train on after data.{split}_fraction={fraction}, but it has "
                f"{counts[label]} and {taken[label]} would go to {split}. Give more of it or a smaller fraction."
            )
        mask[rng.permutation(np.flatnonzero(labels == label))[: taken[label]]] = True
    return mask
