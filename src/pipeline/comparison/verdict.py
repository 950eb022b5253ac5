"""Two subjects on the same test images, and what may be said of their difference."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.comparison.statistics import (
    MAX_SEEDS,
    SIGNIFICANT,
    Interval,
    OverSeeds,
    holm_corrected,
    over_images,
    over_seeds,
)
from pipeline.comparison.subjects import Subject
from pipeline.evaluation.scores import wilson_interval
from pipeline.system.errors import PipelineError

Verdict = Literal["better", "worse", "no difference seen"]
NOT_SETTINGS = ("tracking.", "sweep.", "evaluate.", "hydra.")  # where a run is filed, and how it is shown
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_INDICES = 8  # that are printed
COST = {"num_weights": "weights", "fit_s": "training, s", "samples_per_s": "training, samples/s"}


@dataclass(frozen=True)
class Comparison:
    """B against A."""

    a: Subject
    b: Subject
    images: Interval
    seeds: OverSeeds | None  # None: one of the two has one seed
    p: float  # the larger one, corrected for the number of comparisons made at once

    @property
    def difference(self) -> float:
        return self.images.difference

    @property
    def verdict(self) -> Verdict:
        """Better only if other seeds and other test samples would both say so."""
        if self.p >= SIGNIFICANT or self.difference == 0:
            return "no difference seen"
        return "better" if self.difference > 0 else "worse"

    @property
    def identical(self) -> bool:
        """Whether both gave the same answers with the same confidence, as one and the same network does."""
        a, b = (
            np.stack([member.answers.log_probabilities for member in subject.members]) for subject in (self.a, self.b)
        )
        return np.array_equal(a, b)

    @property
    def right_in_b_only(self) -> list[int]:
        """Indices of the test samples that B got right and A did not, by most of the seeds."""
        return _gains(self.a, self.b)

    @property
    def right_in_a_only(self) -> list[int]:
        """The other way."""
        return _gains(self.b, self.a)

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """(name, A's, B's) where they differ, without the seed; "" where one has none."""
        a, b = self.a.settings, self.b.settings
        names = sorted(name for name in a.keys() | b.keys() if not name.startswith(NOT_SETTINGS))
        return [(name, a.get(name, ""), b.get(name, "")) for name in names if a.get(name) != b.get(name)]

    @property
    def costs(self) -> list[tuple[str, float, float]]:
        """(name, A's, B's) of what both have measured: size and speed, the mean over seeds."""
        costs = []
        for key, name in COST.items():
            a, b = ([m.metrics[key] for m in subject.members if key in m.metrics] for subject in (self.a, self.b))
            if a and b:
                costs.append((name, statistics.mean(a), statistics.mean(b)))
        return costs


def _gains(before: Subject, after: Subject) -> list[int]:
    """Indices of the samples that are right more often after than before, by over half of the networks; most first."""
    gains_N = after.right.mean(0) - before.right.mean(0)
    order = np.argsort(-gains_N, kind="stable")
    return [int(index) for index in order[gains_N[order] > 0.5]]


def compare(baseline: Subject, others: Sequence[Subject]) -> list[Comparison]:
    """Each of the others against the baseline.

    Raises:
        PipelineError: they were not scored on the same test samples.
    """
    for other in others:
        _require_same_test_set(baseline, other)
    pairs = [(over_images(baseline.right, other.right), _over_seeds(baseline, other)) for other in others]
    larger = [max(images.p, seeds.p if seeds else 0.0) for images, seeds in pairs]
    return [
        Comparison(baseline, other, images, seeds, p)
        for other, (images, seeds), p in zip(others, pairs, holm_corrected(larger), strict=True)
    ]


def _require_same_test_set(a: Subject, b: Subject) -> None:
    first = a.members[0].answers
    for subject in (a, b):
        for answers in (member.answers for member in subject.members):
            if (answers.test_set, answers.classes) != (first.test_set, first.classes):
                raise PipelineError(
                    f"{a.name} and {subject.name} were scored on different test data: {_test_set_of(a)}; "
                    f"{_test_set_of(subject)}. A difference in accuracy would be one of the data. Score both on the "
                    "same: pipeline evaluate evaluate.model_folder=…, or train both with the same data=… settings"
                )


def _test_set_of(subject: Subject) -> str:
    answers = subject.members[0].answers
    return f"{subject.name} on {len(answers.labels):,} samples of {len(answers.classes)} classes ({answers.test_set})"


def _over_seeds(a: Subject, b: Subject) -> OverSeeds | None:
    if min(len(a.members), len(b.members)) < 2:
        return None
    return over_seeds(a.accuracies, b.accuracies, *([member.seed for member in subject.members] for subject in (a, b)))


# ---------------------------------------------------------------- for programs


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    verdict = comparison.verdict
    return {
        "a": _subject_json(comparison.a),
        "b": _subject_json(comparison.b),
        "verdict": f"b is {verdict}" if verdict != "no difference seen" else verdict,
        "difference": comparison.difference,
        "p": comparison.p,
        "over_images": asdict(comparison.images),
        "over_seeds": asdict(comparison.seeds) if comparison.seeds else None,
        "right_in_b_only": comparison.right_in_b_only,
        "right_in_a_only": comparison.right_in_a_only,
        "settings": [{"name": name, "a": a, "b": b} for name, a, b in comparison.settings],
        "costs": [{"name": name, "a": a, "b": b} for name, a, b in comparison.costs],
    }


def _subject_json(subject: Subject) -> dict[str, Any]:
    answers = subject.members[0].answers
    return {
        "name": subject.name,
        "what": subject.what,
        "run_ids": [member.run_id for member in subject.members],
        "seeds": [member.params.get("seed") for member in subject.members],
        "accuracies": subject.accuracies,
        "intervals": [wilson_interval(int(right.sum()), right.size) for right in subject.right],
        "test_set": answers.test_set,
        "test_samples": len(answers.labels),
    }


# ---------------------------------------------------------------- for people


def subjects_by_letter(comparisons: Sequence[Comparison]) -> list[tuple[str, Subject]]:
    """A is what all others are compared with."""
    return list(zip(LETTERS, [comparisons[0].a, *(comparison.b for comparison in comparisons)], strict=False))


def verdict_line(comparison: Comparison, a: str = "A", b: str = "B") -> str:
    size, p = points(comparison.difference), p_text(comparison.p)
    if comparison.verdict == "no difference seen":
        return f"No difference seen between {a} and {b} ({size} points, {p})"
    return f"{b} is {comparison.verdict} than {a} by {abs(comparison.difference) * 100:.2f} points ({p})"


def points(fraction: float) -> str:
    """Of percent, with a sign."""
    return f"{fraction * 100:+.2f}" if round(fraction * 100, 2) else "0.00"


def p_text(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def evidence(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """(question, answer)."""
    yield "other test images", _interval_text(comparison.images)
    if comparison.seeds:
        yield "other seeds", _interval_text(comparison.seeds)
    if note := caveat(comparison):
        yield "but", note


def _interval_text(interval: Interval) -> str:
    """`+1.23 points, 95 % interval +0.95 to +1.51, p = 0.02`."""
    bounds = f"95 % interval {points(interval.low)} to {points(interval.high)}"
    return f"{points(interval.difference)} points, {bounds}, {p_text(interval.p)} ({interval.test})"


def caveat(comparison: Comparison) -> str:
    """What the numbers do not say, and how to find out."""
    counts = len(comparison.a.members), len(comparison.b.members)
    if min(counts) == 1:
        if comparison.identical:
            return "both give the same probabilities for every image"
        if not comparison.settings and counts == (1, 1):
            return "the settings are the same; the two differ in the seed, the data or the code"
        return (
            "a side with one seed says which network is better, not which settings are: "
            "pipeline train -m … sweep.seeds=5"
        )
    if comparison.verdict == "no difference seen" and comparison.seeds and comparison.difference:
        needed = comparison.seeds.seeds_needed
        many = f"{needed:,}" if needed else f"more than {MAX_SEEDS:,}"
        size = f"{abs(comparison.difference) * 100:.2f} points"
        return f"to see a difference of {size} 4 times in 5: {many} seeds a side"
    return ""


def differences(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(name, A's, B's) of the settings and costs that differ."""
    settings = [(name, a or "–", b or "–") for name, a, b in comparison.settings]
    return settings + [(name, _amount(a), _amount(b)) for name, a, b in comparison.costs]


