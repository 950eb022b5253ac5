"""Time to the book's accuracy: experiment=fast with 10 seeds, beside experiment=book, in turn.

Use:  PIPELINE_MIRROR=FOLDER python benchmarks/fast.py --write

60,000 images to train on, 10,000 to test, counted as integers; no seed is left out. The clock is Fit.fit_s: Lightning,
shuffling, metrics, checkpoints, no tracking. Keras' seconds for the book's run are in the sections of fit.py and
book_seeds.py.
"""

from __future__ import annotations

from pipeline.system.startup import set_thread_environment  # isort: skip

set_thread_environment()  # isort: split

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from book_seeds import Result, accuracy, in_turn, spread, trained
from command import parse, parser_of, publish
from mnist import machine, markdown_table, train_config

RECIPES = {
    "book": ("book", []),
    "fast": ("fast", []),
    "fast, bf16-mixed": ("fast", ["trainer.precision=bf16-mixed"]),
}


def run(recipe: str, overrides: Sequence[str], processed: Path, seed: int) -> Result:
    experiment, own = RECIPES[recipe]
    return trained(processed, train_config(f"seed={seed}", *own, *overrides, experiment=experiment))


def report(results: dict[str, list[Result]]) -> str:
    counted = f"lowest–highest of {results['book'][0].count:,}"
    rows = [["", "test accuracy, mean ± sd", counted, "fit, s: median (min–max)", "to the book's fit"]]
    for name, of in results.items():
        right = sorted(result.right for result in of)
        ratios = sorted(one.fit_s / book.fit_s for one, book in zip(of, results["book"], strict=True))
        shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        seconds = spread([result.fit_s for result in of])
        rows.append([f"`{name}`", accuracy(of), f"{right[0]:,}–{right[-1]:,}", seconds, shown])
    return f"{machine()}; {results['book'][0].versions}. In turn, seed by seed.\n\n{markdown_table(rows)}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on")
    options = parse(parser, seeds=2)
    subjects = {name: partial(run, name, options.overrides) for name in RECIPES}
    publish("fast", report(in_turn(subjects, options.seeds, options.overrides)), options)


if __name__ == "__main__":
    main()
