"""Fit time of the book's training beside its peers, in turn, each in a process of its own.

Use:  make bench        (or: python benchmarks/fit.py --rounds 5 --write)

The clock of ours is the time of the whole training loop with everything on: Lightning, shuffling, metrics, a checkpoint
an epoch, a progress bar drawn into nothing, tracking in MLflow. The clock of the peers is their loop alone; Keras' is
given with its compilation and without. Compare ratios; the seconds are this machine's.
"""

from __future__ import annotations

from pipeline.system.startup import set_thread_environment  # isort: skip

set_thread_environment()  # isort: split

import os
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path

import book_seeds
import torch
from command import parse, parser_of, publish
from mnist import machine, markdown_table, prepare, train_config
from process import run
from rich.console import Console

from pipeline.tracking import Store
from pipeline.training.fit import fit_processed

HERE = Path(__file__).parent
OURS, LOOP, KERAS, COMPILED = "ours, everything on", "loop by hand", "Keras on JAX", "Keras on JAX, compiled before"
SUBJECTS = {
    "products": "matrix products alone",
    "ours": OURS,
    "loop": LOOP,
    "keras": KERAS,
    "lightning": "Lightning, slices, no logging",
    "lightning_usual": "Lightning as usual",
}


def ours(processed: Path, num_epochs: int) -> float:
    """Seconds of trainer.fit."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as nowhere:
        store = Store(Path(folder))
        console = Console(file=nowhere, force_terminal=True)
        cfg = train_config(f"trainer.num_epochs={num_epochs}", "tracking.progress=true")
        with store.run("bench", "fit") as tracked:
            done = fit_processed(
                processed, Path(folder) / "work", cfg, console,
                on_epoch=lambda epoch, values: tracked.metrics(values, step=epoch),
                on_steps=lambda name, points: tracked.metric_points((name, value, step) for step, value in points),
            )  # fmt: skip
    return done.fit_s


def seconds(name: str, processed: Path, num_epochs: int, fork: bool) -> dict[str, float]:
    """Run a subject in a process of its own. Keras gives two figures."""
    if name == "keras":
        return keras(processed, num_epochs)
    words = [HERE / "peers.py", name] if name != "ours" else [HERE / "fit.py", "--subject"]
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "MKL_CBWR")}
    done = run([*map(str, words), str(processed), str(num_epochs)], fork=fork, env=environment)
    return {SUBJECTS[name]: float(done.stdout.split()[-1])}


def keras(processed: Path, num_epochs: int) -> dict[str, float]:
    done = book_seeds.keras(num_epochs, processed, seed=0)
    return {KERAS: done.fit_s, COMPILED: statistics.mean(done.epochs_s[1:]) * num_epochs}


def report(rounds: list[dict[str, float]], num_epochs: int) -> str:
    rows = [["", "seconds, median", "to the loop", "to Keras, compiled before", "to the products"]]
    for name in rounds[0]:
        bases = [LOOP, COMPILED, "matrix products alone"]
        ratios = [ratio(rounds, name, base) for base in bases]
        rows.append([name, f"{statistics.median(row[name] for row in rounds):.2f}", *ratios])
    versions = f"torch {torch.__version__}, {len(rounds)} rounds of {num_epochs} epochs"
    return f"{machine()}; {versions}. Ratios: median of the rounds (min–max).\n\n{markdown_table(rows)}"


def ratio(rounds: list[dict[str, float]], name: str, base: str) -> str:
    if base not in rounds[0]:
        return "–"
    ratios = sorted(row[name] / row[base] for row in rounds)
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="at least 2: Keras compiles in the first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--subject", nargs=2, metavar=("FOLDER", "EPOCHS"), help="run ours once and print its seconds")
    options = parse(parser, epochs=2, rounds=1, only=list(SUBJECTS))
    if options.subject:
        print("seconds", ours(Path(options.subject[0]), int(options.subject[1])))
        return
    if options.epochs < 2:
        parser.error(f"--epochs {options.epochs}: give at least 2, Keras compiles in the first")
    names = [name for name in options.only if name != "keras" or find_spec("keras")]
    with tempfile.TemporaryDirectory() as folder:
        processed = prepare(Path(folder), *options.overrides)
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            rounds.append({})
            for name in names:
                rounds[-1] |= seconds(name, processed, options.epochs, options.smallest)
            print("  ".join(f"{name} {value:.2f}" for name, value in rounds[-1].items()), flush=True)
    publish("fit", report(rounds, options.epochs), options)


if __name__ == "__main__":
    main()
