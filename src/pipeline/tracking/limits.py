"""How a value becomes one that MLflow can hold: as text, within its lengths, in parts of the size of one call."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

PARAM_CHARS = 6000  # MLflow's limits; longer values would be cut without a word
TAG_CHARS = 8000
DIGEST_CHARS = 36
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100

T = TypeVar("T")


def as_text(value: Any) -> str:
    """Strings as they are, the rest as JSON: equal values have equal texts.

    Raises:
        TypeError: an object; its text would differ from run to run.
    """
    return value if isinstance(value, str) else json.dumps(value)


def fit(text: str, limit: int) -> str:
    """The text, or its beginning and a word about what is missing."""
    note = f" ... [{len(text)} characters, cut here]"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def table_cell(value: Any) -> Any:
    """A JSON value: NumPy's numbers as Python's, NaN and infinity as an empty cell."""
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
