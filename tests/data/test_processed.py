"""What later stages see of data/processed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_makers import preprocess_config, tiny_set, write_raw
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split, split_exists
from pipeline.preprocess import preprocess
from pipeline.system.errors import DataContractError


@pytest.fixture
def processed(tmp_path: Path) -> Path:
    write_raw(tmp_path / "raw", tiny_set())
    preprocess(tmp_path / "raw", tmp_path / "processed", preprocess_config(validation_fraction=0.0))
    return tmp_path / "processed"


def test_a_split_is_mapped_and_read_only(processed: Path) -> None:
    split = load_split(processed, "train")

    assert isinstance(split.images, np.memmap)
    assert split.images.shape == (30, 5, 4)
    assert split.images.dtype == np.uint8
    assert split.labels.shape == (30,)
    assert split.labels.dtype == np.int64
    assert not split.images.flags.writeable


def test_a_split_that_was_not_made_is_told_with_those_that_were(processed: Path) -> None:
    assert not split_exists(processed, "validation")
    with pytest.raises(DataContractError, match="has no split 'validation': found test, train"):
        load_split(processed, "validation")


def test_missing_data_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match=r"nothing was preprocessed yet\. Run: dvc repro preprocess"):
        load_split(tmp_path / "processed", "train")


def test_a_damaged_array_is_named(processed: Path) -> None:
    (processed / "train" / "images.npy").write_bytes(b"\x93NUMPY")

    with pytest.raises(DataContractError, match=r"train/images\.npy cannot be read .* Run: dvc repro -f preprocess"):
        load_split(processed, "train")


def test_images_and_labels_of_different_length_are_refused(processed: Path) -> None:
    np.save(processed / "train" / "labels.npy", np.zeros(29, dtype=np.int64))

    with pytest.raises(DataContractError, match="expected as many labels as images, found 29 and 30"):
        load_split(processed, "train")


def test_a_missing_card_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="Run: dvc repro preprocess"):
        DataCard.read(tmp_path / "data_card.json")


def test_a_damaged_card_names_what_it_should_hold(processed: Path) -> None:
    (processed / "data_card.json").write_text('{"name": "tiny"}')

    with pytest.raises(DataContractError, match=r"is damaged .* expected JSON with name, kind, classes"):
        DataCard.read(processed / "data_card.json")
