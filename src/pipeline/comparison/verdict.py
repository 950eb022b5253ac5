"""Two sides on the same test images, and what may be said of their difference."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison.sides import Side
from pipeline.comparison.statistics import (
    SIGNIFICANT,
    Interval,
    OverSeeds,
    corrected,
    over_images,
    over_seeds,
)
from pipeline.errors import PipelineError
from pipeline.reports.scores import wilson_interval

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
                    "python -m pipeline.evaluate evaluate.model_folder=…, or train both with the same data=… settings"
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
