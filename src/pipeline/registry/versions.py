"""MLflow's registry of models: versions, and the one of them that is in use, which it calls @champion.

It is read without MLflow, so that who asks for the champion need not wait until that is imported.

Who was champion before is kept in a tag of the registered model, so that one can always roll back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.system.errors import ConfigError
from pipeline.system.locks import locked
from pipeline.tracking import MODEL_ID_TAG, Store
from pipeline.tracking.database import RegisteredModel, Version
from pipeline.tracking.lookup import CHAMPION

HISTORY_TAG = "champion.history"  # of a registered model: the numbers of the versions in the order of their time
DECISION_TAG = "champion.decision"  # of a version and of its run
LOCK = Path(".pipeline", "registry.lock")
PROMOTED, REJECTED, NOT_CONSIDERED, ROLLED_BACK = "promoted", "rejected", "not considered", "rolled back"
BY_HAND = "promoted by hand"
OLDER_DECISIONS = {
    "appointed": PROMOTED,
    "appointed by hand": BY_HAND,
    "kept out": REJECTED,
    "not put up": NOT_CONSIDERED,
    "taken back": ROLLED_BACK,
}  # as older databases have them


def decision_of(version: Version) -> str | None:
    """What was decided about a version; None: nothing."""
    decision = version.tags.get(DECISION_TAG)
    return OLDER_DECISIONS.get(decision, decision) if decision else None


class Registry:
    """The registered models of a store. What changes who is champion is done by one process at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Of all registered models."""
        return [model.name for model in self.store.registered_models()]

    def model(self, name: str) -> RegisteredModel:
        """With its versions; without any where there is no such model."""
        models = {model.name: model for model in self.store.registered_models()}
        return models.get(name, RegisteredModel(name, {}, ()))

    def versions(self, name: str) -> list[Version]:
        """Newest first."""
        return list(self.model(name).versions)

    def champion(self, name: str) -> Version | None:
        """None: there is none."""
        return self.model(name).version(CHAMPION)

    def register(self, name: str, run_id: str, model_id: str) -> Version:
        """The version of this model; one is registered once."""
        client = self.store.client
        with locked(self.store.root / LOCK):
            if name not in self.names():
                client.create_registered_model(name)
            for version in self.versions(name):
                if version.model_id == model_id:
                    return version
            # the place itself: `models:/ID` would be looked up in the store that MLFLOW_TRACKING_URI names
            place = client.get_logged_model(model_id).artifact_location
            # the id as a tag: its own field MLflow forgets here
            made = client.create_model_version(name, place, run_id=run_id, tags={MODEL_ID_TAG: model_id})
            return Version(name, int(made.version), run_id, model_id, dict(made.tags))

    def tag(self, version: Version, tags: Mapping[str, str], description: str) -> None:
        """What is known of a version: its description is shown at the head of its page."""
        for key, value in tags.items():
            self.store.client.set_model_version_tag(version.name, str(version.number), key, value)
        self.store.client.update_model_version(version.name, str(version.number), description)

    def promote(self, version: Version) -> None:
        """Make a version the champion."""
        with locked(self.store.root / LOCK):
            past = [number for number in self.history(version.name) if number != version.number]
            self._write(version.name, [*past, version.number])

    def roll_back(self, name: str) -> tuple[Version, Version]:
        """Make the champion before this one the champion again. Returns who it was and who it is now.

        Raises:
            ConfigError: there was none before.
        """
        with locked(self.store.root / LOCK):
            history = self.history(name)
            if len(history) < 2:
                why = f"version {history[0]} is the first champion" if history else "it has no champion"
                raise ConfigError(f"{name}: there is nothing to roll back to: {why}")
            self._write(name, history[:-1])
            versions = {version.number: version for version in self.versions(name)}
            return versions[history[-1]], versions[history[-2]]

    def history(self, name: str) -> list[int]:
        """The champions in the order of their time, without deleted versions; one set in the UI is the newest."""
        model = self.model(name)
        numbers = {version.number for version in model.versions}
        written = self.store.client.get_registered_model(name).tags.get(HISTORY_TAG, "")
        past = [int(number) for number in written.split() if int(number) in numbers]
        now = model.aliases.get(CHAMPION, 0)
        if now and past[-1:] != [now]:
            past = [number for number in past if number != now] + [now]
        return past

    def _write(self, name: str, history: list[int]) -> None:
        self.store.client.set_registered_model_tag(name, HISTORY_TAG, " ".join(map(str, history)))
        self.store.client.set_registered_model_alias(name, CHAMPION, str(history[-1]))


def legal_name(name: str) -> str:
    """A name as MLflow's registry takes it, and as its searches can quote it."""
    return re.sub(r"[/:'\"]", "-", name)
