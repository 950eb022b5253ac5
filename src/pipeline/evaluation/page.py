"""An evaluation as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np

from pipeline.evaluation.findings import Findings
from pipeline.evaluation.html import document, drawing, sample, samples, table
from pipeline.evaluation.scores import Labels

SCORES = {  # of metrics/evaluate.json: what it is, and what it means
    "test/loss": ("loss", "mean negative log-likelihood, nats; 0 is perfect"),
    "test/brier": ("Brier score", "mean squared distance of the probabilities from the truth, 0 to 2"),
    "test/ece": ("calibration error", "how far confidence and accuracy lie apart, on average, 0 to 1"),
}


def page(found: Findings, facts: Mapping[str, str], figures: Path, most_suspects: int) -> str:
    """The whole file.

    Args:
        facts: about the model and the data, in the order in which they are shown.
        figures: the folder with the PNGs that were drawn.
    """
    scores = found.scores
    title = f"Test accuracy {scores['test/accuracy']:.2%}"
    interval = f"{scores['test/accuracy_low']:.2%} to {scores['test/accuracy_high']:.2%}"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{scores['test/correct']:,} of {scores['test/count']:,} samples right; 95 % interval {interval} "
        "(Wilson).</p>",
        table([], [[name, f"{scores[key]:.4f}", meaning] for key, (name, meaning) in SCORES.items()]),
        table([], [[name, text] for name, text in facts.items()]),
        *_figure(figures, "learning_curves.png", "Learning curves", ""),
        "<h2>Classes</h2>",
        table(["class", "precision", "recall", "F1", "samples"], _class_rows(found)),
        *_pairs(found),
        *_figure(figures, "confusion_matrix.png", "", "Rows are the true classes. Errors are coloured."),
        *_figure(
            figures, "reliability.png", "Calibration",
            "Below the diagonal the network is surer than it should be.",
        ),
        *_gallery(found, found.worst, "Most confident mistakes", "no errors on the test set"),
        *_suspects(found, most_suspects),
        *_robustness(found, figures),
    ]  # fmt: skip
    return document(title, parts)


def _class_rows(found: Findings) -> Iterator[list[str]]:
    for name, precision, recall, f1, count in zip(*found.per_class.values(), strict=True):
        yield [name, f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", f"{count:,}"]


def _pairs(found: Findings) -> Iterator[str]:
    if found.pairs:
        yield "<h3>Most confused</h3>"
        rows = [[f"{pair.actual} → {pair.predicted}", f"{pair.count:,}", f"{pair.share:.1%}"] for pair in found.pairs]
        yield table(["is → was taken for", "samples", "of its class"], rows)


def _figure(figures: Path, file: str, heading: str, words: str) -> Iterator[str]:
    if (figures / file).exists():
        yield f"<h2>{heading}</h2>" if heading else ""
        yield f"<p class='soft'>{escape(words)}</p>" if words else ""
        yield drawing((figures / file).read_bytes(), heading or words)


def _gallery(found: Findings, indices: Labels, heading: str, none: str) -> Iterator[str]:
    """Pictures with their index, or, of a table, rows."""
    yield f"<h2>{heading}</h2>"
    if not len(indices):
        yield f"<p class='soft'>{none}</p>"
        return
    said = [(int(index), *found.said(int(index))) for index in indices]
    if found.are_pictures:
        yield samples(
            sample(found.images[i], i, f"is {true}", f"said {taken}, {sure:.1%}") for i, true, taken, sure in said
        )
    else:
        rows = [[f"{i}", true, taken, f"{sure:.1%}"] for i, true, taken, sure in said]
        yield table(["row", "is", "was taken for", "with"], rows)


def _suspects(found: Findings, most: int) -> Iterator[str]:
    yield from _gallery(found, found.suspects[:most], "Labels that are probably wrong", "none of the test labels")
    yield (
        "<p class='soft'>By confident learning (Northcutt et al. 2021) on the test set, which the network was not "
        f"trained on: {len(found.suspects):,} of {len(found.labels):,} samples, all of them in "
        "plots/label_errors.csv. The numbers are rows of data/processed/test and stay the same from run to run.</p>"
    )


def _robustness(found: Findings, figures: Path) -> Iterator[str]:
    if found.curves:
        words = (
            f"Accuracy on {found.curves[0].count:,} test images that were changed, with its 95 % interval. "
            "The dotted line is the image as it is."
        )
        yield from _figure(figures, "robustness.png", "Robustness", words)


def label_rows(found: Findings) -> list[list[str]]:
    """index, label, suggested, probability_of_label: one row a suspect, the least probable label first."""
    rows = []
    for index in found.suspects:
        true, suggested, _ = found.said(int(index))
        probability = np.exp(found.log_probabilities[index, found.labels[index]])
        rows.append([str(index), true, suggested, f"{probability:.6f}"])
    return rows
