"""What `pipeline COMMAND --help` prints: one shape for all commands, and the pages of the stages.

A page is what argparse makes of it, at most 25 lines of 80 columns. Nothing is composed for it, and nothing slow is
imported; pipeline/commands/parsers.py has the pages of the other commands.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

WIDTH = 80
COLUMN = 18  # where the meaning of an argument begins


@dataclass(frozen=True)
class Stage:
    """What the help of a stage says."""

    about: str
    groups: tuple[str, ...]  # folders of conf/ that this stage reads
    examples: Mapping[str, str]  # arguments: what they do
    more: str


STAGES = {
    "configure": Stage(
        "Compose and check conf/ and write params.yaml, so that `dvc repro` follows every edit of conf/. It takes no "
        "arguments: edit conf/, or give overrides to `dvc exp run -S`.",
        (),
        {"": "what `dvc repro` runs first"},
        "docs/configuration.md has every setting, docs/architecture.md the stages",
    ),
    "download": Stage(
        "Put verified raw data into data/raw: published files, your images or your table. By hand it writes to "
        "outputs/ instead, and the pipeline's data stays as it is.",
        ("data",),
        {
            "data=mnist": "another data set",
            "data=image_folder data.path=pictures": "your images",
            "data=table data.path=a.csv data.label=kind": "your table",
            "data=mnist hydra.run.dir=outputs/mnist": "where files go",
            "--cfg job": "show settings",
        },
        "docs/data.md",
    ),
    "preprocess": Stage(
        "Check the raw data, split it, and write arrays and a data card. By hand it reads data/raw and writes to "
        "outputs/.",
        ("data", "expand"),
        {
            "data.validation_fraction=0.2": "a larger validation split",
            "data.split_seed=1": "other samples in each split",
            "expand=deform expand.copies=2": "two deformed copies each",
            "hydra.run.dir=outputs/arrays": "where the files go",
            "--cfg job": "show the settings",
        },
        "docs/data.md; every setting: docs/configuration.md",
    ),
    "train": Stage(
        "Train a network on data/processed, tracked in MLflow; with -m train a sweep. By hand it writes to outputs/, "
        "a sweep to multirun/.",
        ("data", "expand", "experiment", "loss", "model", "optimizer", "scheduler", "tracking", "trainer"),
        {
            "optimizer=adam optimizer.lr=1e-3": "another optimizer",
            "'model.units=[512,256]'": "two hidden layers",
            "hydra.run.dir=outputs/mine": "where the files go",
            "-m optimizer.lr=1e-3,3e-3 sweep.seeds=3": "a sweep, 3 seeds each",
            "--cfg job": "show the settings",
        },
        "docs/configuration.md, docs/sweeps.md; Hydra's own: --hydra-help",
    ),
    "evaluate": Stage(
        "Score a model on the test set, once, and write metrics, figures and a report. By hand it writes to outputs/ "
        "and adds the scores to the run that trained the model.",
        (),
        {
            "": "the model in models/",
            "evaluate.model_folder=outputs/a/models": "another model",
            "evaluate.num_robustness_images=500": "fewer changed images",
            "evaluate.num_calibration_bins=10": "wider bins",
            "--cfg job": "show the settings",
        },
        "docs/evaluate.md; every setting: docs/configuration.md",
    ),
}


def help_parser(
    name: str, about: str, examples: Mapping[str, str], more: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """A parser of `pipeline NAME` whose help has examples; its arguments are still to be added."""
    lines = [(f"  pipeline {name} {arguments}".rstrip(), what) for arguments, what in examples.items()]
    column = max(len(command) for command, _ in lines) + 2
    listed = [f"{command:<{column}}{what}" for command, what in lines]
    parser = argparse.ArgumentParser(
        prog=f"pipeline {name}",
        usage=usage,
        description=textwrap.fill(about, WIDTH),
        epilog="\n".join(["examples:", *listed, "", f"More: {more}"]),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=COLUMN),
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    return parser


def stage_page(name: str, conf: Path | None) -> str:
    """The page of a stage, with what conf/ has to choose from. conf: None outside a project."""
    stage = STAGES[name]
    usage = f"pipeline {name}" + " [KEY=VALUE | GROUP=CHOICE]..." * (name != "configure")
    parser = help_parser(name, stage.about, stage.examples, stage.more, usage)
    groups = parser.add_argument_group("groups, and what there is to choose from")
    for group in stage.groups:
        if len(choices := _choices(conf / group if conf else None)) > 1:
            groups.add_argument(group, nargs="*", metavar=f"{group}=", help=" ".join(choices))
    return parser.format_help()


def _choices(folder: Path | None) -> list[str]:
    """Names of a group's files; what others are built on is no choice."""
    return sorted({file.stem for file in folder.glob("*.yaml")} - {"base"}) if folder else []
