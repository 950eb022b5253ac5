"""Two sides on the same test images, and what may be said of their difference."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison.statistics import (
    MOST_SEEDS,
    SIGNIFICANT,
    Interval,
    OverSeeds,
    corrected,
    over_images,
    over_seeds,
)
from pipeline.comparison.subjects import Side
from pipeline.evaluation.scores import wilson_interval
from pipeline.system.errors import PipelineError

Verdict = Literal["better", "worse", "no difference seen"]
NOT_SETTINGS = ("tracking.", "sweep.", "evaluate.", "hydra.")  # where a run is filed, and how it is shown
COST = {"num_weights": "weights", "fit_s": "training, s", "samples_per_s": "training, samples/s"}


@dataclass(frozen=True)
class Comparison:
    """B against A."""

    a: Side
    b: Side
    images: Interval
    seeds: OverSeeds | None  # None: a side has one seed
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
        answers = [[member.answers.log_probabilities for member in side.members] for side in (self.a, self.b)]
        return np.array_equal(np.stack(answers[0]), np.stack(answers[1]))

    @property
    def gains(self) -> NDArray[np.float64]:
        """(N,) share of B's networks that got a sample right, less that of A's: -1 to 1."""
        return np.asarray(self.b.right.mean(0) - self.a.right.mean(0))

    def changed(self, to: Literal["right", "wrong"]) -> list[int]:
        """Indices of the test samples that B got right and A did not, or the other way; by most of the seeds."""
        gains = self.gains if to == "right" else -self.gains
        order = np.argsort(-gains, kind="stable")
        return [int(index) for index in order[gains[order] > 0.5]]

    @property
    def settings(self) -> list[tuple[str, str, str]]:
        """(name, A's, B's) where they differ, without the seed; "" where one has none."""
        a, b = self.a.settings, self.b.settings
        names = sorted(name for name in a.keys() | b.keys() if not name.startswith(NOT_SETTINGS))
        return [(name, a.get(name, ""), b.get(name, "")) for name in names if a.get(name) != b.get(name)]

    @property
    def costs(self) -> list[tuple[str, float, float]]:
        """(name, A's, B's) of what both have measured: size and speed, the mean over seeds."""
        found = []
        for key, name in COST.items():
            values = [[m.metrics[key] for m in side.members if key in m.metrics] for side in (self.a, self.b)]
            if all(values):
                found.append((name, statistics.mean(values[0]), statistics.mean(values[1])))
        return found


def compare(baseline: Side, others: Sequence[Side]) -> list[Comparison]:
    """Each of the others against the baseline.

    Raises:
        PipelineError: they were not scored on the same test samples.
    """
    for other in others:
        require_same_test(baseline, other)
    pairs = [(over_images(baseline.right, other.right), _over_seeds(baseline, other)) for other in others]
    larger = [max(images.p, seeds.p if seeds else 0.0) for images, seeds in pairs]
    return [
        Comparison(baseline, other, images, seeds, p)
        for other, (images, seeds), p in zip(others, pairs, corrected(larger), strict=True)
    ]


def require_same_test(a: Side, b: Side) -> None:
    first = a.members[0].answers
    for side in (a, b):
        for answers in (member.answers for member in side.members):
            if (answers.test_set, answers.classes) != (first.test_set, first.classes):
                raise PipelineError(
                    f"{a.name} and {side.name} were scored on different test data: {_test_of(a)}; {_test_of(side)}. "
                    "A difference in accuracy would be one of the data. Score both on the same: "
                    "pipeline evaluate evaluate.model_folder=…, or train both with the same data=… settings"
                )


def _test_of(side: Side) -> str:
    answers = side.members[0].answers
    return f"{side.name} on {len(answers.labels):,} samples of {len(answers.classes)} classes ({answers.test_set})"


def _over_seeds(a: Side, b: Side) -> OverSeeds | None:
    if min(len(a.members), len(b.members)) < 2:
        return None
    seeds = [[member.seed for member in side.members] for side in (a, b)]
    return over_seeds(a.accuracies, b.accuracies, *seeds)


# ---------------------------------------------------------------- for programs


def as_json(found: Comparison) -> dict[str, Any]:
    return {
        "a": _side_json(found.a),
        "b": _side_json(found.b),
        "verdict": f"b is {found.verdict}" if found.verdict != "no difference seen" else found.verdict,
        "difference": found.difference,
        "p": found.p,
        "over_images": asdict(found.images),
        "over_seeds": asdict(found.seeds) if found.seeds else None,
        "right_in_b_only": found.changed("right"),
        "right_in_a_only": found.changed("wrong"),
        "settings": [{"name": name, "a": a, "b": b} for name, a, b in found.settings],
        "costs": [{"name": name, "a": a, "b": b} for name, a, b in found.costs],
    }


def _side_json(side: Side) -> dict[str, Any]:
    answers = side.members[0].answers
    return {
        "name": side.name,
        "what": side.what,
        "run_ids": [member.run_id for member in side.members],
        "seeds": [member.params.get("seed") for member in side.members],
        "accuracies": side.accuracies,
        "intervals": [wilson_interval(int(right.sum()), right.size) for right in side.right],
        "test_set": answers.test_set,
        "test_samples": len(answers.labels),
    }


# ---------------------------------------------------------------- a comparison in words


def headline(found: Comparison, a: str = "A", b: str = "B") -> str:
    size = f"{abs(found.difference) * 100:.2f} points"
    if found.verdict == "no difference seen":
        return f"No difference seen between {a} and {b} ({points(found.difference)} points, {p_words(found.p)})"
    return f"{b} is {found.verdict} than {a} by {size} ({p_words(found.p)})"


def points(fraction: float) -> str:
    """Of percent, with a sign."""
    return f"{fraction * 100:+.2f}" if round(fraction * 100, 2) else "0.00"


def p_words(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def reach(interval: Interval) -> str:
    """`+1.23 points, 95 % interval +0.95 to +1.51, p = 0.02`."""
    bounds = f"95 % interval {points(interval.low)} to {points(interval.high)}"
    return f"{points(interval.difference)} points, {bounds}, {p_words(interval.p)} ({interval.test})"


def evidence(found: Comparison) -> Iterator[tuple[str, str]]:
    """(question, answer)."""
    yield "other test images", reach(found.images)
    if found.seeds:
        yield "other seeds", reach(found.seeds)
    if note := caveat(found):
        yield "but", note


def caveat(found: Comparison) -> str:
    """What the numbers do not say, and how to find out."""
    counts = len(found.a.members), len(found.b.members)
    if min(counts) == 1:
        if found.identical:
            return "both give the same probabilities for every image"
        if not found.settings and counts == (1, 1):
            return "the settings are the same; the two differ in the seed, the data or the code"
        return (
            "a side with one seed says which network is better, not which settings are: "
            "pipeline train -m … sweep.seeds=5"
        )
    if found.verdict == "no difference seen" and found.seeds and found.difference:
        needed = found.seeds.seeds_needed
        many = f"{needed:,}" if needed else f"more than {MOST_SEEDS:,}"
        return f"to see a difference of {abs(found.difference) * 100:.2f} points 4 times in 5: {many} seeds a side"
    return ""


def accuracy(side: Side) -> str:
    """`97.85 %` of one network, `97.85 % ± 0.06 (sd, n = 5)` of several."""
    found = side.accuracies
    mean = f"{statistics.mean(found):.2%}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found) * 100:.2f} (sd, n = {len(found)})"


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def some(indices: list[int], most: int = 8) -> str:
    shown = ", ".join(map(str, indices[:most]))
    return f"{shown}, …" if len(indices) > most else shown
