"""What lies in data/raw: the note `source.json` about it, and the samples in it as preprocess reads them."""

from __future__ import annotations

import difflib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.system.errors import DataContractError
from pipeline.system.files import read_json, sha256_of, write_json

Array = NDArray[Any]
Labels = NDArray[np.int64]
REPAIR = "Run: dvc repro -f download"
Format = Literal["idx", "image_folder", "table"]
ROLES: dict[str, tuple[set[str], ...]] = {
    "idx": ({"train_images", "train_labels", "test_images", "test_labels"},),
    "image_folder": ({"images"},),
    "table": ({"all"}, {"train", "test"}),
}
CHUNK_BYTES = 4 << 20  # of samples in memory at once; a few times this is the peak of preprocess


@dataclass(frozen=True)
class RawFile:
    """One file in data/raw."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RawNote:
    """The content of `source.json`. The same bytes for the same data: DVC hashes it.

    files: role -> file; see ROLES.
    """

    name: str
    kind: str  # data.kind that download was given
    format: Format
    files: dict[str, RawFile]

    def write(self, raw: Path) -> None:
        write_json(raw / "source.json", asdict(self))

    @classmethod
    def read(cls, raw: Path) -> RawNote:
        """Read it back from the folder data/raw.

        Raises:
            DataContractError: download has not run, or what it left is damaged.
        """
        path = raw / "source.json"
        if not path.exists():
            raise DataContractError(f"{path} is missing: nothing was downloaded yet. Run: dvc repro download")
        try:
            note = read_json(path)
            files = {role: RawFile(**file) for role, file in note.pop("files").items()}
            read = cls(**note, files=files)
            read._check()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            expected = ", ".join(field.name for field in fields(cls))
            raise DataContractError(f"{path} is damaged ({error}): expected JSON with {expected}. {REPAIR}") from error
        for file in read.files.values():
            if not (raw / file.file).is_file():
                raise DataContractError(f"{raw / file.file} is missing: expected what {path.name} lists. {REPAIR}")
        return read

    def _check(self) -> None:
        """Raise ValueError for roles that no reader knows, and for a name that leads out of the folder."""
        if set(self.files) not in ROLES.get(self.format, ()):
            raise ValueError(f"format {self.format!r} with the files {', '.join(self.files) or 'none'}")
        for file in self.files.values():
            if Path(file.file).name != file.file or file.file in ("", "..") or "\0" in file.file:
                raise ValueError(f"{file.file!r} is no name of a file beside it")


def describe_file(path: Path) -> RawFile:
    return RawFile(path.name, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True)
class Part:
    """The samples of one part of the raw data, in the order in which they lie there."""

    labels: Labels  # (N,), 0..C-1
    chunks: Callable[[], Iterator[Array]]  # (n, *shape) each, together N samples; may raise DataContractError


@dataclass(frozen=True)
class Source:
    """Raw data that kept its contract as far as can be told without reading every sample."""

    classes: tuple[str, ...]  # names in the order of the labels
    shape: tuple[int, ...]  # of one sample: (H, W), (H, W, 3) or (F,)
    dtype: Literal["uint8", "float32"]
    features: tuple[str, ...] | None  # of a table
    parts: dict[str, Part]  # "train" and "test", or "all" where there is no test set


# ---------------------------------------------------------------- labels that are text


@dataclass
class TextLabels:
    """N labels in 8 bytes each: the number of a text is its place among the texts met so far."""

    texts: dict[str, int] = field(default_factory=dict)
    numbers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, texts: Iterable[str]) -> None:
        self.numbers.extend(self.texts.setdefault(text, len(self.texts)) for text in texts)

    def as_classes(self, classes: tuple[str, ...], where: str) -> Labels:
        """The labels as positions in ``classes``, (N,). ``where`` they come from is for the message.

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
