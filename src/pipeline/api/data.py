"""Data sets: published ones, your own images and tables, arrays.

Shapes: N samples, C classes. A sample is (height, width), (height, width, 3) or (features,).
"""

from __future__ import annotations

import difflib
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from numpy.typing import ArrayLike

from pipeline.api.settings import Choice, DataSettings, composed, home, part
from pipeline.config import choices
from pipeline.config.check import validate
from pipeline.config.compose import parse
from pipeline.config.schema import Config, DownloadConfig, PreprocessConfig
from pipeline.data.arrays import source_from_arrays
from pipeline.data.card import DataCard
from pipeline.data.processed import Split, load_split, split_exists
from pipeline.download import download
from pipeline.preprocess import preprocess, write_processed
from pipeline.runtime.origin import DATA_CARD, PROCESSED, code_sha256
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.files import sha256_of, sha256_of_json
from pipeline.system.locks import locked

Samples = tuple[ArrayLike, ArrayLike]  # (N, *sample), and the label of each (N,)


@dataclass(frozen=True, repr=False)
class Data:
    """A data set that is checked and split. `load_data` makes it."""

    train: Split  # .images (N, *sample), uint8 or float32, memory-mapped; .labels (N,) int64, 0..C-1
    validation: Split | None  # None with validation_fraction=0
    test: Split
    card: DataCard  # counts, digests, duplicates, what is suspicious
    folder: Path  # it lies below as data/processed does below a project

    @property
    def classes(self) -> list[str]:
        """The C names, in the order of the labels."""
        return self.card.classes

    @property
    def sha256(self) -> str:
        """Digest of all that a network learns and is scored from. A trained model says what its data had."""
        return sha256_of(self.folder / DATA_CARD)

    def __repr__(self) -> str:
        counts = ", ".join(f"{facts['count']:,} {split}" for split, facts in self.card.splits.items())
        text = f"<Data {self.card.name}: {counts}, each {tuple(self.card.image_shape)}; {len(self.classes)} classes>"
        return "\n  suspicious: ".join([text, *self.card.suspicions])


def load_data(
    source: str | os.PathLike[str] | Samples | tuple[Samples, Samples] | None = None,
    *,
    expand: Choice | None = None,
    **settings: Unpack[DataSettings],
) -> Data:
    """A data set as the stages download and preprocess make it: checked, split, memory-mapped.

    Args:
        source: one of conf/data ("mnist_5k", "mnist", "fashion_mnist", …); a folder that holds a folder of images for
            each class; a table, .csv or .parquet, with `label`; arrays, as (images, labels) with a `test_fraction`, or
            ((images, labels), (images, labels)) to train on and to test with. Images are uint8, 0 to 255, since
            scaling is the network's first step. None: what `dvc repro` left in this project.
        expand: one of conf/expand: "deform" adds deformed copies of the training images.

    A published data set is downloaded once, proved by its digest, and kept in .pipeline/ beside conf/. Your own is
    copied to a temporary folder, which goes when the data does.

    Raises:
        ConfigError: no such data set, or a setting that is wrong, unknown or missing.
        DataContractError: the data cannot be trained on.
        DownloadError: no mirror has a file with the right digest.
    """
    if source is None:
        return _opened(project_root())
    root = home()
    if isinstance(source, tuple):
        return _temporary(partial(_write_arrays, source, root, expand, settings))
    choice, path = _named(source, root)
    record = composed(root, data=choice, expand=expand)
    record["data"] |= path | settings
    validate(Config, {**record, "trainer": record["trainer"] | {"keep": "last"}})
    if path:
        return _temporary(lambda folder: _prepare(folder, folder, record))
    key = sha256_of_json([record["data"], record["expand"], code_sha256(root, "preprocess")])
    folder = root / ".pipeline/data" / f"{choice}-{key[:16]}"
    with locked(folder.with_suffix(".lock")):
        if not (folder / DATA_CARD).exists():
            _prepare(folder, root, record)
        return _opened(folder)


def _named(source: str | os.PathLike[str], root: Path) -> tuple[str, dict[str, Any]]:
    """The choice of conf/data that a name or a path means, and data.path."""
    known, path = choices(root / "conf/data"), Path(source).expanduser()
    if source in known:
        return str(source), {}
    if not path.exists():
        near = difflib.get_close_matches(str(source), known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(known)}"
        raise ConfigError(f"{source}: expected a data set of conf/data, or a file or folder that is there. {hint}")
    is_table = path.is_file() or any((path / f"train{suffix}").exists() for suffix in (".csv", ".parquet"))
    return "table" if is_table else "image_folder", {"path": str(path.resolve())}


def _prepare(folder: Path, root: Path, record: Mapping[str, Any]) -> None:
    """Both stages, one after the other.

    root: where downloads are kept.
    """
    with tempfile.TemporaryDirectory(prefix="pipeline-raw-") as temporary, redirect_stdout(io.StringIO()):
        raw = Path(temporary, "raw")
        view = validate(DownloadConfig, part(record, DownloadConfig)).data
        download(view, root, raw, os.environ.get("PIPELINE_MIRROR"))
        preprocess(raw, folder / PROCESSED, validate(PreprocessConfig, part(record, PreprocessConfig)))


def _write_arrays(
    source: tuple[Any, ...], root: Path, expand: Choice | None, settings: Mapping[str, Any], folder: Path
) -> None:
    halves = isinstance(source[0], (tuple, list))
    arrays: dict[str, Any] = dict(zip(("train", "test"), source, strict=True)) if halves else {"all": source}
    allowed = ("classes", "validation_fraction", "split_seed", *(() if halves else ("test_fraction",)))
    if foreign := sorted(settings.keys() - set(allowed)):
        raise ConfigError(f"data.{foreign[0]} means nothing for these arrays. There is: {', '.join(allowed)}")
    base = parse((root / "conf/data/base.yaml").read_text(encoding="utf-8"))
    record = composed(root, expand=expand) | {"data": {**base, "name": "arrays", **settings}}
    cfg = validate(PreprocessConfig, part(record, PreprocessConfig))
    samples = source_from_arrays(arrays, cfg.data.classes)
    if samples.features and cfg.expand.name != "none":
        raise ConfigError(f"expand={cfg.expand.name} deforms images, but these arrays are rows: leave it out")
    with redirect_stdout(io.StringIO()):  # `Data` says the same
        write_processed(samples, "arrays", "arrays", folder / PROCESSED, cfg)


def _temporary(write: Callable[[Path], object]) -> Data:
    folder = Path(tempfile.mkdtemp(prefix="pipeline-data-"))
    try:
        write(folder)
        data = _opened(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(data, shutil.rmtree, folder, ignore_errors=True)
    return data


def _opened(folder: Path) -> Data:
    processed = folder / PROCESSED
    card = DataCard.read(folder / DATA_CARD)
    validation = load_split(processed, "validation") if split_exists(processed, "validation") else None
    return Data(load_split(processed, "train"), validation, load_split(processed, "test"), card, folder)
