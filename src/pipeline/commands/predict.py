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

from pipeline.commands import model_named, wide_console
from pipeline.prediction.samples import Report, Sample, batches
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError, DataContractError
from pipeline.system.startup import load

if TYPE_CHECKING:
    from pipeline.model.portable import TrainedModel

MAX_ROWS = 50  # of a table for people
TOP = 3


@dataclass(frozen=True)
class Prediction:
    """Of one sample."""

    sample: Sample
    classes: list[str]
    probabilities: np.ndarray[Any, np.dtype[np.float32]]  # (C,)

    @property
    def top(self) -> list[tuple[str, float]]:
        """The most probable classes, the first of which is predicted."""
        order = np.argsort(-self.probabilities, kind="stable")[:TOP]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def prediction_json(self) -> dict[str, Any]:
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


def predict(model: TrainedModel, inputs: Sequence[str], report: Report) -> Iterator[Prediction]:
    """One for each sample, in order; `report` is called with a message for each that cannot be read."""
    for batch in batches(inputs, model.input, report):
        rows = np.exp(model.predict_log_proba(np.stack([sample.values for sample in batch])))
        for sample, probabilities in zip(batch, rows, strict=True):
            yield Prediction(sample, model.classes, probabilities)


# ---------------------------------------------------------------- formats


def print_table(predictions: Iterator[Prediction]) -> None:
    table = Table("input", "class", "probability", "then", "done", box=None, pad_edge=False, header_style="")
    counts: Counter[str] = Counter()
    for prediction in predictions:
        (name, probability), *others = prediction.top
        counts[name] += 1
        if counts.total() <= MAX_ROWS:
            then = ", ".join(f"{other} {value:.1%}" for other, value in others)
            table.add_row(prediction.sample.name, name, f"{probability:.1%}", then, prediction.sample.done)
    console = wide_console()
    if counts:
        console.print(table, highlight=False, markup=False)
    if counts.total() > MAX_ROWS:
        console.print(f"and {counts.total() - MAX_ROWS:,} more: --format csv has them all", highlight=False)
        by_class = ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))
        console.print(f"{counts.total():,} samples. {by_class}", highlight=False, markup=False)


def print_csv(predictions: Iterator[Prediction]) -> None:
    """input, class, probability, done, then the probability of each class."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, prediction in enumerate(predictions):
        if number == 0:
            writer.writerow(["input", "class", "probability", "done", *prediction.classes])
        name, probability = prediction.top[0]
        values = [f"{value:.6g}" for value in prediction.probabilities.tolist()]
        writer.writerow([prediction.sample.name, name, f"{probability:.6g}", prediction.sample.done, *values])


def print_json(predictions: Iterator[Prediction]) -> None:
    """A list, written one element a line."""
    sys.stdout.write("[")
    for number, prediction in enumerate(predictions):
        line = json.dumps(prediction.prediction_json(), ensure_ascii=False, allow_nan=False)
        sys.stdout.write((",\n" if number else "\n") + line)
    sys.stdout.write("\n]\n")


FORMATS = {"table": print_table, "csv": print_csv, "json": print_json}


def split_arguments(words: Sequence[str], options: Sequence[str] = ()) -> tuple[list[str], str | None]:
    """Inputs, and what model=… or --model names. Raises ConfigError: two models, or nothing to predict."""
    models = [word.removeprefix("model=") for word in words if word.startswith("model=")]
    inputs = [word for word in words if not word.startswith("model=")]
    if not inputs:
        raise ConfigError("nothing to predict: give images, a folder, a .npy or a .csv file")
    return inputs, model_named(None, [*models, *options])


def main(args: argparse.Namespace) -> None:
    inputs, name = split_arguments(args.words, args.models)
    if not any(os.access(given, os.F_OK) for given in inputs):  # else the others are answered
        raise DataContractError(f"{', '.join(inputs)}: there is no such file")
    root = project_root()
    load("predict", "torch")
    from pipeline.prediction.models import find_model

    named = find_model(root, name, "predict")
    print(f"model: {named.what}", file=sys.stderr)
    if named.model.input.kind is None:
        print("predict: its model.json does not say what it learned from: pictures are resized alone", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    num_unread = 0

    def report(message: str) -> None:
        nonlocal num_unread
        num_unread += 1
        print(f"predict: {message}", file=sys.stderr)

    try:
        FORMATS[args.format](predict(named.model, inputs, report))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; without this Python complains when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if num_unread:
        print(f"predict: {num_unread:,} could not be read, see above", file=sys.stderr)
        raise SystemExit(1)
