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

from pipeline.comparison.page import comparison_page
from pipeline.comparison.subjects import Subjects
from pipeline.comparison.verdict import (
    LETTERS,
    Comparison,
    compare,
    comparison_json,
    print_text,
    subjects_by_letter,
)
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.files import write_json, write_text
from pipeline.system.startup import load
from pipeline.tracking import Store


def compared(root: Path, names: Sequence[str]) -> list[Comparison]:
    """Each of the others against the first. Raises ConfigError and PipelineError; see `Subjects.named`, `compare`."""
    subjects = Subjects(Store(root))
    baseline, *others = [subjects.named(name) for name in names]
    return compare(baseline, others)


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
