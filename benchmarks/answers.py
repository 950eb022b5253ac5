"""Processor seconds of what people type, as a process of its own and as a fork of a warm process, in turn.

Use:  python benchmarks/answers.py --write [--before FOLDER]      (half an hour)

User and system time of a command and of all that it starts, in a clone of this repository's newest commit that has run
twice. A fork's time is that of the warm process. `--before` measures another checkout with the same packages beside it.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from command import parse, parser_of, publish
from mnist import ROOT, machine, markdown_table
from PIL import Image

RMSPROP = "conf/optimizer/rmsprop.yaml"
DIGIT = "digit.png"
AT_ONCE = {
    "a misspelt key": ("train", "trainer.num_epoch=3"),
    "`train --cfg job`": ("train", "--cfg", "job"),
    "`train --help`": ("train", "--help"),
}
WITH_RESULTS = {
    "`champion`": ("champion",),
    "`predict`, one image": ("predict", DIGIT),
    "`compare HEAD~1 HEAD`": ("compare", "HEAD~1", "HEAD"),
    "`dvc repro` after an edit of the lr": ("dvc", "repro"),
}


@dataclass
class Checkout:
    """A clone with its own store and DVC cache; with a runtime folder it has a warm process."""

    root: Path
    runtime: Path | None = None
    warm_pid: int = 0
    edits: int = 0

    @classmethod
    def clone(cls, source: Path, root: Path) -> Checkout:
        subprocess.run(["git", "clone", "--quiet", "--shared", source, root], check=True)
        return cls(root)

    def environment(self) -> dict[str, str]:
        theirs = ("DVC_", "GIT_", "MLFLOW_", "PIPELINE_", "PYTHON")
        own = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        own |= {"PATH": f"{Path(sys.executable).parent}:{own['PATH']}", "PYTHONPATH": str(self.root / "src")}
        return own | ({"PIPELINE_WARM": "1", "XDG_RUNTIME_DIR": str(self.runtime)} if self.runtime else {})

    def run(self, *command: str) -> str:
        """Whatever it ends with: a misspelt key is an error."""
        done = subprocess.run(command, cwd=self.root, env=self.environment(), capture_output=True, text=True)
        return done.stdout + done.stderr

    def warmed(self, runtime: Path) -> Checkout:
        """The same folder, with a warm process."""
        runtime.mkdir(mode=0o700)
        warm = Checkout(self.root, runtime)
        said = warm.run(sys.executable, "-m", "pipeline", "warm")
        found = re.search(r"process (\d+)\.", said)
        assert found, said
        warm.warm_pid = int(found[1])
        return warm

    def reproduced(self) -> None:
        """Two commits with results, and a digit beside them."""
        for message in ("first", "second"):
            self.edit_lr()
            self.run("dvc", "repro")
            self.run("git", "-c", "user.name=b", "-c", "user.email=b@example.invalid", "commit", "-qam", message)
        Image.fromarray(np.load(self.root / "data/processed/test/images.npy")[0]).save(self.root / DIGIT)

    def edit_lr(self) -> None:
        """Another one each time, or DVC would bring back what it remembers."""
        self.edits += 1
        path = self.root / RMSPROP
        lr = f"lr: {1 + (self.edits + 100 * bool(self.runtime)) / 1000:.3f}e-3"
        path.write_text(re.sub(r"^lr: \S+", lr, path.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")

    def cpu_s(self, words: Sequence[str]) -> float:
        if words[0] == "dvc":
            self.edit_lr()
        command = words if words[0] == "dvc" else (sys.executable, "-m", f"pipeline.{words[0]}", *words[1:])
        before = self._used_s()
        self.run(*command)
        return self._used_s() - before

    def _used_s(self) -> float:
        """By all children that have ended, and by the warm process with its forks that have."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        warm_s = 0.0
        if self.warm_pid:
            fields = Path(f"/proc/{self.warm_pid}/stat").read_text().rpartition(")")[2].split()
            warm_s = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return usage.ru_utime + usage.ru_stime + warm_s


Found = dict[str, dict[str, list[float]]]  # label of a command -> way -> processor seconds, round by round


def measured(ways: Mapping[str, Checkout], commands: Mapping[str, Sequence[str]], rounds: int) -> Found:
    found: Found = {label: {way: [] for way in ways} for label in commands}
    for label, words in commands.items():
        for _ in range(rounds):
            for way, checkout in ways.items():
                found[label][way].append(checkout.cpu_s(words))
        print(label, found[label], flush=True)
    return found


def table(title: str, found: Found, first: str, *others: str) -> str:
    """A row for each command: of each way the median (least–most), and of the others their ratio to the first one."""
    rows = [[title, first, *(column for way in others for column in (way, f"of {first}"))]]
    for label, ways in found.items():
        row = [label, spread(ways[first])]
        for way in others:
            ratios = [other / one for other, one in zip(ways[way], ways[first], strict=True)]
            row += [spread(ways[way]), f"{statistics.median(ratios):.2f}"]
        rows.append(row)
    return markdown_table(rows)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, to be measured beside this one")
    options = parse(parser, rounds=1, before=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = Checkout.clone(ROOT, folder / "now")
        warm = now.warmed(folder / "warm")
        ways = {"cold": now, "warm": warm}
        if options.before:
            ways = {"before": Checkout.clone(options.before.resolve(), folder / "before"), **ways}
        try:
            found = {"settings alone": measured(ways, AT_ONCE, options.rounds)}
            if not options.smallest:
                for way in ways.keys() - {"warm"}:
                    ways[way].reproduced()
                found["with results"] = measured(ways, WITH_RESULTS, options.rounds)
        finally:
            warm.run(sys.executable, "-m", "pipeline", "warm", "--stop")
    tables = [table(title, part, "cold", "warm") for title, part in found.items()]
    if options.before:
        tables += [table(f"{title}, beside before", part, "before", "cold", "warm") for title, part in found.items()]
    text = "\n\n".join(tables)
    publish("answers", f"{machine()}; {options.rounds} rounds, median (least–most).\n\n{text}", options)


if __name__ == "__main__":
    main()
