"""How the scores of a sweep are said: in its table, on its run in MLflow, in its figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pipeline.config.overrides import shell_words, short_names
from pipeline.sweeps.report.rows import SEED, Group, Objective, Row, as_number, verdict

TRAIN = "pipeline train"
NOT_FINISHED = {
    "FAILED": "failed",
    "KILLED": "killed",
    "PRUNED": "pruned",
    "RUNNING": "still running",
    "WAITING": "never started",
}


def number_text(metric: str, value: float) -> str:
    """Digits that mean something: 0.9512 for an accuracy, 407,050 for a count, four significant ones for the rest."""
    if not math.isfinite(value):
        return ""
    if metric.endswith("accuracy"):
        return f"{value:.4f}"
    whole = abs(value) >= 1000 or (value.is_integer() and not metric.endswith("loss"))
    return f"{value:,.0f}" if whole and abs(value) < 1e12 else f"{value:#.4g}".rstrip(".")


def score_text(group: Group) -> str:
    """`0.9512 ± 0.0021` over seeds, `0.9512` for a single one."""
    mean = number_text(group.objective.name, group.mean)
    return mean if group.sd is None else f"{mean} ± {f'{group.sd:#.2g}'.rstrip('.')}"


def value_text(value: str) -> str:
    """A swept value to read, not to repeat: a sampled 0.0012345678901234 is 0.001235."""
    number = as_number(value)
    return f"{number:.4g}" if number is not None and len(value) > 7 and not number.is_integer() else value


def label_text(group: Group, keys: Sequence[str]) -> str:
    """`units=64 lr=0.01`; empty if nothing but the seed was swept."""
    names = short_names(keys)
    return " ".join(f"{names[key]}={value_text(group.values[key])}" for key in keys if key in group.values)


def best_text(group: Group, keys: Sequence[str]) -> str:
    """`val/accuracy 0.9512 ± 0.0021 (n = 5) with units=64 lr=0.01`."""
    n = f" (n = {group.n})" if SEED in group.rows[0].values else ""
    label = label_text(group, keys)
    return f"{group.objective.name} {score_text(group)}{n}" + (f" with {label}" if label else "")


def left_out(rows: Sequence[Row], objective: Objective) -> str:
    """The jobs that count for nothing: `2 failed, 1 without a finite val/loss`; empty if there are none."""
    counts = Counter(row.status for row in rows)
    said = [f"{counts[status]} {word}" for status, word in NOT_FINISHED.items() if counts[status]]
    without = sum(row.status == "FINISHED" and row.score(objective) is None for row in rows)
    return ", ".join([*said, f"{without} without a finite {objective.name}"] if without else said)


def first_reason(rows: Sequence[Row]) -> str:
    """`job 7: CUDA out of memory`: the first line of why the first job went wrong; empty if none did."""
    reasons = (f"job {row.number}: {row.reason.strip().splitlines()[0]}" for row in rows if row.reason.strip())
    return next(reasons, "")


def counts_text(rows: Sequence[Row], objective: Objective) -> str:
    """`4 of 6 jobs finished; not ranked: 2 failed (job 3: CUDA out of memory)`."""
    finished = sum(row.status == "FINISHED" for row in rows)
    out, reason = left_out(rows, objective), first_reason(rows)
    said = f"{finished} of {len(rows)} jobs finished" + (f"; not ranked: {out}" if out else "")
    return said + (f" ({reason})" if reason else "")


def command_of(group: Group) -> str:
    """What repeats a configuration with the seeds it has a score for."""
    rows = group.counted
    if len(rows) == 1:
        return f"{TRAIN} {shell_words(rows[0].words)}".rstrip()
    others = [word for word in rows[0].words if word.lstrip("+").partition("=")[0] != SEED]
    seeds = ",".join(row.values[SEED] for row in rows)
    return f"{TRAIN} -m {shell_words([*others, f'{SEED}={seeds}'])}"


def caveats(groups: Sequence[Group], keys: Sequence[str], objectives: Sequence[Objective]) -> list[str]:
    """What to know before the best is believed, a sentence each. `groups` are those with a score, best first."""
    said, name = [], objectives[0].name
    split = {"val": "the validation split", "train": "the training data"}.get(name.partition("/")[0])
    if len(groups) > 1 and split:
        said.append(f"Best of {len(groups)} configurations on {split}: its own score is optimistic.")
    if len(objectives) > 1:
        names = " and ".join(objective.name for objective in objectives)
        num_front = sum(group.on_front for group in groups)
        said.append(f"On the Pareto front of {names} (*): {num_front} of {len(groups)}, none beaten in both.")
    elif len(groups) > 1:
        second = groups[1]
        said.append(f"Second: {score_text(second)} with {label_text(second, keys)}.")
        said.append(verdict(groups[0], second))
    if short := sum(not group.complete for group in groups):
        said.append(f"Fewer finished seeds than the others: {short} of {len(groups)} configurations, see n.")
    return said
