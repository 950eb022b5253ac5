"""The arguments of the commands around the stages, and what `pipeline COMMAND --help` says of each.

They are apart from the commands, so that a page and a mistake cost no import of what does the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.help import help_parser

MODEL_OR_FOLDER = "@champion, a run (its name or the beginning of its id), or a folder; @champion, else models/"


@dataclass(frozen=True)
class Command:
    """What the help of a command says, and how its arguments are declared."""

    about: str
    declare: Callable[[argparse.ArgumentParser], None]
    examples: Mapping[str, str]  # arguments: what they do
    more: str


def parser_of(name: str) -> argparse.ArgumentParser:
    """Of `pipeline NAME`; its help has at most 25 lines of 80 columns."""
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
        help="a run (its name or the beginning of its id), a sweep (its best settings, all seeds), @champion, a "
             "revision of git, or workspace (models/)",
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
        f"model=NAME chooses the model: {MODEL_OR_FOLDER}",
    )  # fmt: skip
    _model(parser)
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")


def _reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN",
        help="a run (its name, or the beginning of its id), @champion, or a sweep (its best job)",
    )  # fmt: skip


def _adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="SWEEP_OR_RUN", help="a sweep, or a run (its name, or the beginning of its id)")
    parser.add_argument("--name", help="of the experiment file; sweep-ID if not given")
    parser.add_argument("--no-repro", action="store_true", help="write the files and do not run `dvc repro`")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help=MODEL_OR_FOLDER)
    _model(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/model.onnx"), metavar="FILE", help="outputs/model.onnx if not given"
    )


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help="@champion, or a run")
    _model(parser)
    _port(parser, 5001)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="model=NAME", help=MODEL_OR_FOLDER)
    _model(parser)
    _port(parser, 5002)


def _ui(parser: argparse.ArgumentParser) -> None:
    _port(parser, 5000)
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 only; for another it says what to do instead")
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
        "docs/compare.md",
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
        "Say what is on images, or which class rows of a table have. Images may have any size and colour; each answer "
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
        "Make a run again from what MLflow remembers (commit, uncommitted changes, settings, data), in a temporary "
        "folder, and say whether code, data, weights, metrics and predictions are the same byte for byte.",
        _reproduce,
        {
            "7debbd3d": "by the beginning of its id",
            "'dense-512 rmsprop mnist'": "by its name",
            "@champion": "the run of the champion",
            "s2cf3fdcf249": "the best job of a sweep",
        },
        "docs/reproducing.md",
    ),
    "adopt": Command(
        "Make the best settings of a sweep the pipeline's own: write them to conf/experiment/, run `dvc repro`, and "
        "check that the model is the sweep's, byte for byte. If it is not, the project is left as it was.",
        _adopt,
        {
            "s2cf3fdcf249": "the best settings of a sweep",
            "7debbd3d": "the settings of one run",
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
            "model=leaves@champion": "another model's champion",
        },
        "docs/serving.md",
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
        },
        "docs/serving.md",
    ),
    "ui": Command(
        "Open MLflow's pages on this project's runs: it prints a link to the leaderboard and serves until Ctrl-C. From "
        "another machine, use ssh -L 5000:127.0.0.1:5000 HOST, because the server has no passwords.",
        _ui,
        {
            "": "the experiment with the newest run",
            "--port 5001": "another port",
            "--experiment leaves": "another experiment",
            "--sweep s2cf3fdcf249": "the jobs of a sweep, best first",
        },
        "docs/sweeps.md, docs/troubleshooting.md",
    ),
    "sync": Command(
        "Copy to a tracking server what it does not have of the runs in mlflow.db: the first time, or after an outage. "
        "Start it again at will: runs that are complete there cost nothing, and nothing is doubled.",
        _sync,
        {
            "": "to MLFLOW_TRACKING_URI",
            "--server http://HOST:5000": "to this server",
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
