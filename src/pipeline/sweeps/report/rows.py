"""The jobs of a sweep as rows, and which configuration is best: by its mean over seeds, not by its luckiest seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

SEED = "seed"
SIGNIFICANT = 0.05  # a p-value below it is called a difference


@dataclass(frozen=True)
class Row:
    """One job, whatever became of it."""

    number: int
    label: str  # what differs from the other jobs: units=64 lr=0.01
    values: dict[str, str]  # of the swept keys, as typed on the command line
    status: str  # FINISHED, FAILED, KILLED, RUNNING, PRUNED, or WAITING: it never started
    metrics: dict[str, float]
    run_id: str  # "" without a run
    elapsed_s: float | None
    overrides: tuple[str, ...]  # that repeat it
    reason: str = ""  # why it failed

    @property
    def unique_id(self) -> str:
        """Unlike its number, which a sweep that went on with more values has given twice."""
        return self.run_id or f"number {self.number}"

    def score(self, objective: Objective) -> float | None:
        """What counts: the finite value of a job that finished. A pruned one was compared before its end."""
        value = self.metrics.get(objective.name, math.nan)
        return value if self.status == "FINISHED" and math.isfinite(value) else None


@dataclass(frozen=True)
class Objective:
    """A metric that is searched for, and the direction."""

    name: str
    mode: Literal["min", "max"]

    def cost(self, value: float) -> float:
        """Lower is better."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class Group:
    """A configuration: the jobs that differ in the seed alone, at least one with a score."""

    values: dict[str, str]  # of the swept keys without the seed
    rows: tuple[Row, ...]  # by number, also those that count for nothing
    objective: Objective  # the first one
    num_seeds: int = 1  # finished, in the group that has most
    on_front: bool = False  # not dominated, where there are two objectives

    @cached_property
    def counted(self) -> tuple[Row, ...]:
        """The jobs with a score."""
        return tuple(row for row in self.rows if row.score(self.objective) is not None)

    @property
    def n(self) -> int:
        return len(self.counted)

    @property
    def complete(self) -> bool:
        return self.n == self.num_seeds

    @cached_property
    def scores(self) -> tuple[float, ...]:
        return tuple(row.metrics[self.objective.name] for row in self.counted)

    @property
    def mean(self) -> float:
        return self.mean_of(self.objective.name)

    @cached_property
    def sd(self) -> float | None:
        """Of the seeds, with n - 1; None for fewer than two."""
        return statistics.stdev(self.scores) if self.n > 1 else None

    def mean_of(self, metric: str) -> float:
        """Of any metric over the jobs that count and have it finite; NaN if none does."""
        values = [row.metrics[metric] for row in self.counted if math.isfinite(row.metrics.get(metric, math.nan))]
        return statistics.mean(values) if values else math.nan


def ranked(rows: Iterable[Row], objectives: Sequence[Objective]) -> list[Group]:
    """The configurations with a score, best first; ties by number.

    With one objective they are ranked by its mean over seeds. With two, those that no other dominates come first;
    among them, and after them, the first objective decides. One that lacks seeds which others have comes after the
    others: the seeds that failed may have been the bad ones.
    """
    groups = [group for group in _grouped(rows, objectives[0]) if group.n]
    num_seeds = max((group.n for group in groups), default=0)
    costs = [tuple(objective.cost(group.mean_of(objective.name)) for objective in objectives) for group in groups]
    front = _front(costs) if len(objectives) > 1 else [False] * len(groups)
    groups = [replace(group, num_seeds=num_seeds, on_front=on) for group, on in zip(groups, front, strict=True)]
    return sorted(groups, key=_rank)


def p_value(one: Group, other: Group) -> float | None:
    """That two configurations of equal mean differ this much: Welch's t-test, two-sided.

    None with fewer than two seeds in either, and where no seed makes a difference in both. Not corrected for the choice
    of the two among many.
    """
    if one.sd is None or other.sd is None or one.sd == other.sd == 0:
        return None
    from scipy.stats import ttest_ind_from_stats  # 1 s to import, which a sweep of single seeds does not pay

    test = ttest_ind_from_stats(one.mean, one.sd, one.n, other.mean, other.sd, other.n, equal_var=False)
    return float(test.pvalue)


def verdict(best: Group, second: Group) -> str:
    """Whether the best is better than the second or was lucky, as a sentence."""
    counts = f"n = {best.n} and {second.n}"
    if best.mean == second.mean:
        return f"The two are equal, the lower job number comes first ({counts})."
    if best.n == second.n == 1:
        return "The two have one seed each, so the difference may be chance; sweep.seeds=5 would tell."
    if min(best.n, second.n) < 2:
        return f"Too few seeds to tell the best from the second ({counts})."
    p = p_value(best, second)
    if p is None:
        return f"No seed makes a difference in either, so chance cannot be judged ({counts})."
    relation = "is better than" if p < SIGNIFICANT else "cannot be told apart from"
    return f"The best {relation} the second ({f'p = {p:.2g}' if p >= 1e-4 else 'p < 0.0001'}, {counts})."


def all_keys(rows: Iterable[Row]) -> list[str]:
    """The swept keys, in the order of the command line."""
    return list(dict.fromkeys(key for row in rows for key in row.values))


def swept(rows: Iterable[Row]) -> list[str]:
    """The swept keys without the seed."""
    return [key for key in all_keys(rows) if key != SEED]


def as_number(text: str) -> float | None:
    """A value of the command line as a finite number, or None: 1e-3 is one, null, [64,32] and relu are not."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _grouped(rows: Iterable[Row], objective: Objective) -> list[Group]:
    """By the values without the seed; without a swept seed each job is for itself, also a repeated one."""
    members: dict[object, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        others = tuple(sorted(item for item in row.values.items() if item[0] != SEED))
        members.setdefault(others if SEED in row.values else row.unique_id, []).append(row)
    return [
        Group({k: v for k, v in jobs[0].values.items() if k != SEED}, tuple(jobs), objective)
        for jobs in members.values()
    ]


def _rank(group: Group) -> tuple[bool, bool, float, int]:
    return not group.complete, not group.on_front, group.objective.cost(group.mean), group.rows[0].number


def _front(costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """For each whether none of the others dominates it; one with NaN neither is on the front nor dominates."""

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(map(math.isnan, cost)) and not any(dominates(other, cost) for other in costs) for cost in costs]
