"""What is odd about a data set and may be meant so: reported, never a reason to stop."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.card import Duplicates, SplitFacts

SMALL_SHARE = 0.01  # of a split; below it a class is hardly learnt, or its accuracy hardly known


def suspicions(splits: dict[str, SplitFacts], duplicates: Duplicates) -> list[str]:
    """One sentence for each."""
    return [*_blank(splits), *_repeated(splits, duplicates), *_small_classes(splits)]


def _blank(splits: dict[str, SplitFacts]) -> Iterator[str]:
    for split, facts in splits.items():
        if facts["blank_images"]:
            yield f"{split}: {facts['blank_images']:,} of {facts['count']:,} images are blank (one single value)"


def _repeated(splits: dict[str, SplitFacts], duplicates: Duplicates) -> Iterator[str]:
    for pair, count in duplicates["across"].items():
        if count:
            first, second = pair.split("/")
            yield f"{second}: {count:,} of {splits[second]['count']:,} samples occur in {first} too"


def _small_classes(splits: dict[str, SplitFacts]) -> Iterator[str]:
    for split, facts in splits.items():
        for name, count in facts["counts_per_class"].items():
            if count < SMALL_SHARE * facts["count"]:
                yield f"{split}: class {name!r} has {count:,} of {facts['count']:,} samples"