def accuracy_text(subject: Subject) -> str:
    """`97.85 %` of one network, `97.85 % ± 0.06 (sd, n = 5)` of several."""
    accuracies = subject.accuracies
    mean = f"{statistics.mean(accuracies):.2%}"
    if len(accuracies) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(accuracies) * 100:.2f} (sd, n = {len(accuracies)})"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_text(console: Console, comparisons: Sequence[Comparison]) -> None:
    """What was compared, then each comparison: the verdict, why, and what differs."""
    subjects = subjects_by_letter(comparisons)
    for letter, subject in subjects:
        text = f"{letter}  {accuracy_text(subject):<28} {subject.what}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for (letter, _), comparison in zip(subjects[1:], comparisons, strict=True):
        line = f"\n{verdict_line(comparison, 'A', letter)}"
        console.print(line, style="bold", highlight=False, soft_wrap=True)
        for question, answer in evidence(comparison):
            console.print(f"  {question:<18} {answer}", highlight=False, markup=False, soft_wrap=True)
        _print_details(console, comparison, letter)


def _print_details(console: Console, comparison: Comparison, letter: str) -> None:
    for name, indices in ((letter, comparison.right_in_b_only), ("A", comparison.right_in_a_only)):
        first = ", ".join(map(str, indices[:MAX_INDICES])) + (", …" if len(indices) > MAX_INDICES else "")
        images = f": test images {first}" if indices else ""
        console.print(f"  right in {name} only    {len(indices):,}{images}", highlight=False, soft_wrap=True)
    if rows := differences(comparison):
        table = Table("", "A", letter, box=None, pad_edge=False, header_style="")
        for name, a, b in rows:
            table.add_row(f"  {name}", a, b)
        console.print(table)
