"""Time to the book's accuracy: experiment=fast with 10 seeds, beside experiment=book, in turn.

Use:  PIPELINE_MIRROR=FOLDER python benchmarks/fast.py --write

60,000 images to train on, 10,000 to test, counted as integers; no seed is left out. The clock is Fit.fit_s: Lightning,
shuffling, metrics, checkpoints, no tracking. Keras' seconds for the book's run are in the sections of fit.py and
book_seeds.py.
"""

from __future__ import annotations

import pipeline  # isort: skip  # noqa: F401  before torch: it decides how torch's threads wait

import argparse
import statistics
from functools import partial
from pathlib import Path

from book_seeds import Result, accuracy, in_turn, spread, trained
from mnist import PAGE, machine, markdown_table, train_config
from results_page import write_section

RECIPES = {
    "book": ("book", []),
    "fast": ("fast", []),
    "fast, bf16-mixed": ("fast", ["trainer.precision=bf16-mixed"]),
}


def run(recipe: str, processed: Path, seed: int) -> Result:
    experiment, overrides = RECIPES[recipe]
    return trained(processed, train_config(f"seed={seed}", *overrides, experiment=experiment))


def report(results: dict[str, list[Result]]) -> str:
    rows = [
        ["", "test accuracy, mean ± sd", "lowest–highest of 10,000", "fit, s: median (min–max)", "to the book's fit"]
    ]
    for name, of in results.items():
        right = sorted(result.right for result in of)
        ratios = sorted(one.fit_s / book.fit_s for one, book in zip(of, results["book"], strict=True))
        shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        seconds = spread([result.fit_s for result in of])
        rows.append([f"`{name}`", accuracy(of), f"{right[0]:,}–{right[-1]:,}", seconds, shown])
    return f"{machine()}; {results['book'][0].versions}. In turn, seed by seed.\n\n{markdown_table(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md")
    options = parser.parse_args()
    text = report(in_turn({name: partial(run, name) for name in RECIPES}, options.seeds))
    print(f"\n{text}")
    if options.write:
        write_section(PAGE, "fast", text)


if __name__ == "__main__":
    main()
