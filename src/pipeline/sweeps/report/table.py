"""A sweep's configurations in words, best first: the table of a terminal, the Markdown note of its run in MLflow."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipeline.config.overrides import shell_words, short_names
from pipeline.sweeps.report.rows import SEED, Group, Objective, Row, as_number, ranked, swept, verdict

TRAIN = "pipeline train"
NOT_FINISHED = {
    "FAILED": "failed",
    "KILLED": "killed",
    "PRUNED": "pruned",
    "RUNNING": "still running",
    "WAITING": "never started",
}
MAX_TABLE_ROWS, MAX_NOTE_ROWS, MAX_RUN_IDS = 15, 5, 3
USUAL_METRICS = ("val/accuracy", "val/loss", "train/loss")


@dataclass(frozen=True)
class Column:
    title: str
    cells: list[str]
    numeric: bool = True
    wraps: bool = False


def print_summary(console: Console, rows: Sequence[Row], objectives: Sequence[Objective]) -> None:
    """The best configurations, what went wrong, and how to repeat the best."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)  # a command stays one line, to be copied

    groups, keys = ranked(rows, objectives), swept(rows)
    if groups:
        console.print(_table(groups, keys, objectives, console))
        if len(groups) > MAX_TABLE_ROWS:
            say(f" … and {len(groups) - MAX_TABLE_ROWS} more in summary.csv", "dim")
    say(counts_text(rows, objectives[0]))
    if not groups:
        return
    best = groups[0]
    say(f"\nbest    {best_text(best, keys)}", "bold")
    ids = [f"{row.run_id or 'not recorded'} (job {row.number})" for row in best.counted]
    more = [f"… and {len(ids) - MAX_RUN_IDS} more in summary.csv"] if len(ids) > MAX_RUN_IDS else []
    say("run     " + "\n        ".join(ids[:MAX_RUN_IDS] + more))
    say(f"repeat  {command_of(best)}\n")
    for sentence in caveats(groups, keys, objectives):
        console.print(Text(sentence))


def _table(groups: Sequence[Group], keys: Sequence[str], objectives: Sequence[Objective], console: Console) -> Table:
    """As many columns as fit: metrics go, the least interesting first, then titles are folded, then keys share one."""
    shown = groups[:MAX_TABLE_ROWS]
    rank, scores, extras = _rank_column(shown, len(objectives)), _scores(shown, objectives), _extras(shown, objectives)
    fewer = [extras[:count] for count in range(len(extras), -1, -1)]
    for folded, some in product((False, True), fewer):
        table = _rich_table([rank, *_key_columns(shown, keys), *scores, *some], folded)
        if _width(table, console) <= console.width:
            return table
    half = console.width // 2
    some = next((some for some in fewer if _width(_rich_table([rank, *scores, *some]), console) <= half), [])
    configuration = Column("configuration", [label_text(group, keys) for group in shown], numeric=False, wraps=True)
    return _rich_table([rank, configuration, *scores, *some])


def _rich_table(columns: Sequence[Column], folded: bool = False) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        title = re.sub(r"(?<=[_./])", "\n", column.title) if folded and len(column.title) > 9 else column.title
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        table.add_column(Text(title), justify=justify, no_wrap=not column.wraps, overflow="fold")
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*map(Text, cells), style="bold green" if number == 0 else "")
    return table


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _rank_column(groups: Sequence[Group], num_objectives: int) -> Column:
    marked = [group.on_front if num_objectives > 1 else number == 0 for number, group in enumerate(groups)]
    return Column("# ", [f"{number + 1}{'*' if mark else ' '}" for number, mark in enumerate(marked)])


def _key_columns(groups: Sequence[Group], keys: Sequence[str]) -> list[Column]:
    columns = []
    for key, name in short_names(keys).items():
        cells = [value_text(group.values.get(key, "")) for group in groups]
        columns.append(Column(name, cells, numeric=all(as_number(cell) is not None for cell in cells if cell)))
    return columns


def _scores(groups: Sequence[Group], objectives: Sequence[Objective]) -> list[Column]:
    first, *others = objectives
    columns = [Column(first.name, [score_text(group) for group in groups])]
    if any(SEED in group.rows[0].values for group in groups):
        cells = [f"{group.n}" if group.complete else f"{group.n}/{group.num_seeds}" for group in groups]
        columns.append(Column("n", cells))
    return columns + [_metric_column(other.name, groups) for other in others]


