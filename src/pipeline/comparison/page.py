"""A comparison as one HTML file that needs no network: verdicts, intervals, the images that changed, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison.statistics import Interval
from pipeline.comparison.subjects import DATA_CARD, Side, digest_of
from pipeline.comparison.verdict import Comparison, accuracy, amount, evidence, headline, points
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.evaluation.html import document, sample, samples, table

MOST_IMAGES = 24  # of each direction
WIDTH, LEFT, RIGHT, ROW = 640, 150, 90, 34  # of the intervals' drawing, px


def page(found: Sequence[Comparison], root: Path) -> str:
    """The whole file. Test images are shown where the project at `root` still has those that were scored."""
    letters = "BCDEFGHIJKLMNOPQRSTUVWXYZ"
    images = _test_images(found[0].a, root)
    sides = [found[0].a, *(comparison.b for comparison in found)]
    rows = [[letter, side.name, side.what, accuracy(side)] for letter, side in zip("A" + letters, sides, strict=False)]
    count = len(found[0].a.members[0].answers.labels)
    parts = [
        f"<h1>Compared on the same {count:,} test samples</h1>",
        table(["", "asked for", "which is", "test accuracy"], rows),
        *(_section(comparison, letter, images) for comparison, letter in zip(found, letters, strict=False)),
        f"<p class='soft'>{_footnote(len(found))}</p>",
    ]
    return document(" and ".join(side.name for side in sides), parts)


def _section(found: Comparison, letter: str, images: NDArray[Any] | None) -> str:
    kind = found.verdict if found.verdict != "no difference seen" else "same"
    rows = [[name, text] for name, text in evidence(found)]
    settings = [[name, a or "–", b or "–"] for name, a, b in found.settings]
    costs = [[name, amount(a), amount(b)] for name, a, b in found.costs]
    return "".join(
        [
            f"<section class='{kind}'><h2>{escape(headline(found, 'A', letter))}</h2>",
            _intervals(found),
            table([], rows),
            "<h3>What differs</h3>" + table(["", "A", letter], settings + costs) if settings + costs else "",
            *_changes(found, letter, images),
            "</section>",
        ]
    )


def _footnote(comparisons: int) -> str:
    corrected = ", corrected by Holm for the comparisons on this page" if comparisons > 1 else ""
    return (
        "Better or worse is said only if other test images would show it, and other seeds too where both sides have "
        f"two or more (p &lt; 0.05{corrected})."
    )


# ---------------------------------------------------------------- intervals


def _intervals(found: Comparison) -> str:
    """Each interval as a bar around its difference, with 0 as a line."""
    shown: list[tuple[str, Interval]] = [("other test images", found.images)]
    if found.seeds:
        shown.append(("other seeds", found.seeds))
    ends = [end for _, interval in shown for end in (interval.low, interval.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = max(high - low, 1e-6)

    def x(value: float) -> float:
        return LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT)

    color = {"better": "var(--better)", "worse": "var(--worse)"}.get(found.verdict, "var(--soft)")
    height = ROW * len(shown) + 26
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' role='img' aria-label='95 % intervals of the difference'>"
    ]
    parts.append(
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='4' y2='{height - 22}' stroke='var(--line)' stroke-width='2'/>"
    )
    parts.append(f"<text x='{x(0):.1f}' y='{height - 6}' text-anchor='middle'>0</text>")
    for row, (name, interval) in enumerate(shown):
        y = ROW * row + ROW // 2 + 4
        bar = f"x1='{x(interval.low):.1f}' x2='{x(interval.high):.1f}' y1='{y}' y2='{y}'"
        parts.append(
            f"<text x='0' y='{y + 4}'>{name}</text><line {bar} stroke='{color}' stroke-width='4'/>"
            f"<circle cx='{x(interval.difference):.1f}' cy='{y}' r='6' fill='{color}'/>"
            f"<text x='{WIDTH}' y='{y + 4}' text-anchor='end'>{points(interval.difference)} points</text>"
        )
    return "".join(parts) + "</svg>"


# ---------------------------------------------------------------- images


def _test_images(side: Side, root: Path) -> NDArray[Any] | None:
    """The samples that were scored, if they are pictures and still here."""
    if not (root / DATA_CARD).exists():
        return None
    card = DataCard.read(root / DATA_CARD)
    if "test" not in card.splits or digest_of(card.splits["test"]) != side.members[0].answers.test_set:
        return None
    images = load_split((root / DATA_CARD).parent, "test").images
    return images if images.ndim > 2 else None


def _changes(found: Comparison, letter: str, images: NDArray[Any] | None) -> Iterator[str]:
    for name, indices in ((letter, found.changed("right")), ("A", found.changed("wrong"))):
        yield f"<h3>Right in {name} only: {len(indices):,}</h3>"
        if images is None:
            yield f"<p class='soft'>{', '.join(map(str, indices[:100]))}</p>"
            continue
        yield samples(_figure(found, index, images) for index in indices[:MOST_IMAGES])
        if len(indices) > MOST_IMAGES:
            yield f"<p class='soft'>and {len(indices) - MOST_IMAGES:,} more: their indices are in comparison.json</p>"


def _figure(found: Comparison, index: int, images: NDArray[Any]) -> str:
    answers = found.a.members[0].answers
    said = [answers.classes[_majority(side, index)] for side in (found.a, found.b)]
    true = answers.classes[int(answers.labels[index])]
    return sample(images[index], index, true, f"{said[0]} → {said[1]}")


def _majority(side: Side, index: int) -> int:
    votes = [int(member.answers.log_probabilities[index].argmax()) for member in side.members]
    return int(np.bincount(votes).argmax())
