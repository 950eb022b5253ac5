"""MLflow's registry of models: versions, and the one of them that is in use, which it calls @champion.

It is read without MLflow, so that who asks for the champion need not wait until that is imported.

Who was champion before is kept in a tag of the registered model, so that one step back is always possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.system.errors import ConfigError
from pipeline.system.locks import locked
from pipeline.tracking.database import model_versions, registered_models
from pipeline.tracking.leaderboard import MODEL_ID_TAG
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
HISTORY_TAG = "champion.history"  # of a registered model: the numbers of the versions in the order of their time
DECISION_TAG = "champion.decision"  # of a version and of its run
LOCK = Path(".pipeline", "registry.lock")


@dataclass(frozen=True)
class Version:
    """A model of the registry."""

    name: str
    number: int
    run_id: str | None  # None: registered in the UI, from a file
    model_id: str | None
    tags: dict[str, str]

    @classmethod
    def of(cls, found: ModelVersion) -> Version:
        return cls(found.name, int(found.version), found.run_id, found.tags.get(MODEL_ID_TAG), dict(found.tags))

    def __str__(self) -> str:
        return f"version {self.number} of {self.name}"


class Registry:
    """The registered models of a store. What changes who is champion is done by one process at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Of all registered models."""
        return list(self._aliases())

    def versions(self, name: str) -> list[Version]:
        """Newest first."""
        found = model_versions(self.store.root, name) if self.store.exists else []
        return [Version(name, number, run_id, tags.get(MODEL_ID_TAG), tags) for number, run_id, tags in found]

    def champion(self, name: str) -> Version | None:
        """None: there is none."""
        number = self._aliases().get(name, {}).get(CHAMPION)
        return next((version for version in self.versions(name) if version.number == number), None)

    def resolve(self, asked: str) -> Version:
        """The champion that `@champion` or `NAME@champion` means.

        Raises:
            ConfigError: there is none, or several registered models have one.
        """
        name = asked.removesuffix(f"@{CHAMPION}")
        found = [version for other in self.names() if name in ("", other) and (version := self.champion(other))]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(
                f"{asked}: no model is the champion yet. `dvc repro` registers one, and "
                "pipeline champion VERSION makes it the champion"
            )
        several = ", ".join(f"{version.name}@{CHAMPION}" for version in found)
        raise ConfigError(f"{asked}: several models have a champion. Give one of {several}")

    def register(self, name: str, run_id: str, model_id: str) -> Version:
        """The version of this model; one is registered once."""
        client = self.store.client
        with locked(self.store.root / LOCK):
            if name not in self.names():
                client.create_registered_model(name)
            known = [version for version in self.versions(name) if version.model_id == model_id]
            if known:
                return known[0]
            # the place itself: `models:/ID` would be looked up in the store that MLFLOW_TRACKING_URI names
            place = client.get_logged_model(model_id).artifact_location
            # the id as a tag: its own field MLflow forgets here
            made = client.create_model_version(name, place, run_id=run_id, tags={MODEL_ID_TAG: model_id})
            return Version.of(made)

    def tag(self, version: Version, tags: Mapping[str, str], description: str) -> None:
        """What is known of a version: its description is shown at the head of its page."""
        for key, value in tags.items():
            self.store.client.set_model_version_tag(version.name, str(version.number), key, value)
        self.store.client.update_model_version(version.name, str(version.number), description)

    def appoint(self, version: Version) -> None:
        """Make a version the champion."""
        with locked(self.store.root / LOCK):
            past = [number for number in self.history(version.name) if number != version.number]
            self._write(version.name, [*past, version.number])

    def step_back(self, name: str) -> tuple[Version, Version]:
        """Make the champion before this one the champion again. Returns who it was and who it is now.

        Raises:
            ConfigError: there was none before.
        """
        with locked(self.store.root / LOCK):
            history = self.history(name)
            if len(history) < 2:
                held = f"version {history[0]} is the first champion" if history else "it has no champion"
                raise ConfigError(f"{name}: there is no step back: {held}")
            self._write(name, history[:-1])
            was, now = (Version.of(self.store.client.get_model_version(name, str(n))) for n in history[:-3:-1])
            return was, now

    def _aliases(self) -> dict[str, dict[str, int]]:
        """Registered model -> alias -> number of a version."""
        return registered_models(self.store.root) if self.store.exists else {}

    def history(self, name: str) -> list[int]:
        """The champions in the order of their time, without deleted versions; one set in the UI is the newest."""
        there = {version.number for version in self.versions(name)}
        written = self.store.client.get_registered_model(name).tags.get(HISTORY_TAG, "")
        past = [int(number) for number in written.split() if int(number) in there]
        now = self._aliases()[name].get(CHAMPION, 0)
        if now and past[-1:] != [now]:
            past = [number for number in past if number != now] + [now]
        return past

    def _write(self, name: str, history: list[int]) -> None:
        self.store.client.set_registered_model_tag(name, HISTORY_TAG, " ".join(map(str, history)))
        self.store.client.set_registered_model_alias(name, CHAMPION, str(history[-1]))


def legal_name(name: str) -> str:
    """A name as MLflow's registry takes it, and as its searches can quote it."""
    return re.sub(r"[/:'\"]", "-", name)
