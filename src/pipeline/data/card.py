"""The data card: what preprocess found, for people and for the later stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from pipeline.system.errors import DataContractError
from pipeline.system.files import read_json, write_json


class Scaling(TypedDict):
    """Input of the network = (x - offset) / scale; a number, or one for each feature of a table."""

    offset: float | list[float]
    scale: float | list[float]


class SplitFacts(TypedDict):
    """What one split holds."""

    count: int
    counts_per_class: dict[str, int]
    images_sha256: str  # of images.npy
    labels_sha256: str  # of labels.npy
    blank_images: int  # of one single value; counted where values are uint8, among copies not
    label_range: list[int]  # smallest and largest label


class Duplicates(TypedDict):
    """Samples equal in every value, whatever their labels. Deformed copies are not looked at."""

    within: dict[str, int]  # split -> samples that repeat an earlier one of the split
    across: dict[str, int]  # "train/test" -> samples of test that occur in train


class Expansion(TypedDict):
    """How the training split grew. Its first `originals` images are what it was; then copy 1 of each, copy 2, …"""

    originals: int
    factor: int  # images now / originals


@dataclass(frozen=True)
class DataCard:
    """The content of data_card.json. The same bytes for the same data and configuration."""

    name: str
    kind: str  # data.kind that download was given
    classes: list[str]  # names in the order of the labels 0..C-1
    image_shape: list[int]  # of one sample: [H, W], [H, W, 3] or [F]
    dtype: Literal["uint8", "float32"]
    scaling: Scaling
    features: list[str] | None  # of a table
    splits: dict[str, SplitFacts]
    expansion: Expansion | None  # of the training split, by the settings in made_with
    duplicates: Duplicates
    made_with: dict[str, Any]  # the configuration of preprocess
    suspicions: list[str]  # odd, but not against the contract

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> DataCard:
        """Read it back.

        Raises:
            DataContractError: preprocess has not run, or the file is damaged.
        """
        if not path.exists():
            raise DataContractError(f"{path} is missing: nothing was preprocessed yet. Run: dvc repro preprocess")
        try:
            return cls(**read_json(path))
        except (ValueError, TypeError) as error:
            expected = ", ".join(field.name for field in fields(cls))
            raise DataContractError(
                f"{path} is damaged ({error}): expected JSON with {expected}. Run: dvc repro -f preprocess"
            ) from error


# ---------------------------------------------------------------- what is odd, and no reason to stop


SMALL_SHARE = 0.01  # of a split; below it a class is hardly learnt, or its accuracy hardly known


def suspicions(splits: dict[str, SplitFacts], duplicates: Duplicates) -> list[str]:
    """One sentence for each: blank images, samples of one split in another, small classes."""
    blank, small = [], []
    for split, facts in splits.items():
        total = f"{facts['count']:,}"
        if facts["blank_images"]:
            blank.append(f"{split}: {facts['blank_images']:,} of {total} images are blank (one single value)")
        for name, count in facts["counts_per_class"].items():
            if count < SMALL_SHARE * facts["count"]:
                small.append(f"{split}: class {name!r} has {count:,} of {total} samples")
    repeated = []
    for pair, count in duplicates["across"].items():
        first, second = pair.split("/")
        if count:
            repeated.append(f"{second}: {count:,} of {splits[second]['count']:,} samples occur in {first} too")
    return blank + repeated + small
