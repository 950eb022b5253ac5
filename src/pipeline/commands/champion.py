"""pipeline champion: list the versions of a registered model, promote one to champion, or roll back.

`dvc repro` promotes by itself a model that is shown to be no worse than the champion (pipeline/registry/).
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from pipeline.commands import wide_console
from pipeline.registry.versions import BY_HAND, DECISION_TAG, ROLLED_BACK, Registry, decision_of
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.system.startup import load
from pipeline.tracking import Store
from pipeline.tracking.database import RegisteredModel, Version
from pipeline.tracking.lookup import CHAMPION, find_version


def chosen_model(store: Store, name: str | None) -> RegisteredModel:
    """The registered model of this name, or the only one there is. Raises ConfigError."""
    models = {model.name: model for model in store.registered_models()}
    if name in models:
        return models[name]
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if not models:
        raise ConfigError("no model is registered yet: `dvc repro` registers the one that it evaluates")
    problem = "there are several registered models" if name is None else f"no registered model is called {name}"
    raise ConfigError(f"{problem}. Give one of them: {' '.join(f'--model {other}' for other in models)}")


def chosen_version(store: Store, model_name: str | None, version: str) -> Version:
    """The version that a number, or NAME@NUMBER, means. Raises ConfigError: there is no such version."""
    if found := find_version(store, version):
        return found
    model = chosen_model(store, model_name)
    if version.isdecimal() and (found := model.version(version)):
        return found
    numbers = ", ".join(str(version.number) for version in reversed(model.versions))
    raise ConfigError(f"{model.name} has no version {version}. It has {numbers}")


def promote(registry: Registry, version: Version) -> None:
    registry.promote(version)
    registry.tag(version, {DECISION_TAG: BY_HAND}, BY_HAND)


def roll_back(registry: Registry, name: str) -> tuple[Version, Version]:
    """Who was champion, and who is it again."""
    was, now = registry.roll_back(name)
    registry.tag(was, {DECISION_TAG: ROLLED_BACK}, f"{ROLLED_BACK} by hand for version {now.number}")
    return was, now


def print_versions(console: Console, store: Store, model: RegisteredModel) -> None:
    champion = model.version(CHAMPION)
    runs = store.names_and_values([str(version.run_id) for version in model.versions], "test/accuracy")
    table = Table("", "version", "run", "test accuracy", "decision", box=None, pad_edge=False, header_style="")
    for version in model.versions:
        run_name, accuracy = runs.get(str(version.run_id), ("", None))
        table.add_row(
            "@champion" if version == champion else "",
            str(version.number),
            f"{str(version.run_id)[:8]} {run_name}" if run_name else "",
            "" if accuracy is None else f"{accuracy:.2%}",
            decision_of(version) or "registered by other means",
        )
    console.print(
        f"{model.name}: `mlflow.pyfunc.load_model('models:/{model.name}@champion')`", highlight=False, markup=False
    )
    console.print(table, markup=False)


def main(args: argparse.Namespace) -> None:
    console = wide_console()
    store = Store(project_root())
    if args.version is not None or args.rollback:
        load("champion", "MLflow")
    if args.version is not None:
        version = chosen_version(store, args.model, args.version)
        promote(Registry(store), version)
        console.print(f"{version} is @champion", highlight=False)
    elif args.rollback:
        was, now = roll_back(Registry(store), chosen_model(store, args.model).name)
        console.print(f"{now} is @champion again, {was} no longer", highlight=False)
    else:
        print_versions(console, store, chosen_model(store, args.model))
