"""Test accuracy of the book's run with several seeds, beside that of the same program in Keras.

Use:  make peers && PIPELINE_MIRROR=FOLDER python benchmarks/book_seeds.py --write

For each seed in turn: ours, then Keras on JAX in a process of its own, which draws its own initial weights and shuffles
by itself. 60,000 images to train on, 10,000 to test, counted as integers; no seed is left out. The clock of ours is
Fit.fit_s: Lightning, shuffling, metrics, checkpoints, no tracking. The clock of Keras is model.fit, without a progress
bar, with its compilation, which each process pays anew; so the epochs after the first are given too.
"""

from __future__ import annotations

from pipeline.system.startup import set_thread_environment  # isort: skip

set_thread_environment()  # isort: split

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytorch_lightning
import torch
from command import parse, parser_of, publish
from mnist import machine, markdown_table, prepare, train_config
from rich.console import Console
from scipy.stats import ttest_ind

from pipeline.config.schema import TrainConfig
from pipeline.data.processed import load_split
from pipeline.model.portable import load_model
from pipeline.train import train

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Result:
    """One training."""

    right: int  # of `count` test images
    count: int
    fit_s: float
    epochs_s: list[float]
    versions: str


def ours(overrides: Sequence[str], processed: Path, seed: int) -> Result:
    return trained(processed, train_config(*overrides, f"seed={seed}"))


def trained(processed: Path, cfg: TrainConfig) -> Result:
    epochs_s: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        done = train(
            processed, Path(out), Path(out) / "work", cfg, {}, console=QUIET,
            on_epoch=lambda _, values: epochs_s.append(values["epoch_s"]), on_steps=lambda *_: None,
        )  # fmt: skip
        model = load_model(Path(out) / "models")
    test = load_split(processed, "test")
    right = int((model.predict_log_proba(test.images).argmax(1) == test.labels).sum())
    versions = f"torch {torch.__version__}, pytorch-lightning {pytorch_lightning.__version__}"
    return Result(right, len(test.labels), done.fit.fit_s, epochs_s, versions)


def keras(num_epochs: int, processed: Path, seed: int) -> Result:
    """In a process of its own; KERAS_HOME keeps Keras from writing settings into the home folder."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_HOME": folder, "JAX_PLATFORMS": "cpu"}
        result = Path(folder) / "result.json"
        script = Path(__file__).with_name("keras_book.py")
        words = (processed, str(seed), str(num_epochs), result)
        subprocess.run((sys.executable, script, *words), env=environment, check=True)
        return Result(**json.loads(result.read_text()))


def in_turn(
    subjects: dict[str, Callable[[Path, int], Result]], num_seeds: int, overrides: Sequence[str]
) -> dict[str, list[Result]]:
    """Seed by seed, each subject once; the n-th result of each is that of seed n."""
    results: dict[str, list[Result]] = {name: [] for name in subjects}
    with tempfile.TemporaryDirectory() as folder:
        processed = prepare(Path(folder), *overrides)
        for seed in range(num_seeds):
            for name, run in subjects.items():
                results[name].append(last := run(processed, seed))
                print(f"seed {seed}  {name:<17}  {last.right:,} of {last.count:,}  {last.fit_s:.2f} s", flush=True)
    return results


# ---------------------------------------------------------------- what is said of it


def report(results: dict[str, list[Result]]) -> str:
    """A section of docs/results.md; the n-th result of each is that of seed n."""
    mine, theirs = results.values()
    rows = [
        *(
            [f"seed {seed}, right of {our.count:,}", f"{our.right:,}", f"{their.right:,}"]
            for seed, (our, their) in enumerate(zip(mine, theirs, strict=True))
        ),
        row("accuracy, mean ± sd", results, accuracy),
        row("fit, s: median (min–max)", results, lambda of: spread([one.fit_s for one in of])),
        row("an epoch after the first, s", results, lambda of: spread([s for one in of for s in one.epochs_s[1:]])),
    ]
    table = markdown_table([["", *results], *rows])
    return "\n\n".join([setting(mine[0], theirs[0]), table, difference(mine, theirs)])


def row(title: str, results: dict[str, list[Result]], say: Callable[[list[Result]], str]) -> list[str]:
    return [title, *(say(of) for of in results.values())]


def accuracy(results: list[Result]) -> str:
    """A share; its sd is that of the seeds (n - 1)."""
    shares = [result.right / result.count for result in results]
    if len(shares) == 1:
        return f"{shares[0]:.4f} (one seed)"
    return f"{statistics.mean(shares):.4f} ± {statistics.stdev(shares):.4f}, n = {len(shares)}"


def spread(values_s: list[float]) -> str:
    return f"{statistics.median(values_s):.2f} ({min(values_s):.2f}–{max(values_s):.2f})"


def difference(mine: list[Result], theirs: list[Result]) -> str:
    """In percentage points, with Welch's interval: the two sds need not be equal."""
    pairs = [[100 * result.right / result.count for result in results] for results in (mine, theirs)]
    found = f"Ours minus Keras: {statistics.mean(pairs[0]) - statistics.mean(pairs[1]):+.3f} percentage points"
    if len(mine) == 1:
        return f"{found}, one seed."
    low, high = ttest_ind(*pairs, equal_var=False).confidence_interval(0.95)
    return f"{found}, 95 % interval (Welch) {low:+.3f} to {high:+.3f}."


def setting(mine: Result, theirs: Result) -> str:
    return (
        f"{machine()}. Ours: {mine.versions}; Keras: {theirs.versions}.\n"
        "In turn, seed by seed. Seconds without imports and tracking; Keras' fit includes compilation, in each seed "
        "anew."
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    options = parse(parser, seeds=1)
    if not (find_spec("keras") and find_spec("jax")):
        sys.exit("Keras and JAX are not installed. Run: make peers")
    num_epochs = train_config(*options.overrides).trainer.num_epochs
    subjects = {"ours": partial(ours, options.overrides), "Keras": partial(keras, num_epochs)}
    publish("book_seeds", report(in_turn(subjects, options.seeds, options.overrides)), options)


if __name__ == "__main__":
    main()
