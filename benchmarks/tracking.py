"""How much of a sweep's job tracking takes: all calls of MLflow's client and all that is recorded round a training.

Use:  make bench        (or: python benchmarks/tracking.py --write)

The jobs are book trainings (60,000 images, 5 epochs) and short ones (3,600 images, 5 epochs), four of each in one
process. The first of each four pays for imports, which a sweep's jobs do not; it is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command import SMALLEST, parse, parser_of, publish
from mnist import machine, markdown_table, prepare
from process import run
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


def jobs(num_jobs: int, words: list[str]) -> None:
    """Runs in a process of its own: prints each job's seconds and those of its tracking."""
    from pipeline import train
    from pipeline.cli import dispatch
    from pipeline.tracking import Run

    tracking, found = Stopwatch(), []
    opened, tracked = train.training_run, train.train_tracked

    @contextmanager
    def training_run(*args: Any) -> Any:
        whole = opened(*args)
        with tracking.running():
            opened_run = whole.__enter__()
        try:
            yield opened_run
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
    sys.argv = ["train", "-m", *words, f"seed=range({num_jobs})", "hydra/launcher=basic"]
    dispatch("train")
    print(f"\n{json.dumps(found)}")


def measured(num_jobs: int, prepared: Sequence[str], words: Sequence[str], fork: bool) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        processed = prepare(Path(folder, "data"), *prepared)
        project = make_project(Path(folder, "project"), processed)
        done = run([str(Path(__file__).resolve()), "--jobs", str(num_jobs), *words], fork=fork, cwd=project)
        return [(whole_s, own_s) for whole_s, own_s in json.loads(done.stdout.splitlines()[-1])[1:]]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--jobs", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parse(parser)
    if options.jobs is not None:
        jobs(int(options.jobs[0]), options.jobs[1:])
        return
    num_jobs = 2 if options.smallest else NUM_JOBS
    rows = [["job", "seconds", "of them tracking", "share"]]
    for name, (prepared, words) in JOBS.items():
        if options.smallest:
            prepared, words = SMALLEST, [*words[:1], *SMALLEST]
        found = measured(num_jobs, prepared, words, options.smallest)
        whole_s, own_s = (statistics.median(column) for column in zip(*found, strict=True))
        rows.append([name, f"{whole_s:.2f}", f"{own_s:.2f}", f"{own_s / whole_s:.1%}"])
    publish("tracking", f"{machine()}; medians of {num_jobs - 1}.\n\n{markdown_table(rows)}", options)


if __name__ == "__main__":
    main()
