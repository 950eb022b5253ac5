"""What `pipeline COMMAND --help` prints, one shape for all, and the arguments of the commands around the stages.

A page is what argparse makes of it, at most 25 lines of 80 columns. This is apart from the commands, so that a page and
a mistake cost no import of what does the work.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config import choices

WIDTH = 80
COLUMN = 18  # where the meaning of an argument begins
MODEL = (
    "a run, a sweep (its best job), @champion, NAME@3, a revision of git, workspace, or a folder (default: the "
    "champion, else models/)"
)


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


# ---------------------------------------------------------------- the commands around the stages


@dataclass(frozen=True)
class Command:
    """What the help of a command says, and how its arguments are declared."""

    about: str
    declare: Callable[[argparse.ArgumentParser], None]
    examples: Mapping[str, str]  # arguments: what they do
    more: str


def parser_of(name: str) -> argparse.ArgumentParser:
    """Of `pipeline NAME`."""
    command = COMMANDS[name]
    parser = help_parser(name, command.about, command.examples, command.more)
    command.declare(parser)
    return parser


def port(text: str) -> int:
    """For argparse."""
    number = int(text)
    if not 0 < number < 1 << 16:
        raise argparse.ArgumentTypeError(f"expected 1 to {(1 << 16) - 1}, found {number}")
    return number


def _port(parser: argparse.ArgumentParser, number: int) -> None:
    parser.add_argument("--port", type=port, default=number, metavar="N", help=f"{number} if not given")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", dest="models", action="append", default=[], metavar="NAME", help="as model=NAME")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="NAME",
        help="a run (its name or the beginning of its id), a sweep (its best settings, all seeds), @champion, NAME@3, "
             "a revision of git, workspace (models/), or a folder with a model",
    )  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text")


def _champion(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("version", nargs="?", metavar="VERSION", help="promote this version: a number, or NAME@NUMBER")
    choice.add_argument("--rollback", "--back", action="store_true", help="return to the champion before this one")
    parser.add_argument("--model", metavar="NAME", help="the registered model, where there are several")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="INPUT", help="an image, a folder of images, a .npy array or a .csv table; "
        f"model=NAME chooses the model: {MODEL}",
    )  # fmt: skip
    _model(parser)
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")


def _reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN",
        help="a run (its name, or the beginning of its id), @champion, NAME@3, or a sweep (its best job)",
    )  # fmt: skip


def _adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="SWEEP_OR_RUN",
        help="a sweep (its best job), or one of its jobs: a run's name, or the beginning of its id",
    )
    parser.add_argument("--name", help="of the experiment file; sweep-ID if not given")
    parser.add_argument("--no-repro", action="store_true", help="write the files and do not run `dvc repro`")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help=MODEL)
    _model(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/model.onnx"), metavar="FILE", help="outputs/model.onnx if not given"
    )


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="model=NAME", help="a run, a sweep (its best job), or NAME@3 (default: @champion)"
    )
    _model(parser)
    _port(parser, 5001)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help=MODEL)
    _model(parser)
    _port(parser, 5002)


def _ui(parser: argparse.ArgumentParser) -> None:
    _port(parser, 5000)
    parser.add_argument("--host", default="127.0.0.1", help="must be 127.0.0.1; other hosts are refused, with advice")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--experiment", metavar="NAME", help="open this one; the one with the newest run if not given")
    what.add_argument("--sweep", metavar="ID", help="open the table of this sweep's jobs, best first")


def _sync(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="ADDRESS", help="MLFLOW_TRACKING_URI if not given")


def _warm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stop", action="store_true", help="end the process, and what it runs")


COMMANDS = {
    "compare": Command(
        "Say whether one model is really better than another. Every model answers the same test images, and each is "
        "compared with the first, for other test images and for other seeds.",
        _compare,
        {
            "HEAD workspace": "models/ against the last commit",
            "@champion workspace": "models/ against the champion",
            "s2cf3fdcf249 sf4afa8c9a43": "two sweeps, with all their seeds",
            "v1 v2 v3": "three tags, against the first",
            "HEAD~1 HEAD --format json": "for programs",
        },
        "docs/compare.md, docs/names.md",
    ),
    "champion": Command(
        "List the versions of a registered model, newest first, and say which one is the champion. Promote a version, "
        "or roll back. `dvc repro` promotes by itself what is shown to be no worse than the champion.",
        _champion,
        {
            "": "list the versions",
            "3": "promote version 3",
            "--rollback": "return to the champion before this one",
            "--model leaves": "list another registered model",
            "leaves@3": "promote its version 3",
        },
        "docs/evaluate.md",
    ),
    "predict": Command(
        "Classify images, arrays, or the rows of a table. Images may have any size and colour; each answer "
        "says what was done to them. Unreadable ones are reported, and the exit code is then 1.",
        _predict,
        {
            "page.png digits/": "an image and a folder",
            "images.npy --format csv": "an array, as CSV",
            "flowers.csv model=leaves@champion": "a table",
            "page.png model=outputs/mine/models": "a model in a folder",
            "page.png model=7debbd3d --format json": "a run's model, as JSON",
        },
        "docs/serving.md",
    ),
    "reproduce": Command(
        "Reproduce a run from what MLflow remembers (commit, uncommitted changes, settings, data), in a temporary "
        "folder, and check that code, data, weights, metrics and predictions are the same byte for byte.",
        _reproduce,
        {
            "7debbd3d": "by the beginning of its id",
            "'dense-512 rmsprop mnist'": "by its name",
            "@champion": "the run of the champion",
            "s2cf3fdcf249": "the best job of a sweep",
            "leaves@3": "the run of a version",
        },
        "docs/reproducing.md, docs/names.md",
    ),
    "adopt": Command(
        "Make the best settings of a sweep the pipeline's own: write them to conf/experiment/, run `dvc repro`, and "
        "check that the model is the sweep's, byte for byte. If it is not, the project is left as it was.",
        _adopt,
        {
            "s2cf3fdcf249": "the best settings of a sweep",
            "7debbd3d": "the settings of one job",
            "'units=64 seed=1' --name small": "a job by its name",
            "s2cf3fdcf249 --name wide": "as conf/experiment/wide.yaml",
            "s2cf3fdcf249 --no-repro": "write the files, train later",
        },
        "docs/sweeps.md",
    ),
    "export": Command(
        "Write a model as ONNX, for programs without torch: raw samples in, probabilities out. The file is written "
        "only if ONNX Runtime gives torch's answers to 1e-5.",
        _export,
        {
            "": "the champion, else models/",
            "model=models --out digits.onnx": "the pipeline's model",
            "model=7debbd3d": "the model of a run",
            "model=outputs/mine/models": "a model in a folder",
            "model=leaves@champion": "another model's champion",
        },
        "docs/serving.md",
    ),
    "serve": Command(
        "Answer requests over REST with MLflow's own server, on this machine alone (127.0.0.1). You send samples as "
        "they are, such as 28 x 28 numbers from 0 to 255, and get the probabilities of the classes.",
        _serve,
        {
            "": "the champion, at port 5001",
            "--port 8080": "another port",
            "model=7debbd3d": "the model of a run",
            "model=s2cf3fdcf249": "the best job of a sweep",
            "model=leaves@champion": "another model's champion",
        },
        "docs/serving.md, docs/names.md",
    ),
    "demo": Command(
        "Open a page to draw on, on this machine alone (127.0.0.1). The probabilities move with each stroke, and the "
        "page shows what the network sees and which strokes spoke for its answer.",
        _demo,
        {
            "": "the champion, at port 5002",
            "--port 8080": "another port",
            "model=models": "the pipeline's model",
            "model=7debbd3d": "the model of a run",
            "model=leaves@champion": "another model's champion",
        },
        "docs/serving.md",
    ),
    "ui": Command(
        "Open MLflow's pages on this project's runs: it prints a link to the leaderboard and serves until Ctrl-C. From "
        "another machine, use ssh -L 5000:127.0.0.1:5000 HOST, because the server has no passwords.",
        _ui,
        {
            "": "the newest run's experiment",
            "--port 5001": "another port",
            "--experiment leaves": "another experiment",
            "--sweep s2cf3fdcf249": "the jobs of a sweep, best first",
            "--experiment leaves --port 5001": "beside one that is open",
        },
        "docs/sweeps.md, docs/troubleshooting.md",
    ),
    "sync": Command(
        "Copy to a tracking server what it does not have of the runs in mlflow.db: the first time, or after an outage. "
        "Start it again at will: runs that are complete there cost nothing, and nothing is doubled.",
        _sync,
        {
            "": "to MLFLOW_TRACKING_URI",
            "--server http://127.0.0.1:5001": "to a server on this machine",
            "--server http://HOST:5000": "to another machine",
            "--server https://runs.example.org": "to a server behind a proxy",
        },
        "docs/tracking_server.md",
    ),
    "warm": Command(
        "Keep a process ready that has imported torch, Lightning and MLflow, and runs each command as a fork of itself "
        "where PIPELINE_WARM=1 is set. It ends after ten minutes without a command.",
        _warm,
        {
            "": "start it, and wait until it is ready",
            "--stop": "end it now",
        },
        "docs/warm.md",
    ),
}  # fmt: skip


# ---------------------------------------------------------------- the stages


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


def stage_page(name: str, conf: Path | None) -> str:
    """The page of a stage, with what conf/ has to choose from. conf: None outside a project."""
    stage = STAGES[name]
    usage = f"pipeline {name}" + " [KEY=VALUE | GROUP=CHOICE]..." * (name != "configure")
    parser = help_parser(name, stage.about, stage.examples, stage.more, usage)
    groups = parser.add_argument_group("groups, and what there is to choose from")
    for group in stage.groups:
        if len(names := choices(conf / group) if conf else []) > 1:
            groups.add_argument(group, nargs="*", metavar=f"{group}=", help=" ".join(names))
    return parser.format_help()
