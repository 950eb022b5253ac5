"""pipeline compare: whether one model is better than another, for other test images and for other seeds.

Every model answers the same test images, and each is compared with the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.comparison.page import page
from pipeline.comparison.subjects import Side, Sides
from pipeline.comparison.verdict import Comparison, accuracy, amount, as_json, compare, evidence, headline, some
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.files import write_json, write_text
from pipeline.system.startup import load
from pipeline.tracking import Store

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compared(root: Path, names: Sequence[str]) -> list[Comparison]:
    """Each of the others against the first. Raises ConfigError and PipelineError; see `Sides.named` and `compare`."""
    sides = Sides(root, Store(root))
    baseline, *others = [sides.named(name) for name in names]
    return compare(baseline, others)


def print_text(console: Console, found: Sequence[Comparison]) -> None:
    """What was compared, then each comparison: the verdict, why, and what differs."""
    for letter, side in zip(LETTERS, sides_of(found), strict=False):
        console.print(f"{letter}  {accuracy(side):<28} {side.what}", highlight=False, markup=False, soft_wrap=True)
    for letter, comparison in zip(LETTERS[1:], found, strict=False):
        console.print(f"\n{headline(comparison, 'A', letter)}", style="bold", highlight=False, soft_wrap=True)
        for question, answer in evidence(comparison):
            console.print(f"  {question:<18} {answer}", highlight=False, markup=False, soft_wrap=True)
        _print_details(console, comparison, letter)


def sides_of(found: Sequence[Comparison]) -> list[Side]:
    return [found[0].a, *(comparison.b for comparison in found)]


def _print_details(console: Console, found: Comparison, letter: str) -> None:
    for name, to in ((letter, "right"), ("A", "wrong")):
        indices = found.changed(to)  # type: ignore[arg-type]
        listed = f": test images {some(indices)}" if indices else ""
        console.print(f"  right in {name} only    {len(indices):,}{listed}", highlight=False, soft_wrap=True)
    rows = [(name, a or "–", b or "–") for name, a, b in found.settings]
    rows += [(name, amount(a), amount(b)) for name, a, b in found.costs]
    if rows:
        table = Table("", "A", letter, box=None, pad_edge=False, header_style="")
        for row in rows:
            table.add_row(f"  {row[0]}", *row[1:])
        console.print(table)


def keep(store: Store, found: Sequence[Comparison], folder: Path) -> list[str]:
    """Write comparison.html and comparison.json, and keep both with the runs. Returns the runs' ids."""
    write_json(folder / "comparison.json", [as_json(comparison) for comparison in found])
    write_text(folder / "comparison.html", page(found, store.root))
    runs = list(dict.fromkeys(side.filed_in for side in sides_of(found) if side.filed_in))
    for run_id in runs:
        with store.added_to(run_id, None) as run:
            run.artifact(folder / "comparison.html", f"comparisons/{folder.name}")
            run.artifact(folder / "comparison.json", f"comparisons/{folder.name}")
    return runs


def main(args: argparse.Namespace) -> None:
    if not 2 <= len(args.names) <= len(LETTERS):
        raise ConfigError(f"give two to {len(LETTERS)} things to compare, found {len(args.names)}")
    root = project_root()
    load("compare", "MLflow")
    found = compared(root, args.names)
    folder = root / "outputs/compare" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    runs = keep(Store(root), found, folder)
    if args.format == "json":
        print(json.dumps([as_json(comparison) for comparison in found], indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True)
    print_text(console, found)
    where = f", and in MLflow with {len(runs)} run{'s' if len(runs) > 1 else ''}" if runs else ""
    console.print(f"\n{folder.relative_to(root)}/comparison.html{where}", highlight=False)
