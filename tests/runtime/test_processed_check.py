"""Stages by hand only read data/processed, and refuse one that was made with other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.config_makers import whole_config
from data_makers import DEFORM, preprocess_config, tiny_set, write_raw
from pipeline.preprocess import preprocess
from pipeline.runtime.stage_runner import require_same_data
from pipeline.system.errors import ConfigError

NONE = {"name": "none"}
TINY: dict[str, Any] = {"data.name": "tiny", "data.classes": None}


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        (NONE, DEFORM, "expand.name=none (asked for: deform)"),
        (DEFORM, NONE, "expand.name=deform (asked for: none)"),
        (DEFORM, DEFORM | {"copies": 9, "seed": 7}, "expand.copies=3 (asked for: 9), expand.seed=0 (asked for: 7)"),
    ],
    ids=["none, asked for deform", "deform, asked for none", "other copies"],
)
def test_another_expansion_is_refused(made: dict[str, Any], asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    """An override of expand is never ignored in silence."""
    processed = processed_with(made, tmp_path)

    with pytest.raises(ConfigError) as caught:
        require_same_data(whole_config(TINY | {"expand": asked}), processed)
    assert f"processed was made with {said}. Stages by hand only read it." in str(caught.value)


@pytest.mark.parametrize("expand", [NONE, DEFORM], ids=["none", "deform"])
def test_the_same_settings_are_taken(expand: dict[str, Any], tmp_path: Path) -> None:
    require_same_data(whole_config(TINY | {"expand": expand}), processed_with(expand, tmp_path))


def test_another_split_is_refused(tmp_path: Path) -> None:
    said = r"made with data\.split_seed=0 \(asked for: 1\)\. .* add to your command: data\.split_seed=0\. "
    with pytest.raises(ConfigError, match=said):
        require_same_data(whole_config(TINY | {"data.split_seed": 1}), processed_with(NONE, tmp_path))


def test_what_to_type_for_what_is_there_is_said(tmp_path: Path) -> None:
    """The first sweep after `dvc exp run` on one's own data lacks its overrides."""
    processed = processed_with(NONE, tmp_path)
    (tmp_path / "dvc.lock").write_text(
        "stages: {download: {params: {params.yaml: {data.kind: table, data.path: /me/irises.csv}}}}"
    )

    with pytest.raises(
        ConfigError, match=r"add to your command: data=tiny data\.path=/me/irises\.csv\. To make it anew"
    ):
        require_same_data(whole_config({"data.name": "other"}), processed)


def processed_with(expand: dict[str, Any], folder: Path) -> Path:
    """data/processed below a project without dvc.lock."""
    write_raw(folder / "raw", tiny_set())
    preprocess(folder / "raw", folder / "data/processed", preprocess_config(expand=expand))
    return folder / "data/processed"
