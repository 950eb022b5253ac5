"""Sweeps of 16 short trainings: jobs a minute, ours beside one process for all and beside the well-known template.

Use:  make bench        (or: python benchmarks/sweep.py --rounds 2 --write)

The grid is 4 widths x 4 learning rates. The clock is that of the whole command, with imports, tracking and the summary,
so the shorter the jobs, the more of it is what each sweep needs once. In turn, each command in an empty store.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from command import parse, parser_of, publish
from fit import ratio
from mnist import machine, markdown_table, prepare
from process import run
from scale import make_project

HERE = Path(__file__).parent
WIDTHS, RATES = ("32", "64", "128", "256"), ("3e-4", "1e-3", "3e-3", "1e-2")
SWEEPS = {  # the data, and the epochs
    "the embedded digits: 3,600 images": (("data=mnist_5k", "data.validation_fraction=0.1"), 20),
    "MNIST: 54,000 images": (("data=mnist", "data.validation_fraction=0.1"), 5),
}
OURS, ONE_PROCESS, TEMPLATE = "ours", "ours, hydra/launcher=basic: one process for all", "the template's way"


def commands(processed: Path, words: tuple[str, ...], grid: tuple[str, str], num_epochs: int) -> dict[str, list[str]]:
    widths, rates = grid
    own = ["-m", "pipeline.train", "-m", *words, f"model.units={widths}", f"optimizer.lr={rates}",
           f"trainer.num_epochs={num_epochs}"]  # fmt: skip
    template = [
        str(HERE / "template.py"), "-m", f"units={widths}", f"lr={rates}", f"num_epochs={num_epochs}",
        f"processed={processed}", "hydra.sweep.dir=multirun/template",
    ]  # fmt: skip
    return {OURS: own, ONE_PROCESS: [*own, "hydra/launcher=basic"], TEMPLATE: template}


def seconds(command: list[str], processed: Path, fork: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), processed)
        start_s = time.perf_counter()
        run(command, fork=fork, cwd=project, env={**os.environ, "COLUMNS": "100"})
        return time.perf_counter() - start_s


def table(title: str, rounds: list[dict[str, float]], num_jobs: int) -> str:
    rows = [[title, "seconds, median", "jobs a minute", f"speed, to {ONE_PROCESS.partition(': ')[2]}"]]
    for name in rounds[0]:
        median_s = statistics.median(row[name] for row in rounds)
        rows.append([name, f"{median_s:.1f}", f"{60 * num_jobs / median_s:.0f}", ratio(rounds, ONE_PROCESS, name)])
    return markdown_table(rows)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    options = parse(parser, rounds=1)
    sweeps, widths, rates = list(SWEEPS.items()), WIDTHS, RATES
    if options.smallest:
        sweeps, widths, rates = sweeps[:1], WIDTHS[:2], RATES[:1]
    num_jobs = len(widths) * len(rates)
    tables = []
    for title, (words, full_epochs) in sweeps:
        num_epochs = 1 if options.smallest else full_epochs
        rounds: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            processed = prepare(Path(folder), *words)
            for _ in range(options.rounds):
                tried = commands(processed, words, (",".join(widths), ",".join(rates)), num_epochs)
                rounds.append({name: seconds(command, processed, options.smallest) for name, command in tried.items()})
                print("  ".join(f"{name} {value:.1f}" for name, value in rounds[-1].items()), flush=True)
        tables.append(table(f"{title}, {num_epochs} epochs", rounds, num_jobs))
    head = f"{machine()}; {options.rounds} rounds of {num_jobs} jobs each. Ratios: median of the rounds (min–max)."
    publish("sweep", "\n\n".join([head, *tables]), options)


if __name__ == "__main__":
    main()
