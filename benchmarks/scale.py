"""Start-up beside its imports, and training on 8.1 million images beside 60,000.

Use:  PIPELINE_MIRROR=FOLDER python benchmarks/scale.py --write          (6.4 GB of disk, ten minutes)

Start: from the start of the process to the end of the first chunk of steps of `pipeline train`, beside
`import torch, pytorch_lightning, mlflow`, in turn. Size: `expand=deform` makes 8,100,000 images of MNIST's 60,000; one
epoch of them between two trainings of 5 epochs on the 60,000, with everything on, as in fit.py. Memory is the largest
resident set of the whole process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from command import parse, parser_of, publish
from mnist import ROOT, machine, markdown_table, prepare
from process import run

from pipeline.data.processed import load_split

HERE = Path(__file__).parent
IMPORTS = "import torch, pytorch_lightning, mlflow"
FIRST_STEP = """
import os, sys, time
from pipeline.system.startup import set_thread_environment
set_thread_environment()
from pipeline.training.module import Classifier
from pipeline.cli import dispatch
step = Classifier.training_step
def first(self, chunk, index):
    step(self, chunk, index)
    print("first step at", time.time(), flush=True)
    os._exit(0)
Classifier.training_step = first
sys.argv = ["train", "trainer.num_epochs=1"]
dispatch("train")
"""


def import_s(fork: bool) -> float:
    start_s = time.time()
    run(["-c", IMPORTS], fork=fork)
    return time.time() - start_s


def first_step_s(project: Path, fork: bool) -> float:
    start_s = time.time()
    done = run(["-c", FIRST_STEP], fork=fork, cwd=project)
    return float(done.stdout.split()[-1]) - start_s


def trained(processed: Path, num_epochs: int, fork: bool) -> tuple[float, float]:
    """Samples a second, and MiB of resident memory, of a training in a process of its own."""
    done = run([str(HERE / "fit.py"), "--subject", str(processed), str(num_epochs)], fork=fork)
    return num_images(processed) * num_epochs / float(done.stdout.split()[-1]), done.resident_mib


def num_images(processed: Path) -> int:
    return len(load_split(processed, "train").labels)


def start_rows(project: Path, rounds: int, fork: bool) -> list[list[str]]:
    pairs = [(import_s(fork), first_step_s(project, fork)) for _ in range(rounds)]
    ratios = sorted(first / imports for imports, first in pairs)
    imports, first = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
    return [
        ["start, median of " + str(rounds), "seconds", "ratio"],
        [f"`{IMPORTS}`", f"{imports:.1f}", "1"],
        ["`pipeline train` to its first steps", f"{first:.1f}", spread],
    ]


def size_rows(small: Path, large: Path, fork: bool) -> list[list[str]]:
    before, one, after = trained(small, 5, fork), trained(large, 1, fork), trained(small, 5, fork)
    mean = (before[0] + after[0]) / 2
    few, many = f"{num_images(small):,}", f"{num_images(large):,}"
    rows = [["images", "samples/s", f"to {few}", "resident, at most"]]
    for name, (rate, mib) in ((f"{few}, before", before), (many, one), (f"{few}, after", after)):
        rows.append([name, f"{rate:,.0f}", f"{rate / mean:.2f}", f"{mib:,.0f} MiB"])
    return rows


def make_project(folder: Path, processed: Path) -> Path:
    """As much of a project as `pipeline train` reads."""
    (folder / "data").mkdir(parents=True)
    (folder / "data/processed").symlink_to(processed)
    for name in ("conf", "dvc.yaml", "src", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of the start-up")
    parser.add_argument("--expanded", type=Path, help="data/processed of an earlier expand=deform")
    options = parse(parser, rounds=1, expanded=None)
    copies = ["expand.copies=1"] if options.smallest else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedded = prepare(folder / "embedded", "data=mnist_5k", "data.validation_fraction=0.1")
        start = start_rows(make_project(folder / "project", embedded), options.rounds, options.smallest)
        print(markdown_table(start), flush=True)
        large = options.expanded or prepare(folder / "large", *options.overrides, "expand=deform", *copies)
        size = size_rows(prepare(folder, *options.overrides), large, options.smallest)
    publish("scale", f"{machine()}.\n\n{markdown_table(start)}\n\n{markdown_table(size)}", options)


if __name__ == "__main__":
    main()
