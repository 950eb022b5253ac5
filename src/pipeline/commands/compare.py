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

from pipeline.comparison.page import comparison_page
from pipeline.comparison.subjects import Subjects
from pipeline.comparison.verdict import (
    LETTERS,
    Comparison,
    accuracy_text,
    compare,
    comparison_json,
    differences,
    evidence,
    subjects_by_letter,
    verdict_line,
)
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.files import write_json, write_text
from pipeline.system.startup import load
from pipeline.tracking import Store

MAX_INDICES = 8  # that are printed


def compared(root: Path, names: Sequence[str]) -> list[Comparison]:
    """Each of the others against the first. Raises ConfigError and PipelineError; see `Subjects.named`, `compare`."""
    subjects = Subjects(Store(root))
    baseline, *others = [subjects.named(name) for name in names]
    return compare(baseline, others)


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


def log_comparisons(store: Store, comparisons: Sequence[Comparison], folder: Path) -> list[str]:
    """Write comparison.html and comparison.json, and log both to the runs. Returns the runs' ids."""
    write_json(folder / "comparison.json", [comparison_json(comparison) for comparison in comparisons])
    write_text(folder / "comparison.html", comparison_page(comparisons, store.root))
    run_ids = list(dict.fromkeys(subject.run_id for _, subject in subjects_by_letter(comparisons) if subject.run_id))
    for run_id in run_ids:
        with store.added_to(run_id, None) as run:
            run.artifact(folder / "comparison.html", f"comparisons/{folder.name}")
            run.artifact(folder / "comparison.json", f"comparisons/{folder.name}")
    return run_ids


def main(args: argparse.Namespace) -> None:
    if not 2 <= len(args.names) <= len(LETTERS):
        raise ConfigError(f"give two to {len(LETTERS)} things to compare, found {len(args.names)}")
    root = project_root()
    load("compare", "MLflow")
    comparisons = compared(root, args.names)
    folder = root / "outputs/compare" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    run_ids = log_comparisons(Store(root), comparisons, folder)
    if args.format == "json":
        values = [comparison_json(comparison) for comparison in comparisons]
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True)
    print_text(console, comparisons)
    where = f", and in MLflow with {len(run_ids)} run{'s' if len(run_ids) > 1 else ''}" if run_ids else ""
    console.print(f"\n{folder.relative_to(root)}/comparison.html{where}", highlight=False)
