"""Overrides as people type them: which are swept, how they name a job, how to type them again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.compose import refusals
from pipeline.system.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Hydra's switches that leave conf/ what is composed; those that a word follows.
SWITCHES = ("-m", "--multirun", "--resolve", "--hydra-help", "--version")
VALUED_SWITCHES = ("--cfg", "-c", "--package", "-p", "--info", "-i")
SAMPLED = re.compile(r"-?\d+\.\d+(e[-+]?\d+)?")
MAX_TYPED_DIGITS = 8


def swept_keys(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of a multirun that fix something of the configuration, and the keys that it sweeps."""
    settings = [override for override in _parsed(overrides) if not override.is_hydra_override()]
    fixed = [str(override.input_line) for override in settings if not override.is_sweep_override()]
    return fixed, [override.get_key_element().lstrip("+") for override in settings if override.is_sweep_override()]


def unswept(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments of Hydra's command line that are in each of its compositions.

    Raises:
        ConfigError: a switch by which Hydra would read other settings than those in conf/.
    """
    words, switch = [], ""
    for argument in arguments:
        if argument.startswith("-"):
            name, _, value = argument.partition("=")
            if name not in (*SWITCHES, *VALUED_SWITCHES):
                raise ConfigError(
                    f"{name}: there is no such switch. There is: {', '.join((*SWITCHES, *VALUED_SWITCHES))}. Settings "
                    "are read from conf/ alone"
                )
            switch = "" if value else name
        elif switch in VALUED_SWITCHES:
            switch = ""
        else:
            words.append(argument)
    return [str(override.input_line) for override in _parsed(words) if not override.is_sweep_override()]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with refusals(shell_words(overrides)):
        return OverridesParser.create().parse_overrides(list(overrides))


def job_section(overrides: Sequence[str], varied: Sequence[str], number: int) -> dict[str, Any]:
    """What a job is within its sweep (`SweepJob`), from the overrides that Hydra gives it."""
    of_job = [override for override in overrides if not override.lstrip("+").startswith("sweep.")]
    return {"number": number, "label": label_of(of_job, varied), "words": of_job}


def label_of(overrides: Sequence[str], varied: Sequence[str]) -> str:
    """`units=64 lr=0.01`: the values of the varied keys, each key by its last part where that is clear."""
    values = values_of(overrides)
    names = short_names(varied)
    return " ".join(f"{names[key]}={short_value(values[key])}" for key in varied if key in values)


def short_value(text: str) -> str:
    """A sampled 0.004430375245218269 as 0.00443; what a person has typed as it is."""
    digits = text.partition("e")[0].replace(".", "").lstrip("-0")
    return f"{float(text):.4g}" if SAMPLED.fullmatch(text) and len(digits) > MAX_TYPED_DIGITS else text


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, or whole where two end alike."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value, both as text."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def as_settings(overrides: Sequence[str], conf: Path) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Overrides as an experiment file says them: the choices of groups, and nested values.

    Raises:
        ConfigError: an override that removes something; a file cannot say that.
    """
    from omegaconf import OmegaConf

    choices: dict[str, str | None] = {}
    values = OmegaConf.create()
    for override in _parsed(overrides):
        key, value = override.key_or_group, override.value()
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: an experiment file cannot remove a setting")
        if (conf / key).is_dir():
            choices[key] = None if value is None else str(value)
        else:
            OmegaConf.update(values, key, value, force_add=True)
    nested: Any = OmegaConf.to_container(values)
    return choices, nested


def shell_words(overrides: Sequence[str]) -> str:
    """Overrides as they can be typed: quoted where a shell would not leave them alone."""
    return " ".join(shlex.quote(override) for override in overrides)
