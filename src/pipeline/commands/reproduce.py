"""pipeline reproduce: reproduce a run and check that it is byte-identical.

The project as it was is rebuilt in a temporary folder from what MLflow remembers: commit, uncommitted changes,
settings, DVC's digests. The run is trained there, scored if it was, and compared byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rich.console import Console

from pipeline.reproduction.tree import Tree, build, digest_of_data, environment, fetch_data, thread_variables
from pipeline.runtime.origin import code_sha256
from pipeline.runtime.places import project_root
from pipeline.system.files import read_json, sha256_of
from pipeline.system.startup import load
from pipeline.tracking import MODEL_TAG, RunRow, Store
from pipeline.tracking.lookup import find_run


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    name: str
    same: bool
    text: str


def reproduce(store: Store, row: RunRow, tree: Tree) -> Iterator[Check]:
    """Compare step by step; each is yielded when it is known."""
    yield Check("environment", *environment(row, store.root))
    yield same_digest("code", row.tags.get("origin.code_sha256"), code_sha256(tree.root))
    how = fetch_data(tree)
    data = same_digest("data", row.tags.get("origin.data_sha256"), digest_of_data(tree))
    yield Check(data.name, data.same, f"{data.text}; {how}")
    tree.python("-m", "pipeline.train", "hydra.run.dir=again", variables=thread_variables(row))
    again, files = tree.root / "again", store.artifacts(row.run_id)
    weights = same_digest("weights", row.tags[MODEL_TAG], sha256_of(again / "models/model.safetensors"))
    yield weights
    yield same_history(files / "dvc/history.csv", again / "plots/history.csv")
    if (files / "predictions").exists():
        tree.python("-m", "pipeline.evaluate", "hydra.run.dir=scored", "evaluate.model_folder=again/models")
        yield same_scores(files / "predictions", row, tree.root / "scored")


def same_digest(name: str, then: str | None, now: str) -> Check:
    if then is None:
        return Check(name, False, "not noted by the run")
    return Check(name, then == now, f"sha256 {now[:12]}" if then == now else f"sha256 {then[:12]} then, {now[:12]} now")


def same_history(then: Path, now: Path) -> Check:
    """The metrics of each epoch; where they differ, the first one that does."""
    tables = []
    for path in (then, now):
        with open(path, newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    for epoch, (a, b) in enumerate(zip_longest(*tables, fillvalue={}), start=1):
        for name in a | b:
            if a.get(name) != b.get(name):
                return Check("metrics", False, f"{name} of epoch {epoch}: {a.get(name)} then, {b.get(name)} now")
    return Check("metrics", True, f"{len(tables[0])} epochs")


def same_scores(then: Path, row: RunRow, scored: Path) -> Check:
    files = [folder / "log_probabilities.npy" for folder in (then, scored / "predictions")]
    if sha256_of(files[0]) != sha256_of(files[1]):
        return Check("predictions", False, "other probabilities of the test images")
    scores = read_json(scored / "metrics/evaluate.json")
    for name, value in scores.items():
        if row.metrics.get(name, value) != value:
            return Check("predictions", False, f"the same, but {name} was {row.metrics[name]} and is {value}")
    return Check("predictions", True, f"test accuracy {scores['test/accuracy']:.2%} of {scores['test/count']:,}")


def main(args: argparse.Namespace) -> None:
    root = project_root()
    load("reproduce", "MLflow")
    store, console = Store(root), Console(soft_wrap=True)
    row = find_run(store, args.run)
    changes = " and its uncommitted changes" if row.tags.get("git.dirty") == "true" else ""
    print(f"run {row.run_id[:8]} ({row.name}) at commit {row.tags.get('git.commit', 'none')[:8]}{changes}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        tree = build(root, store, row, Path(folder, "tree"))
        checks = []
        for check in reproduce(store, row, tree):
            checks.append(check)
            console.print(f"  {check.name:<13}{'same' if check.same else 'OTHER':<7}{check.text}", highlight=False)
    if print_verdict(console, checks):
        sys.exit(1)


def print_verdict(console: Console, checks: Sequence[Check]) -> bool:
    """Print how it ended. Returns whether anything but the environment differs."""
    first = next((check for check in checks if not check.same and check.name != "environment"), None)
    if first is None:
        console.print("The run was made again, byte for byte.", style="bold", highlight=False)
        return False
    console.print(f"Not the same. What differs first: {first.name} ({first.text})", style="bold", highlight=False)
    if not checks[0].same:
        console.print(f"The environment has changed: {checks[0].text}", highlight=False)
    return True
