"""Labels that are text, met one after another, and the classes they make."""

from __future__ import annotations

import difflib
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.data.source import Labels
from pipeline.errors import DataContractError


@dataclass
class TextLabels:
    """N labels in 8 bytes each: the number of a text is its place among the texts met so far."""

    texts: dict[str, int] = field(default_factory=dict)
    numbers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, texts: Iterable[str]) -> None:
        self.numbers.extend(self.texts.setdefault(text, len(self.texts)) for text in texts)

    def as_classes(self, classes: tuple[str, ...], where: str) -> Labels:
        """The labels as positions in ``classes``, (N,). ``where`` they come from is told in the message.

        Raises:
            DataContractError: a text that is no class.
        """
        unknown = [text for text in self.texts if text not in classes]
        if unknown:
            near = difflib.get_close_matches(unknown[0], classes, n=3, cutoff=0)
            raise DataContractError(
                f"{where}: expected one of the {len(classes)} classes of the training data (data.classes), "
                f"found {unknown[0]!r}; nearest: {', '.join(near)}."
            )
        position = {name: label for label, name in enumerate(classes)}
        table = np.array([position[text] for text in self.texts], dtype=np.int64)
        return table[np.frombuffer(self.numbers, dtype=np.int64)]


def discovered_classes(labels: TextLabels) -> tuple[str, ...]:
    """The texts in order: by value if all are whole numbers, else as text."""
    if all(re.fullmatch(r"-?[0-9]+", text) for text in labels.texts):
        return tuple(sorted(labels.texts, key=lambda text: (int(text), text)))
    return tuple(sorted(labels.texts))
