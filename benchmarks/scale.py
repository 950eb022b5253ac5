"""Start-up beside its imports, and training on 8.1 million images beside 60,000.

Use:  PIPELINE_MIRROR=FOLDER python benchmarks/scale.py --write          (6.4 GB of disk, ten minutes)

Start: from the start of the process to the end of the first chunk of steps of `python -m pipeline.train`, beside
`import torch, pytorch_lightning, mlflow`, in turn. Size: `expand=deform` makes 8,100,000 images of MNIST's 60,000; one
epoch of them between two trainings of 5 epochs on the 60,000, with everything on, as in fit.py. Memory is the largest
resident set of the whole process.
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

from mnist import PAGE, ROOT, machine, markdown_table, prepare
from results_page import write_section

from pipeline.data.arrays import load_split

HERE = Path(__file__).parent
IMPORTS = "import torch, pytorch_lightning, mlflow"
FIRST_STEP = """
import os, sys, time
import pipeline
from pipeline.training.classifier import Classifier
from pipeline.train import main
step = Classifier.training_step
def first(self, chunk, index):
    step(self, chunk, index)
    print("first step at", time.time(), flush=True)
    os._exit(0)
Classifier.training_step = first
sys.argv = ["train", "trainer.num_epochs=1"]
main()
"""


def import_s() -> float:
    start_s = time.time()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.time() - start_s


def first_step_s(project: Path) -> float:
    start_s = time.time()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP], cwd=project, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return float(done.stdout.split()[-1]) - start_s


def trained(processed: Path, num_epochs: int) -> tuple[float, float]:
    """Samples a second, and MiB of resident memory, of a training in a new process."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fit.py"), "--subject", str(processed), str(num_epochs)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the training on {processed} ended with status {status}")
    return len(load_split(processed, "train").labels) * num_epochs / float(told.split()[-1]), usage.ru_maxrss / 1024


def start_rows(project: Path, rounds: int) -> list[list[str]]:
    pairs = [(import_s(), first_step_s(project)) for _ in range(rounds)]
    ratios = sorted(first / imports for imports, first in pairs)
    imports, first = (statistics.median(column) for column in zip(*pairs, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
    return [
        ["start, median of " + str(rounds), "seconds", "ratio"],
        [f"`{IMPORTS}`", f"{imports:.1f}", "1"],
        ["`python -m pipeline.train` to its first steps", f"{first:.1f}", spread],
    ]


def size_rows(small: Path, large: Path) -> list[list[str]]:
    before, one, after = trained(small, 5), trained(large, 1), trained(small, 5)
    mean = (before[0] + after[0]) / 2
    rows = [["images", "samples/s", "to 60,000", "resident, at most"]]
    for name, (rate, mib) in (("60,000, before", before), ("8,100,000", one), ("60,000, after", after)):
        rows.append([name, f"{rate:,.0f}", f"{rate / mean:.2f}", f"{mib:,.0f} MiB"])
    return rows


def make_project(folder: Path, processed: Path) -> Path:
    """As much of a project as `python -m pipeline.train` reads."""
    (folder / "data").mkdir(parents=True)
    (folder / "data/processed").symlink_to(processed)
    for name in ("conf", "dvc.yaml", "src", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the start-up")
    parser.add_argument("--expanded", type=Path, help="data/processed of an earlier expand=deform")
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedded = prepare(folder / "embedded", "data=mnist_5k", "data.validation_fraction=0.1")
        start = start_rows(make_project(folder / "project", embedded), options.rounds)
        print(markdown_table(start), flush=True)
        large = options.expanded or prepare(folder / "large", "expand=deform")
        text = f"{machine()}.\n\n{markdown_table(start)}\n\n{markdown_table(size_rows(prepare(folder), large))}"
    print(f"\n{text}")
    if options.write:
        write_section(PAGE, "scale", text)


if __name__ == "__main__":
    main()
