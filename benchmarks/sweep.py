"""Sweeps of 16 short trainings: jobs a minute, ours beside one process for all and beside the well-known template.

Use:  make bench        (or: python benchmarks/sweep.py --rounds 2 --write)

The grid is 4 widths x 4 learning rates. The clock is that of the whole command, with imports, tracking and the summary,
so the shorter the jobs, the more of it is what each sweep needs once. In turn, each command in an empty store.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fit import ratio
from mnist import PAGE, machine, markdown_table, prepare
from results_page import write_section
from scale import make_project

HERE = Path(__file__).parent
WIDTHS, RATES, NUM_JOBS = "32,64,128,256", "3e-4,1e-3,3e-3,1e-2", 16
SWEEPS = {  # the data, and the epochs
    "the embedded digits: 3,600 images, 20 epochs": (("data=mnist_5k", "data.validation_fraction=0.1"), 20),
    "MNIST: 54,000 images, 5 epochs": (("data=mnist", "data.validation_fraction=0.1"), 5),
}
OURS, ONE_PROCESS, TEMPLATE = "ours", "ours, hydra/launcher=basic: one process for all", "the template's way"


def commands(processed: Path, words: tuple[str, ...], num_epochs: int) -> dict[str, list[str]]:
    grid = [f"model.units={WIDTHS}", f"optimizer.lr={RATES}", f"trainer.num_epochs={num_epochs}"]
    own = ["-m", "pipeline.train", "-m", *words, *grid]
    template = [
        str(HERE / "template.py"), "-m", f"units={WIDTHS}", f"lr={RATES}", f"num_epochs={num_epochs}",
        f"processed={processed}", "hydra.sweep.dir=multirun/template",
    ]  # fmt: skip
    return {OURS: own, ONE_PROCESS: [*own, "hydra/launcher=basic"], TEMPLATE: template}


def seconds(command: list[str], processed: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), processed)
        start_s = time.perf_counter()
        subprocess.run(
            [sys.executable, *command], cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip
        return time.perf_counter() - start_s


def table(title: str, rounds: list[dict[str, float]]) -> str:
    rows = [[title, "seconds, median", "jobs a minute", f"speed, to {ONE_PROCESS.partition(': ')[2]}"]]
    for name in rounds[0]:
        median_s = statistics.median(row[name] for row in rounds)
        rows.append([name, f"{median_s:.1f}", f"{60 * NUM_JOBS / median_s:.0f}", ratio(rounds, ONE_PROCESS, name)])
    return markdown_table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md")
    options = parser.parse_args()
    tables = []
    for title, (words, num_epochs) in SWEEPS.items():
        rounds: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            processed = prepare(Path(folder), *words)
            for _ in range(options.rounds):
                tried = commands(processed, words, num_epochs)
                rounds.append({name: seconds(command, processed) for name, command in tried.items()})
                print("  ".join(f"{name} {value:.1f}" for name, value in rounds[-1].items()), flush=True)
        tables.append(table(title, rounds))
    head = f"{machine()}; {options.rounds} rounds of 16 jobs each. Ratios: median of the rounds (min–max)."
    text = "\n\n".join([head, *tables])
    print(f"\n{text}")
    if options.write:
        write_section(PAGE, "sweep", text)


if __name__ == "__main__":
    main()
