"""The command line: `pipeline COMMAND …`, and `python -m pipeline COMMAND …`, which is the same.

Arguments are read and settings are checked before anything slow is imported. Each command ends with exit code 0, or
with one message and the exit code that docs/troubleshooting.md lists.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

from pipeline.system.startup import begin, load, run

STAGES = {
    "configure": "compose and check conf/, write params.yaml",
    "download": "fetch or pack the data, verified",
    "preprocess": "make checked, split arrays of it",
    "train": "train a network; with -m a sweep",
    "evaluate": "score the test set once, write the report",
}
PACKAGES = {
    "train": ("torch", "Lightning", "MLflow"),
    "evaluate": ("torch", "MLflow"),
}  # of the stages that are slow to load
COMMANDS = {
    "compare": "is B really better than A?",
    "champion": "which version of a model is in use; promote or roll back",
    "predict": "what is on these images?",
    "reproduce": "make a run again and say whether it is the same",
    "adopt": "make the best of a sweep the pipeline's own settings",
    "export": "write a model as ONNX",
    "serve": "answer requests over REST",
    "demo": "a page to draw on",
    "ui": "open the MLflow UI",
    "sync": "copy runs to a tracking server",
    "warm": "keep a process ready that runs commands at once",
}


def main(name: str | None = None) -> NoReturn:
    """Run a command, and end the process with its exit code.

    name: of the command; None: the first argument.
    """
    if name is None:
        if sys.argv[1:2] in ([], ["-h"], ["--help"], ["help"]):
            print(overview(), end="")
            sys.exit(0)
        name = sys.argv.pop(1)
    if name not in STAGES | COMMANDS:
        print(
            f"pipeline: error: there is no command {name!r}.{_nearest(name)} `pipeline --help` lists them all",
            file=sys.stderr,
        )
        sys.exit(2)
    begin("pipeline", [name, *sys.argv[1:]], may_be_warm=name != "warm")
    run(dispatch, name)
    sys.exit(0)


def dispatch(name: str) -> None:
    """Run a command of this name, with the arguments of this process."""
    if name in STAGES:
        _stage(name)
    else:
        _command(name)


def overview() -> str:
    lines = [
        "pipeline COMMAND …: train, evaluate and compare Dense networks",
        "",
        "Stages, in the order in which `dvc repro` runs them:",
    ]
    lines += [f"  {name:<12}{what}" for name, what in STAGES.items()]
    lines += ["", "Commands:", *(f"  {name:<12}{what}" for name, what in COMMANDS.items())]
    return "\n".join([*lines, "", "`pipeline COMMAND --help` says more, with examples.", ""])


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*STAGES, *COMMANDS], 1)
    return f" Did you mean {near[0]}?" if near else ""


def _stage(name: str) -> None:
    if name == "configure":
        _module(name).main()
        return
    from pipeline.runtime.stage_runner import run_stage

    def work() -> Callable[..., Any]:
        if name in PACKAGES:
            load(name, *PACKAGES[name])
        function: Callable[..., Any] = _module(name).main
        return function

    if name != "train":
        run_stage(name, work)
        return
    from pipeline.sweeps.command_line import sweep

    run_stage(name, work, partial(sweep, work=work))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"pipeline.{name}")


def _command(name: str) -> None:
    from pipeline.system.exit_codes import explained

    module = _module(f"commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"pipeline {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    args = parser.parse_args()
    with explained(name):
        module.main(args)
