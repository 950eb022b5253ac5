"""How much of a sweep's job tracking takes: all calls of MLflow's client and all that is recorded round a training.

Use:  make bench        (or: python benchmarks/tracking.py --write)

The jobs are book trainings (60,000 images, 5 epochs) and short ones (3,600 images, 5 epochs), four of each in one
process. The first of each four pays for imports, which a sweep's jobs do not; it is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist import PAGE, machine, markdown_table, prepare
from results_page import write_section
from scale import make_project

NUM_JOBS = 4
JOBS = {
    "book: 60,000 images, 5 epochs": ([], ["experiment=book"]),
    "short: 3,600 images, 5 epochs": (
        ["data=mnist_5k", "data.validation_fraction=0.1"],
        ["trainer.num_epochs=5"],
    ),
}


class Stopwatch:
    """Adds up the time within what it watches; a part within another is not counted twice."""

    def __init__(self) -> None:
        self.total_s, self._depth = 0.0, 0

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return function(*args, **kwargs)

        return call

    @contextmanager
    def running(self) -> Any:
        start_s, self._depth = time.perf_counter(), self._depth + 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.total_s += time.perf_counter() - start_s


def jobs(words: list[str]) -> None:
    """Runs in a process of its own: prints each job's seconds and those of its tracking."""
    from pipeline import train
    from pipeline.tracking import Run

    tracking, found = Stopwatch(), []
    opened, tracked = train.training_run, train.train_tracked

    @contextmanager
    def training_run(*args: Any) -> Any:
        whole = opened(*args)
        with tracking.running():
            run = whole.__enter__()
        try:
            yield run
        finally:
            with tracking.running():
                whole.__exit__(None, None, None)

    def train_tracked(*args: Any, **kwargs: Any) -> Any:
        tracking.total_s, start_s = 0.0, time.perf_counter()
        value = tracked(*args, **kwargs)
        found.append((time.perf_counter() - start_s, tracking.total_s))
        return value

    train.training_run, train.train_tracked = training_run, train_tracked
    train.record_training = tracking.watched(train.record_training)
    Run.metrics, Run.metric_points = tracking.watched(Run.metrics), tracking.watched(Run.metric_points)  # type: ignore[method-assign]
    sys.argv = ["train", "-m", *words, f"seed=range({NUM_JOBS})", "hydra/launcher=basic"]
    train.main()
    print(f"\n{json.dumps(found)}")


def measured(prepared: list[str], words: list[str]) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        processed = prepare(Path(folder, "data"), *prepared)
        project = make_project(Path(folder, "project"), processed)
        command = [sys.executable, Path(__file__).resolve(), "--jobs", *words]
        done = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
        return [(whole_s, own_s) for whole_s, own_s in json.loads(done.stdout.splitlines()[-1])[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md")
    parser.add_argument("--jobs", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.jobs is not None:
        jobs(options.jobs)
        return
    rows = [["job", "seconds", "of them tracking", "share"]]
    for name, (prepared, words) in JOBS.items():
        found = measured(prepared, words)
        whole_s, own_s = (statistics.median(column) for column in zip(*found, strict=True))
        rows.append([name, f"{whole_s:.2f}", f"{own_s:.2f}", f"{own_s / whole_s:.1%}"])
    text = f"{machine()}; medians of {NUM_JOBS - 1}.\n\n{markdown_table(rows)}"
    print(text)
    if options.write:
        write_section(PAGE, "tracking", text)


if __name__ == "__main__":
    main()
