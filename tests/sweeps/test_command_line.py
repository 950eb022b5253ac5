"""What a sweep's command line says, and what makes it the same sweep as another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config.check import validate
from pipeline.config.schema import Config
from pipeline.sweeps.command_line import Command, sweep_id
from pipeline.system.errors import ConfigError, DataContractError

CONF = Path(__file__).parents[2] / "conf"


def test_a_sweep_without_data_says_how_to_get_it(tmp_path: Path) -> None:
    """It may be the first command that a person tries."""
    command = Command.read(CONF, ["seed=1,2"])
    with pytest.raises(DataContractError, match=r"nothing was preprocessed yet\. Run: dvc repro preprocess"):
        sweep_id(command, tmp_path)


def test_an_id_that_looks_like_a_number_is_an_id() -> None:
    """4e16 would be one to Hydra."""
    assert [Command.read(CONF, [f"sweep.resume={name}"]).cfg.resume for name in ("4e16", "30765412", "s1")] == [
        "4e16", "30765412", "s1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweeper.max_batch_size=2", "seed=1,2"], "hydra.sweeper.max_batch_size is for"),
        (["sweep.fail_fast=true", "hydra/launcher=basic", "seed=1,2"], "sweep.fail_fast=true needs"),
        (["sweep.objectives=[val/loss]", "data.validation_fraction=0", "trainer.keep=last"], "sweep.objectives names"),
        (["sweep.job.number=1"], "is set by a sweep for its jobs"),
    ],
)
def test_what_would_be_ignored_is_a_mistake(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(Config, Command.read(CONF, words).config)


def test_the_launcher_may_be_named_in_conf(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    text = (conf / "config.yaml").read_text()
    (conf / "config.yaml").write_text(text.replace("hydra/launcher: process", "hydra/launcher: basic"))
    assert [Command.read(one, ["seed=1,2"]).by_processes for one in (CONF, conf)] == [True, False]


def test_a_search_may_be_described_in_an_experiment(tmp_path: Path) -> None:
    """As docs/searching.md does. A grid would not look at what is swept there."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    swept = "hydra: {sweeper: {n_trials: 5, params: {model.units: '8,16'}}}\n"
    optuna = "defaults:\n  - override /hydra/sweeper: optuna\n"
    (conf / "experiment/search.yaml").write_text(f"# @package _global_\n{optuna}{swept}")
    found = Command.read(conf, ["experiment=search"])
    assert found.search is not None
    assert found.keys == ("model.units",)

    (conf / "experiment/grid.yaml").write_text("# @package _global_\n" + swept.replace("n_trials: 5, ", ""))
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.params is for hydra/sweeper=optuna"):
        Command.read(conf, ["experiment=grid"])