def _extras(groups: Sequence[Group], objectives: Sequence[Objective]) -> list[Column]:
    """The least interesting last."""
    shown = {objective.name for objective in objectives}
    columns = [_metric_column(name, groups) for name in USUAL_METRICS if name not in shown]
    columns.insert(-1, Column("time", [_time_text(group) for group in groups]))
    return [column for column in columns if any(column.cells)]


def _metric_column(name: str, groups: Sequence[Group]) -> Column:
    return Column(name, [number_text(name, group.mean_of(name)) for group in groups])


def _time_text(group: Group) -> str:
    """Of one job, the mean."""
    times_s = [row.elapsed_s for row in group.counted if row.elapsed_s is not None]
    if not times_s:
        return ""
    seconds = sum(times_s) / len(times_s)
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d}"


def note(rows: Sequence[Row], objectives: Sequence[Objective]) -> str:
    """Markdown for the parent run. MLflow's pages show about three lines of it, so the best comes first."""
    groups, keys = ranked(rows, objectives), swept(rows)
    counts = _escaped(counts_text(rows, objectives[0]))
    if not groups:
        return f"no best yet: {counts}"
    head, _, label = best_text(groups[0], keys).partition(" with ")
    headline = f"best {head}" + (f" with `{label}`" if label else "")
    command = f"```\n{command_of(groups[0])}\n```"
    sentences = _escaped(" ".join(caveats(groups, keys, objectives)))
    return "\n\n".join(
        part for part in (headline, counts, command, sentences, _markdown(groups, keys, objectives)) if part
    )


def _markdown(groups: Sequence[Group], keys: Sequence[str], objectives: Sequence[Objective]) -> str:
    shown = groups[:MAX_NOTE_ROWS]
    columns = [_rank_column(shown, len(objectives)), *_key_columns(shown, keys), *_scores(shown, objectives)]
    lines = [[column.title for column in columns], ["--:" if column.numeric else ":--" for column in columns]]
    lines += [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    return "\n".join("| " + " | ".join(_escaped(cell.strip()) for cell in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """What Markdown or HTML would take for itself stays as it is."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text)


# ---------------------------------------------------------------- texts of table, note and figures


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
    parts = [f"{counts[status]} {text}" for status, text in NOT_FINISHED.items() if counts[status]]
    if without := sum(row.status == "FINISHED" and row.score(objective) is None for row in rows):
        parts.append(f"{without} without a finite {objective.name}")
    return ", ".join(parts)


def counts_text(rows: Sequence[Row], objective: Objective) -> str:
    """`4 of 6 jobs finished; not ranked: 2 failed (job 3: CUDA out of memory)`."""
    finished, out = sum(row.status == "FINISHED" for row in rows), left_out(rows, objective)
    reasons = (f" (job {row.number}: {row.reason.strip().splitlines()[0]})" for row in rows if row.reason.strip())
    return f"{finished} of {len(rows)} jobs finished" + (f"; not ranked: {out}" if out else "") + next(reasons, "")


def command_of(group: Group) -> str:
    """What repeats a configuration with the seeds it has a score for."""
    rows = group.counted
    if len(rows) == 1:
        return f"{TRAIN} {shell_words(rows[0].overrides)}".rstrip()
    others = [override for override in rows[0].overrides if override.lstrip("+").partition("=")[0] != SEED]
    seeds = ",".join(row.values[SEED] for row in rows)
    return f"{TRAIN} -m {shell_words([*others, f'{SEED}={seeds}'])}"


def caveats(groups: Sequence[Group], keys: Sequence[str], objectives: Sequence[Objective]) -> list[str]:
    """What to know before the best is believed, a sentence each."""
    sentences, name = [], objectives[0].name
    split = {"val": "the validation split", "train": "the training data"}.get(name.partition("/")[0])
    if len(groups) > 1 and split:
        sentences.append(f"Best of {len(groups)} configurations on {split}: its own score is optimistic.")
    if len(objectives) > 1:
        names = " and ".join(objective.name for objective in objectives)
        num_front = sum(group.on_front for group in groups)
        sentences.append(f"On the Pareto front of {names} (*): {num_front} of {len(groups)}, none beaten in both.")
    elif len(groups) > 1:
        second = groups[1]
        sentences.append(f"Second: {score_text(second)} with {label_text(second, keys)}.")
        sentences.append(verdict(groups[0], second))
    if short := sum(not group.complete for group in groups):
        sentences.append(f"Fewer finished seeds than the others: {short} of {len(groups)} configurations, see n.")
    return sentences
