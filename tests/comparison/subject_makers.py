"""Subjects made by hand: which samples each seed got right, and what it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.comparison.subjects import Answers, Member, Subject

CLASSES = ["no", "yes"]


def make_subject(
    name: str,
    right: Sequence[Sequence[int]],
    params: Mapping[str, str] | None = None,
    seeds: Sequence[int] | None = None,
    test_set: str = "same",
    metrics: Mapping[str, float] | None = None,
) -> Subject:
    """right: (S, N) of 0 and 1; every sample's class is "yes"."""
    members = []
    for seed, row in zip(seeds or range(len(right)), right, strict=True):
        yes = np.where(np.array(row, dtype=bool), 0.9, 0.1)
        log_probabilities = np.log(np.stack([1 - yes, yes], axis=1)).astype(np.float32)
        labels = np.ones(len(row), dtype=np.int64)
        answers = Answers(log_probabilities, labels, CLASSES, test_set)
        members.append(Member(answers, {"seed": str(seed), **(params or {})}, metrics or {}, f"{name}{seed}"))
    return Subject(name, f"what {name} is", tuple(members), f"{name}0")
