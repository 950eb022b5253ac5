"""Versions of a model, and the one in use: promoted, rolled back, promoted again."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline.registry.versions import Registry, decision_of, legal_name
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.tracking import MODEL_ID_TAG, Store, database
from pipeline.tracking.database import Version
from pipeline.tracking.lookup import find_version
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


def version_of(found: ModelVersion) -> Version:
    """As MLflow's client has it."""
    return Version(found.name, int(found.version), found.run_id, found.tags.get(MODEL_ID_TAG), dict(found.tags))


def test_a_model_is_registered_once(registry: Registry) -> None:
    (first,) = versions(registry, 1)
    assert (first.number, first.name) == (1, "digits")
    assert first.run_id is not None
    assert first.model_id is not None
    assert registry.register("digits", first.run_id, first.model_id) == first
    assert registry.versions("digits") == [first]


def test_promoted_rolled_back_and_promoted_again(registry: Registry) -> None:
    """Each step back goes to the champion before, not to the version before."""
    first, second, third = versions(registry, 3)
    assert registry.champion("digits") is None
    for version in (first, third, second):
        registry.promote(version)
    assert registry.champion("digits") == second
    assert registry.roll_back("digits") == (second, third)
    assert registry.champion("digits") == third
    registry.promote(second)
    assert registry.roll_back("digits") == (second, third)
    assert registry.roll_back("digits") == (third, first)
    with pytest.raises(ConfigError, match="there is nothing to roll back to: version 1 is the first champion"):
        registry.roll_back("digits")
    assert registry.champion("digits") == first
    assert [version.number for version in registry.versions("digits")] == [3, 2, 1]


def test_what_people_do_in_the_ui_is_kept(registry: Registry) -> None:
    """An alias that was set there is the champion; a version that was deleted there is never gone back to."""
    first, second, third = versions(registry, 3)
    registry.promote(first)
    registry.promote(second)
    registry.store.client.set_registered_model_alias("digits", "champion", "3")
    registry.store.client.delete_model_version("digits", "2")
    assert registry.champion("digits") == third
    assert registry.roll_back("digits") == (third, first)


def test_the_champion_is_found_by_its_name(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="no model is the champion yet"):
        find_version(registry.store, "@champion")
    (first,) = versions(registry, 1)
    registry.promote(first)
    assert find_version(registry.store, "@champion") == find_version(registry.store, "digits@champion") == first
    (other,) = versions(registry, 1, "letters")
    registry.promote(other)
    assert find_version(registry.store, "letters@champion") == other
    with pytest.raises(ConfigError, match="Give one of digits@champion, letters@champion"):
        find_version(registry.store, "@champion")
    with pytest.raises(ConfigError, match="no model is the champion yet"):
        find_version(registry.store, "none@champion")
    registry.store.client.set_registered_model_alias("digits", "candidate", "1")
    assert find_version(registry.store, "@candidate") == find_version(registry.store, "digits@1") == first
    assert find_version(registry.store, "digits@2") is None
    with pytest.raises(ConfigError, match=r"several models have 1\. Give one of digits@1, letters@1"):
        find_version(registry.store, "@1")


def test_a_store_that_is_not_there_has_no_models_and_is_not_made(tmp_path: Path) -> None:
    assert Registry(Store(tmp_path)).names() == []
    assert list(tmp_path.iterdir()) == []


def test_names_of_experiments_are_made_legal(registry: Registry) -> None:
    """MLflow takes neither a slash nor a colon, and searches for no quotes."""
    (version,) = versions(registry, 1, legal_name("team/it's: digits"))
    assert version.name == "team-it-s- digits"
    assert registry.versions(version.name) == [version]


