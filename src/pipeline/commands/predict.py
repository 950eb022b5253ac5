"""pipeline predict: what is on images, in arrays or in tables.

Images may have any size and colour. For a network that was trained on digits they are prepared as MNIST's were:
inverted where the background is light, scaled, centred by mass; each answer says what was done. An unreadable image is
reported, the others are answered, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from pipeline.prediction.arguments import model_named, wide_console
from pipeline.prediction.samples import Sample, batches
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError, DataContractError
from pipeline.system.startup import load

if TYPE_CHECKING:
    from pipeline.model.portable import Portable

MOST_ROWS = 50  # of a table for people
TOP = 3


@dataclass(frozen=True)
class Answer:
    """What the network says of one sample."""

    sample: Sample
    classes: list[str]
    probabilities: np.ndarray[Any, np.dtype[np.float32]]  # (C,)

    @property
    def top(self) -> list[tuple[str, float]]:
        """The most probable classes, the first of which is the answer."""
        order = np.argsort(-self.probabilities, kind="stable")[:TOP]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def as_json(self) -> dict[str, Any]:
        (name, probability), *_ = top = self.top
        each = {label: float(value) for label, value in zip(self.classes, self.probabilities, strict=True)}
        return {
            "input": self.sample.name,
            "class": name,
            "probability": probability,
            "top": [{"class": label, "probability": value} for label, value in top],
            "probabilities": each,
            "done": self.sample.done,
        }


def answers(model: Portable, inputs: Sequence[str], bad: list[str]) -> Iterator[Answer]:
    """One for each sample, in order; what cannot be read is told on stderr, and its message is put into `bad`."""

    from pipeline.model.portable import predict_log_probabilities

    def tell(message: str) -> None:
        bad.append(message)
        print(f"predict: {message}", file=sys.stderr)

    for batch in batches(inputs, model.input, tell):
        found = np.exp(predict_log_probabilities(model, np.stack([sample.values for sample in batch])))
        for sample, probabilities in zip(batch, found, strict=True):
            yield Answer(sample, model.classes, probabilities)


# ---------------------------------------------------------------- how it is told


def print_table(found: Iterator[Answer]) -> None:
    table = Table("input", "class", "probability", "then", "done", box=None, pad_edge=False, header_style="")
    counts: Counter[str] = Counter()
    for answer in found:
        (name, probability), *others = answer.top
        counts[name] += 1
        if counts.total() <= MOST_ROWS:
            then = ", ".join(f"{other} {value:.1%}" for other, value in others)
            table.add_row(answer.sample.name, name, f"{probability:.1%}", then, answer.sample.done)
    console = wide_console()
    if counts:
        console.print(table, highlight=False, markup=False)
    if counts.total() > MOST_ROWS:
        console.print(f"and {counts.total() - MOST_ROWS:,} more: --format csv has them all", highlight=False)
        by_class = ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))
        console.print(f"{counts.total():,} samples. {by_class}", highlight=False, markup=False)


def print_csv(found: Iterator[Answer]) -> None:
    """input, class, probability, done, then the probability of each class."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, answer in enumerate(found):
        if number == 0:
            writer.writerow(["input", "class", "probability", "done", *answer.classes])
        name, probability = answer.top[0]
        values = [f"{value:.6g}" for value in answer.probabilities.tolist()]
        writer.writerow([answer.sample.name, name, f"{probability:.6g}", answer.sample.done, *values])


def print_json(found: Iterator[Answer]) -> None:
    """A list, written one element a line."""
    sys.stdout.write("[")
    for number, answer in enumerate(found):
        line = json.dumps(answer.as_json(), ensure_ascii=False, allow_nan=False)
        sys.stdout.write((",\n" if number else "\n") + line)
    sys.stdout.write("\n]\n")


FORMATS = {"table": print_table, "csv": print_csv, "json": print_json}


def split_words(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Inputs, and what model=… names. Raises ConfigError for two models, and for a word that is neither."""
    models = [word for word in words if word.startswith("model=")]
    if len(models) > 1:
        raise ConfigError(f"expected one model=…, found {len(models)}")
    inputs = [word for word in words if not word.startswith("model=")]
    if not inputs:
        raise ConfigError("nothing to predict: give images, a folder, a .npy or a .csv file")
    return inputs, model_named(models[0] if models else None)


def main(args: argparse.Namespace) -> None:
    inputs, name = split_words(args.words)
    if not any(os.access(given, os.F_OK) for given in inputs):  # else the others are answered
        raise DataContractError(f"{', '.join(inputs)}: there is no such file")
    root = project_root()
    load("predict", "torch")
    from pipeline.prediction.models import find_model

    found = find_model(root, name, "predict")
    print(f"model: {found.what}", file=sys.stderr)
    if found.model.input.kind is None:
        print("predict: its model.json does not say what it learned from: pictures are resized alone", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    bad: list[str] = []
    try:
        FORMATS[args.format](answers(found.model, inputs, bad))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; without this Python complains when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if bad:
        print(f"predict: {len(bad):,} could not be read, see above", file=sys.stderr)
        raise SystemExit(1)
