"""Versions of a model, and the one in use: appointed, taken back, appointed again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.registry.versions import Registry, Version, legal_name
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.tracking import Store
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


def test_it_is_read_as_mlflow_reads_it(registry: Registry) -> None:
    """Models, aliases, versions with their tags and runs; a deleted version is none, a deleted run is told."""
    first, second, third = versions(registry, 3)
    (other,) = versions(registry, 1, "letters")
    registry.tag(second, {"a.key": "a value"}, "described")
    registry.appoint(third)
    registry.appoint(second)
    client, store = registry.store.client, registry.store
    client.delete_model_version("digits", str(first.number))
    client.delete_run(str(third.run_id))

    assert (
        registry.names() == sorted(model.name for model in client.search_registered_models()) == ["digits", "letters"]
    )
    for name, numbers in (("digits", [3, 2]), ("letters", [1])):
        found = [client.get_model_version(name, str(number)) for number in numbers]
        assert registry.versions(name) == [Version.of(one) for one in found]
    assert int(client.get_model_version_by_alias("digits", "champion").version) == second.number
    assert registry.champion("digits") == Version.of(client.get_model_version("digits", str(second.number)))
    assert registry.champion("letters") is None
    assert registry.resolve("@champion").number == second.number
    assert [store.run_exists(str(version.run_id)) for version in (second, third, other)] == [True, False, True]
    assert store.artifacts(str(third.run_id)).as_uri() == client.get_run(str(third.run_id)).info.artifact_uri
    assert store.name_and_value(str(third.run_id), "loss") is None
    assert store.name_and_value(str(second.run_id), "loss") == ("one", None)
    client.log_metric(str(second.run_id), "loss", 0.5, step=0)
    client.log_metric(str(second.run_id), "loss", 0.25, step=1)
    assert store.name_and_value(str(second.run_id), "loss") == ("one", 0.25)


def test_it_is_read_without_mlflow(registry: Registry) -> None:
    (first,) = versions(registry, 1)
    registry.appoint(first)
    code = (
        "import sys; from pathlib import Path; from pipeline.tracking import Store\n"
        "from pipeline.registry.versions import Registry\n"
        f"store = Store(Path({str(registry.store.root)!r}))\n"
        "print(Registry(store).resolve('@champion'), store.run_exists(Registry(store).versions('digits')[0].run_id))\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "version 1 of digits True\nFalse\n"


def test_a_store_that_cannot_be_read_is_one_error(registry: Registry) -> None:
    versions(registry, 1)
    with closing(sqlite3.connect(registry.store.root / "mlflow.db")) as connection:
        connection.execute("DROP TABLE registered_model_aliases")
    with pytest.raises(PipelineError, match=r"mlflow\.db cannot be read: no such table.*mlflow db upgrade sqlite"):
        registry.names()
