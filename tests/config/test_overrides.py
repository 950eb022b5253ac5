"""Overrides: what is swept, what a job is called, what a file says instead of them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from config.config_makers import CONF
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.overrides import as_settings, job_section, label_of, shell_words, swept_keys, unswept
from pipeline.system.errors import ConfigError


def test_swept_keys_are_those_with_several_values() -> None:
    words = ["model.units=64,128", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "seed=3", "hydra.launcher.n_jobs=2"]

    fixed, keys = swept_keys([*words, "optimizer=adam,sgd", "trainer.batch_size=range(32,97,32)"])

    assert fixed == ["seed=3"]
    assert keys == ["model.units", "optimizer.lr", "optimizer", "trainer.batch_size"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "seed=1,2", "hydra.launcher.n_jobs=2", "~hydra.x", "optimizer=adam"],
         ["hydra.launcher.n_jobs=2", "~hydra.x", "optimizer=adam"]),
        (["--cfg", "job", "seed=1"], ["seed=1"]),
        (["--cfg=job", "seed=1", "--resolve"], ["seed=1"]),
        (["seed=1", "-p", "~hydra.callbacks.x", "+hydra.callbacks.x=1"], ["seed=1", "+hydra.callbacks.x=1"]),
        (["--info", "plugins"], []),
    ],
)  # fmt: skip
def test_overrides_are_told_from_switches_and_their_values(arguments: list[str], words: list[str]) -> None:
    assert unswept(arguments) == words


@pytest.mark.parametrize(
    "switch",
    ["--config-dir=x", "--config-d=x", "-cd", "-cn", "--config-path", "--experimental-rerun", "--run", "--multi", "--"],
)
def test_switches_that_lead_past_conf_are_refused(switch: str) -> None:
    """By any name that Hydra would take; it completes what is cut short."""
    with pytest.raises(ConfigError, match=rf"^{switch.partition('=')[0]}: there is no such switch\. There is: -m, "):
        unswept([switch, "x", "seed=1"])


def test_a_list_is_one_value() -> None:
    assert swept_keys(["model.units=[64,32]"]) == (["model.units=[64,32]"], [])


def test_a_job_is_called_by_what_differs() -> None:
    words = ["model.units=64", "trainer.num_epochs=3", "optimizer=adam"]

    assert label_of(words, ["model.units", "optimizer"]) == "units=64 optimizer=adam"


def test_keys_that_end_alike_are_written_in_full() -> None:
    words = ["data.name=a", "model.name=b"]

    assert label_of(words, ["data.name", "model.name"]) == "data.name=a model.name=b"


def test_the_words_of_a_job_are_without_those_of_its_sweep() -> None:
    section = job_section(["model.units=64", "sweep.parent=abc", "sweep.fail_fast=true"], ["model.units"], 7)

    assert section == {"number": 7, "label": "units=64", "words": ["model.units=64"]}


def test_words_survive_a_shell() -> None:
    words = ["model.units=[64,32]", "data.path=my photos", "optimizer.lr=1e-3"]

    assert shlex.split(shell_words(words)) == words


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adam", "optimizer.lr=0.0030000000000000001", "model.units=[64,32]"],
        ["trainer.gradient_clip_norm=1.5", "trainer.early_stopping={patience_epochs: 2, min_delta: 0.0}"],
        ["scheduler=cosine", "model.dropout=0.25", "model.activation=tanh", "seed=3"],
        ["data.validation_fraction=0.2", "trainer.gradient_clip_norm=null"],
    ],
)
def test_an_experiment_file_says_the_same_as_the_overrides(words: list[str], tmp_path: Path) -> None:
    """Groups by the file's defaults, values by its keys."""
    choices, values = as_settings(words, CONF)
    groups = [f"{group}={option}" for group, option in choices.items()]

    expected = parse(compose_yaml(CONF, words))
    found = parse(compose_yaml(CONF, groups))

    assert merged(found, values) == expected


def merged(base: dict[str, object], values: dict[str, object]) -> dict[str, object]:
    found = dict(base)
    for key, value in values.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def test_a_removed_setting_has_no_file() -> None:
    with pytest.raises(ConfigError, match="cannot remove"):
        as_settings(["~optimizer"], CONF)
