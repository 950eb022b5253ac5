"""Versions of a model, and the one in use: appointed, taken back, appointed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.tracking import Store
from pipeline.tracking.registry import Registry, Version, legal_name
from tracking.tracking_makers import Serve, make_images


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def versions(registry: Registry, count: int, name: str = "digits") -> list[Version]:
    """New ones, each of a run and a model of its own."""
    made = []
    for _ in range(count):
        with registry.store.run("digits", "one") as run:
            model = run.model(Serve().eval(), make_images(2), name="dense", requirements=["torch"])
        made.append(registry.register(name, run.id, model))
    return made


def test_a_model_is_registered_once(registry: Registry) -> None:
    (first,) = versions(registry, 1)
    assert (first.number, first.name) == (1, "digits")
    assert first.run_id is not None
    assert first.model_id is not None
    assert registry.register("digits", first.run_id, first.model_id) == first
    assert registry.versions("digits") == [first]


def test_appointed_taken_back_and_appointed_again(registry: Registry) -> None:
    """Each step back goes to the champion before, not to the version before."""
    first, second, third = versions(registry, 3)
    assert registry.champion("digits") is None
    for version in (first, third, second):
        registry.appoint(version)
    assert registry.champion("digits") == second
    assert registry.step_back("digits") == (second, third)
    assert registry.champion("digits") == third
    registry.appoint(second)
    assert registry.step_back("digits") == (second, third)
    assert registry.step_back("digits") == (third, first)
    with pytest.raises(ConfigError, match="there is no step back: version 1 is the first champion"):
        registry.step_back("digits")
    assert registry.champion("digits") == first
    assert [version.number for version in registry.versions("digits")] == [3, 2, 1]


def test_what_people_do_in_the_ui_is_kept(registry: Registry) -> None:
    """An alias that was set there is the champion; a version that was deleted there is never gone back to."""
    first, second, third = versions(registry, 3)
    registry.appoint(first)
    registry.appoint(second)
    registry.store.client.set_registered_model_alias("digits", "champion", "3")
    registry.store.client.delete_model_version("digits", "2")
    assert registry.champion("digits") == third
    assert registry.step_back("digits") == (third, first)


def test_the_champion_is_found_by_its_name(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="no model is the champion yet"):
        registry.resolve("@champion")
    (first,) = versions(registry, 1)
    registry.appoint(first)
    assert registry.resolve("@champion") == registry.resolve("digits@champion") == first
    (other,) = versions(registry, 1, "letters")
    registry.appoint(other)
    assert registry.resolve("letters@champion") == other
    with pytest.raises(ConfigError, match="Give one of digits@champion, letters@champion"):
        registry.resolve("@champion")
    with pytest.raises(ConfigError, match="no model is the champion yet"):
        registry.resolve("none@champion")


def test_a_store_that_is_not_there_has_no_models_and_is_not_made(tmp_path: Path) -> None:
    assert Registry(Store(tmp_path)).names() == []
    assert list(tmp_path.iterdir()) == []


def test_names_of_experiments_are_made_legal(registry: Registry) -> None:
    """MLflow takes neither a slash nor a colon, and searches for no quotes."""
    (version,) = versions(registry, 1, legal_name("team/it's: digits"))
    assert version.name == "team-it-s- digits"
    assert registry.versions(version.name) == [version]
