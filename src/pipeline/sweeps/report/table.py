"""The table of a sweep's configurations, best first, for a terminal and for Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipeline.config.overrides import short_names
from pipeline.sweeps.report.rows import SEED, Group, Objective, Row, as_number, ranked, swept
from pipeline.sweeps.report.wording import (
    best_text,
    caveats,
    command_of,
    counts_text,
    label_text,
    number_text,
    score_text,
    value_text,
)

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

    groups, keys = [group for group in ranked(rows, objectives) if group.n], swept(rows)
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
    names = short_names(keys)
    each = [_key_column(names[key], [value_text(group.values.get(key, "")) for group in shown]) for key in keys]
    together = [Column("configuration", [label_text(group, keys) for group in shown], numeric=False, wraps=True)]
    rank, scores, extras = _rank_column(shown, len(objectives)), _scores(shown, objectives), _extras(shown, objectives)
    for folded in (False, True):
        for num_extras in range(len(extras), -1, -1):
            table = _rich_table([rank, *each, *scores, *extras[:num_extras]], folded)
            if _width(table, console) <= console.width:
                return table
    for num_extras in range(len(extras), -1, -1):
        fixed = [*scores, *extras[:num_extras]]
        if _width(_rich_table([rank, *fixed]), console) <= console.width // 2 or not num_extras:
            break
    return _rich_table([rank, *together, *fixed])


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


def _key_column(title: str, cells: list[str]) -> Column:
    return Column(title, cells, numeric=all(as_number(cell) is not None for cell in cells if cell))


def _scores(groups: Sequence[Group], objectives: Sequence[Objective]) -> list[Column]:
    first, *others = objectives
    columns = [Column(first.name, [score_text(group) for group in groups])]
    if any(SEED in group.rows[0].values for group in groups):
        cells = [f"{group.n}" if group.complete else f"{group.n}/{group.num_seeds}" for group in groups]
        columns.append(Column("n", cells))
    return columns + [_metric_column(other.name, groups) for other in others]


def _extras(groups: Sequence[Group], objectives: Sequence[Objective]) -> list[Column]:
    """The least interesting last."""
    asked = {objective.name for objective in objectives}
    columns = [_metric_column(name, groups) for name in USUAL_METRICS if name not in asked]
    columns.insert(-1, Column("time", [_time_text(group) for group in groups]))
    return [column for column in columns if any(column.cells)]


def _metric_column(name: str, groups: Sequence[Group]) -> Column:
    return Column(name, [number_text(name, group.mean_of(name)) for group in groups])


def _time_text(group: Group) -> str:
    """Of one job, the mean."""
    known = [row.elapsed_s for row in group.counted if row.elapsed_s is not None]
    if not known:
        return ""
    seconds = sum(known) / len(known)
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d}"


def note(rows: Sequence[Row], objectives: Sequence[Objective]) -> str:
    """Markdown for the parent run. MLflow's pages show about three lines of it, so the best comes first."""
    groups, keys = [group for group in ranked(rows, objectives) if group.n], swept(rows)
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
    names = short_names(keys)
    columns = [_rank_column(shown, len(objectives))]
    columns += [_key_column(names[key], [value_text(group.values.get(key, "")) for group in shown]) for key in keys]
    columns += _scores(shown, objectives)
    lines = [[column.title for column in columns], ["--:" if column.numeric else ":--" for column in columns]]
    lines += [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    return "\n".join("| " + " | ".join(_escaped(cell.strip()) for cell in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """What Markdown or HTML would take for itself stays as it is."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text)
