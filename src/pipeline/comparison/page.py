"""A comparison as one HTML file that needs no network: verdicts, intervals, the images that changed, what differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison.subjects import Subject, digest_of
from pipeline.comparison.verdict import (
    Comparison,
    accuracy_text,
    differences,
    evidence,
    points,
    subjects_by_letter,
    verdict_line,
)
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.evaluation.page import render
from pipeline.runtime.origin import DATA_CARD, PROCESSED

MAX_IMAGES = 24  # of each direction
WIDTH, LEFT, RIGHT, ROW = 640, 150, 90, 34  # of the intervals' drawing, px


def comparison_page(comparisons: Sequence[Comparison], root: Path) -> str:
    """The whole file. Test images are shown where the project at `root` still has those that were scored."""
    baseline, *others = subjects = subjects_by_letter(comparisons)
    letters = [letter for letter, _ in others]
    return render(
        "comparison/page.html.j2",
        subjects=subjects,
        count=len(baseline[1].members[0].answers.labels),
        sections=list(zip(letters, comparisons, map(_chart, comparisons), strict=False)),
        images=_test_images(baseline[1], root),
        max_images=MAX_IMAGES,
        accuracy_text=accuracy_text,
        answers=_answers,
        differences=differences,
        evidence=evidence,
        verdict_line=verdict_line,
    )


def _chart(comparison: Comparison) -> dict[str, Any]:
    """Where the intervals lie in their drawing."""
    intervals = {"other test images": comparison.images}
    if comparison.seeds:
        intervals["other seeds"] = comparison.seeds
    ends = [end for interval in intervals.values() for end in (interval.low, interval.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = max(high - low, 1e-6)

    def x(value: float) -> str:
        return f"{LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT):.1f}"

    bars = [
        {
            "name": name,
            "y": ROW * number + ROW // 2 + 4,
            "low": x(interval.low),
            "high": x(interval.high),
            "middle": x(interval.difference),
            "points": points(interval.difference),
        }
        for number, (name, interval) in enumerate(intervals.items())
    ]
    return {"width": WIDTH, "height": ROW * len(bars) + 26, "zero": x(0), "bars": bars}


def _test_images(subject: Subject, root: Path) -> NDArray[Any] | None:
    """The samples that were scored, if they are pictures and still here."""
    if not (root / DATA_CARD).exists():
        return None
    card = DataCard.read(root / DATA_CARD)
    if "test" not in card.splits or digest_of(card.splits["test"]) != subject.members[0].answers.test_set:
        return None
    images = load_split(root / PROCESSED, "test").images
    return images if images.ndim > 2 else None


def _answers(comparison: Comparison, index: int) -> tuple[str, str, str]:
    """The class of a sample, and what most networks of A and of B take it for."""
    answers = comparison.a.members[0].answers
    classes = [int(answers.labels[index]), _majority(comparison.a, index), _majority(comparison.b, index)]
    true, a, b = (answers.classes[number] for number in classes)
    return true, a, b


def _majority(subject: Subject, index: int) -> int:
    votes = [int(member.answers.log_probabilities[index].argmax()) for member in subject.members]
    return int(np.bincount(votes).argmax())
