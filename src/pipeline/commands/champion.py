"""pipeline champion: list the versions of a registered model, promote one to champion, or roll back.

`dvc repro` promotes by itself a model that is shown to be no worse than the champion (pipeline/registry/).
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from pipeline.prediction.arguments import wide_console
from pipeline.registry.versions import DECISION_TAG, Registry, Version
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load
from pipeline.tracking import Store

BY_HAND = "appointed by hand"


def the_model(registry: Registry, asked: str | None) -> str:
    """The name that was asked for, or the only one there is. Raises ConfigError."""
    names = registry.names()
    if asked in names:
        return asked
    if asked is None and len(names) == 1:
        return names[0]
    if not names:
        raise ConfigError("no model is registered yet: `dvc repro` registers the one that it evaluates")
    problem = "there are several registered models" if asked is None else f"no registered model is called {asked}"
    raise ConfigError(f"{problem}. Give one of them: {' '.join(f'--model {name}' for name in names)}")


def appoint(registry: Registry, name: str, number: int) -> Version:
    """Raises ConfigError: there is no such version."""
    there = {version.number: version for version in registry.versions(name)}
    if number not in there:
        raise ConfigError(f"{name} has no version {number}. It has {', '.join(map(str, sorted(there)))}")
    version = there[number]
    registry.appoint(version)
    registry.tag(version, {DECISION_TAG: BY_HAND}, BY_HAND)
    return version


def step_back(registry: Registry, name: str) -> tuple[Version, Version]:
    """Who was champion, and who is it again."""
    was, now = registry.step_back(name)
    registry.tag(was, {DECISION_TAG: "taken back"}, f"taken back by hand for version {now.number}")
    return was, now


def print_versions(console: Console, registry: Registry, name: str) -> None:
    champion = registry.champion(name)
    table = Table("", "version", "run", "test accuracy", "decision", box=None, pad_edge=False, header_style="")
    for version in registry.versions(name):
        name_of_run, accuracy = registry.store.name_and_value(str(version.run_id), "test/accuracy") or ("", None)
        table.add_row(
            "@champion" if champion and champion.number == version.number else "",
            str(version.number),
            f"{str(version.run_id)[:8]} {name_of_run}" if name_of_run else "",
            "" if accuracy is None else f"{accuracy:.2%}",
            version.tags.get(DECISION_TAG, "registered by other means"),
        )
    console.print(f"{name}: `mlflow.pyfunc.load_model('models:/{name}@champion')`", highlight=False, markup=False)
    console.print(table, markup=False)


def main(args: argparse.Namespace) -> None:
    console = wide_console()
    root = project_root()
    if args.version is not None or args.back:
        load("champion", "MLflow")
    registry = Registry(Store(root))
    name = the_model(registry, args.model)
    if args.version is not None:
        console.print(f"{appoint(registry, name, args.version)} is @champion", highlight=False)
    elif args.back:
        was, now = step_back(registry, name)
        console.print(f"{now} is @champion again, {was} no longer", highlight=False)
    else:
        print_versions(console, registry, name)
