"""What preprocess left, as the later stages read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.system.errors import DataContractError

REPAIR = "Run: dvc repro -f preprocess"


@dataclass(frozen=True)
class Split:
    """One split, memory-mapped and read-only."""

    images: np.memmap[Any, Any]  # uint8 (N, H, W), (N, H, W, 3) or (N, F); float32 (N, F)
    labels: np.memmap[Any, np.dtype[np.int64]]  # (N,), 0..C-1


def split_exists(processed: Path, split: str) -> bool:
    """Whether the split was made; data.validation_fraction=0 makes no "validation"."""
    return (processed / split / "images.npy").exists()


def load_split(processed: Path, split: str) -> Split:
    """Open processed/split/{images,labels}.npy.

    Raises:
        DataContractError: preprocess has not run, or made no such split, or a file is damaged.
    """
    if not processed.exists():
        raise DataContractError(f"{processed} is missing: nothing was preprocessed yet. Run: dvc repro preprocess")
    if not split_exists(processed, split):
        raise DataContractError(f"{processed} has no split {split!r}: found {_splits(processed)}.")
    images, labels = (_open(processed / split / file) for file in ("images.npy", "labels.npy"))
    if len(images) != len(labels):
        raise DataContractError(
            f"{processed / split}: expected as many labels as images, "
            f"found {len(labels):,} and {len(images):,}. {REPAIR}"
        )
    return Split(images, labels)


def _splits(processed: Path) -> str:
    return ", ".join(sorted(folder.parent.name for folder in processed.glob("*/images.npy"))) or "none"


def _open(path: Path) -> np.memmap[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataContractError(f"{path} cannot be read ({error}): expected a whole .npy file. {REPAIR}") from error
    assert isinstance(array, np.memmap)
    return array
