"""What a name means: a run, a sweep, a version, a revision, a folder, nothing, or too much."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import sha256_of, write_json
from pipeline.tracking import DESCRIPTION_TAG, MODEL_TAG, Store
from pipeline.tracking.database import Version
from pipeline.tracking.lookup import (
    BEST_TAG,
    ID_TAG,
    NAMES,
    PARENT,
    ROLE_TAG,
    ModelFolder,
    Revision,
    Sweep,
    TrainedRun,
    describe,
    find,
    find_run,
    run_of,
    run_of_model,
    sweeps,
)

ALL = tuple(NAMES)


@pytest.fixture
def filled(store: Store) -> Store:
    """Two trainings called `twice`, one called `once`, one that has no model yet; two sweeps, one of them jobless."""
    ids = {}
    for name, tags in (
        ("twice", {MODEL_TAG: "a"}),
        ("twice", {MODEL_TAG: "b"}),
        ("once", {MODEL_TAG: "c"}),
        ("new", {}),
    ):
        ids[name] = store.client.create_run("0", run_name=name, tags=tags).info.run_id
    for identity, best in (("s1", {BEST_TAG: ids["once"]}), ("s2", {})):
        tags = {ROLE_TAG: PARENT, ID_TAG: identity, **best}
        store.client.create_run("0", run_name=f"sweep {identity}", tags=tags)
    return store


def test_a_run_is_called_by_its_name_or_the_beginning_of_its_id(filled: Store) -> None:
    once = find(filled, "once", ALL)
    assert isinstance(once, TrainedRun)
    run_id = once.row.run_id
    assert find(filled, run_id, ALL) == find(filled, run_id[:6], ALL) == once
    assert str(once) == f"run {run_id[:8]} (once)"
    with pytest.raises(ConfigError, match="nothing is called so"):
        find(filled, run_id[:5], ALL)


def test_a_sweep_is_called_by_its_id_its_name_or_the_beginning_of_its_runs_id(filled: Store) -> None:
    sweep = find(filled, "s1", ALL)
    assert isinstance(sweep, Sweep)
    assert find(filled, sweep.row.run_id[:8], ALL) == find(filled, "sweep s1", ALL) == sweep
    assert run_of(filled, sweep).name == "once"
    assert describe(filled, sweep).startswith("sweep s1, its best: run ")
    with pytest.raises(ConfigError, match="sweep s2 has no finished job yet"):
        find_run(filled, "s2")


def test_a_sweep_is_called_by_the_beginning_of_its_own_id_or_of_its_runs(store: Store) -> None:
    """Four characters do where only a sweep can be meant. One that began anew is the newest of its id."""
    for identity in ("s1a2b3c4d5e6", "s1a2b3c4d5e6", "s1a2ffffffff"):
        store.client.create_run("0", run_name="sweep units", tags={ROLE_TAG: PARENT, ID_TAG: identity})
    other, newest, _ = rows = sweeps(store)
    assert [row.tags[ID_TAG] for row in rows] == ["s1a2ffffffff", "s1a2b3c4d5e6", "s1a2b3c4d5e6"]

    assert find(store, "s1a2b3", ALL) == find(store, "s1a2b", ("sweep",)) == Sweep(newest)
    assert find(store, other.run_id[:4], ("sweep",)) == Sweep(other)
    for name, kinds in (("s1a2b", ALL), (other.run_id[:4], ALL), ("s1a", ("sweep",)), ("", ("sweep",))):
        with pytest.raises(ConfigError, match="nothing is called so"):
            find(store, name, kinds)
    with pytest.raises(
        ConfigError, match=r"^s1a2: 2 sweeps are called so, the newest s1a2ffffffff .*, s1a2b3c4d5e6 \("
    ):
        find(store, "s1a2", ("sweep",))


def test_a_version_is_called_by_its_alias_or_number(filled: Store) -> None:
    once = find_run(filled, "once")
    client = filled.client
    client.create_registered_model("digits")
    client.create_model_version("digits", "file:///nowhere", run_id=once.run_id)
    client.create_model_version("digits", "file:///nowhere")
    client.set_registered_model_alias("digits", "champion", "1")
    version = find(filled, "@champion", ALL)
    assert isinstance(version, Version)
    assert find(filled, "digits@champion", ALL) == find(filled, "digits@1", ALL) == version
    assert find_run(filled, "@champion") == once
    assert describe(filled, version) == "version 1 of digits, @champion"
    assert describe(filled, find(filled, "digits@2", ALL)) == "version 2 of digits"
    with pytest.raises(PipelineError, match="version 2 of digits has no run in the store"):
        find_run(filled, "digits@2")


def test_a_champion_of_a_model_that_is_not_there_is_told_which_there_are(filled: Store) -> None:
    with pytest.raises(ConfigError, match=r"^digit@champion: no version of digit is the champion yet"):
        find(filled, "digit@champion", ALL)
    for name in ("digits", "letters"):
        filled.client.create_registered_model(name)
    with pytest.raises(
        ConfigError, match=r"^digit@champion: no registered model is called digit\. Expected one of digits, letters$"
    ):
        find(filled, "digit@champion", ALL)
    with pytest.raises(ConfigError, match=r"^digits@champion: no version of digits is the champion yet"):
        find(filled, "digits@champion", ALL)


def test_a_folder_and_a_revision_are_called_as_everywhere(filled: Store) -> None:
    (filled.root / "outputs/one").mkdir(parents=True)
    (filled.root / "outputs/one/model.json").touch()
    assert find(filled, "outputs/one", ALL) == ModelFolder(filled.root / "outputs/one")
    assert find(filled, "workspace", ALL) == ModelFolder(filled.root / "models", is_workspace=True)
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    for words in (("init", "--quiet"), (*who, "commit", "--quiet", "--allow-empty", "-m", "first"), ("tag", "v1")):
        subprocess.run(["git", *words], cwd=filled.root, check=True)
    revision = find(filled, "v1", ALL)
    assert isinstance(revision, Revision)
    assert find(filled, "HEAD", ALL) == find(filled, "HEAD@{0}", ALL) == revision


def test_a_name_that_two_runs_have_is_refused(filled: Store) -> None:
    both = r"\w{8} \(twice\), \w{8} \(twice\)"
    with pytest.raises(ConfigError, match=rf"^model=twice: 2 runs are called so, the newest {both}\. Give an id$"):
        find(filled, "twice", ALL, given="model=twice")


@pytest.mark.parametrize("name", ["nonsense", "--upload-pack=x", "@champions", "digits@7"])
def test_a_name_that_nothing_has_is_refused_with_what_there_is(filled: Store, name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{name}: nothing is called so. Expected workspace, a revision of git, a run"
    ) as told:
        find(filled, name, ALL)
    assert "or a folder with model.json. The newest runs: " in str(told.value)
    assert "(once), " in str(told.value)
    assert "The newest sweeps: s2 (" in str(told.value)


def test_a_run_without_a_model_is_told_as_such(filled: Store) -> None:
    with pytest.raises(ConfigError, match=r"^new: run \w{32} is RUNNING and left no model$"):
        find(filled, "new", ALL)


def test_a_command_takes_the_kinds_that_it_names(filled: Store) -> None:
    with pytest.raises(
        ConfigError, match=r"^--sweep once: nothing is called so\. Expected a sweep\. The newest sweeps: s2"
    ):
        find(filled, "once", ("sweep",), given="--sweep once")
    with pytest.raises(ConfigError, match=r"^HEAD: nothing is called so\. Expected a run .*, @champion, or a sweep\. "):
        find_run(filled, "HEAD")


def test_of_the_runs_of_a_model_one_that_kept_a_file_is_preferred(store: Store, tmp_path: Path) -> None:
    """With a file the newest that kept it, else the newest; without one the run that run.json names."""
    models = tmp_path / "models"
    write_json(models / "model.json", {"seed": 0})
    tags = {DESCRIPTION_TAG: sha256_of(models / "model.json")}
    first, second, third = (store.client.create_run("0", tags=tags).info.run_id for _ in range(3))
    write_json(models / "run.json", {"run_id": first, **tags})

    def found(file: str | None) -> str:
        row = run_of_model(store, models, Path(file) if file else None)
        assert row
        return row.run_id

    assert (found(None), found("predictions")) == (first, third)
    (store.artifacts(second) / "predictions").mkdir(parents=True)
    assert (found(None), found("predictions")) == (first, second)
    (store.artifacts(third) / "predictions").mkdir(parents=True)
    assert (found(None), found("predictions")) == (first, third)
    (store.artifacts(first) / "predictions").mkdir(parents=True)
    assert (found(None), found("predictions")) == (first, third)


def test_a_store_that_is_not_there_has_nothing_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The newest runs: none\. The newest sweeps: none$"):
        find(Store(tmp_path), "nonsense", ALL)
    assert list(tmp_path.iterdir()) == []