@pytest.mark.parametrize("known", [True, False])
def test_it_is_read_as_mlflow_reads_it(
    known: bool, registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Models, aliases, versions with their tags and runs; a deleted version is none, a deleted run is reported.

    Tables of another version of MLflow are read by its client, with a warning.
    """
    if not known:
        monkeypatch.setattr(database, "KNOWN_SCHEMAS", ("another",))
    first, second, third = versions(registry, 3)
    (other,) = versions(registry, 1, "letters")
    registry.tag(second, {"a.key": "a value"}, "described")
    registry.promote(third)
    registry.promote(second)
    client, store = registry.store.client, registry.store
    client.delete_model_version("digits", str(first.number))
    client.delete_run(str(third.run_id))

    assert (
        registry.names() == sorted(model.name for model in client.search_registered_models()) == ["digits", "letters"]
    )
    for name, numbers in (("digits", [3, 2]), ("letters", [1])):
        found = [client.get_model_version(name, str(number)) for number in numbers]
        assert registry.versions(name) == [version_of(one) for one in found]
    assert int(client.get_model_version_by_alias("digits", "champion").version) == second.number
    assert registry.champion("digits") == version_of(client.get_model_version("digits", str(second.number)))
    assert registry.champion("letters") is None
    assert find_version(store, "@champion") == registry.champion("digits")
    assert [store.run_exists(str(version.run_id)) for version in (second, third, other)] == [True, False, True]
    assert store.artifacts(str(third.run_id)).as_uri() == client.get_run(str(third.run_id)).info.artifact_uri
    ids = [str(version.run_id) for version in (second, third)]
    assert store.names_and_values(ids, "loss") == {str(second.run_id): ("one", None)}
    client.log_metric(str(second.run_id), "loss", 0.5, step=0)
    client.log_metric(str(second.run_id), "loss", 0.25, step=1)
    assert store.names_and_values(ids, "loss") == {str(second.run_id): ("one", 0.25)}


def test_a_store_of_another_version_of_mlflow_answers_with_one_warning(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By MLflow's public client alone: no table but experiments and Alembic's is read."""
    (version,) = versions(registry, 1)
    registry.promote(version)
    store = registry.store
    experiment = store.experiment("digits")
    monkeypatch.setattr(database, "KNOWN_SCHEMAS", ("another",))
    monkeypatch.setattr(database, "SqlReader", None)
    assert registry.champion("digits") == version
    assert store.run_exists(str(version.run_id))
    assert not store.run_exists("0" * 32)
    assert store.newest_experiment() == store.newest_experiment("digits") == experiment
    assert store.newest_experiment("none") is None
    assert store.was_tagged(MODEL_ID_TAG, str(version.model_id)) is False
    store.client.set_tag(str(version.run_id), "a.tag", "it's")
    assert store.was_tagged("a.tag", "it's")
    assert [record.message for record in caplog.records if "another version of MLflow" in record.message] == [
        f"{store.root / 'mlflow.db'} has tables of another version of MLflow (dc11669786a5): it is read by MLflow, "
        "more slowly."
    ]


def test_a_store_that_mlflow_refuses_too_is_one_error(tmp_path: Path, empty_database: Path) -> None:
    """Its Alembic revision is neither the one of the SQL here nor the one of the installed MLflow."""
    registry = Registry(Store(tmp_path))
    (tmp_path / "mlflow_artifacts").mkdir()
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f5a4f2784254'")
    with pytest.raises(PipelineError, match=r"MLflow cannot open .*mlflow\.db: .*\n.*mlflow db upgrade sqlite"):
        registry.names()


def test_decisions_of_older_databases_are_read() -> None:
    old = {"appointed": "promoted", "kept out": "rejected", "taken back": "rolled back", "not put up": "not considered"}
    for text, now in old.items():
        assert decision_of(Version("digits", 1, None, None, {"champion.decision": text})) == now
    assert decision_of(Version("digits", 1, None, None, {})) is None


def test_it_is_read_without_mlflow(registry: Registry) -> None:
    (first,) = versions(registry, 1)
    registry.promote(first)
    code = (
        "import sys; from pathlib import Path; from pipeline.tracking import Store\n"
        "from pipeline.registry.versions import Registry\n"
        "from pipeline.tracking.lookup import find_version\n"
        f"store = Store(Path({str(registry.store.root)!r}))\n"
        "print(find_version(store, '@champion'), store.run_exists(Registry(store).versions('digits')[0].run_id))\n"
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
