"""Each command takes the names that make sense for it: a run, a sweep, a version, a folder, the workspace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from arguments import arguments_of
from config.config_makers import train_config
from pipeline.commands import adopt, champion
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import save_model
from pipeline.prediction.models import find_model, served_model
from pipeline.registry.versions import Registry
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.tracking import MODEL_ID_TAG, MODEL_TAG, Store
from pipeline.tracking.lookup import BEST_TAG, ID_TAG, PARENT, ROLE_TAG
from project_maker import mark_as_project


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "mlflow_artifacts").mkdir()
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    mark_as_project(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return Store(tmp_path)


@pytest.fixture
def best(store: Store) -> str:
    """The job of a sweep with the id `s1`, called `units=8`; it left a network of 8 units. Its run's id."""
    spec = InputSpec((28, 28), "uint8", 0.0, 255.0)
    cfg = train_config({"model.units": [8]}).model
    torch.manual_seed(0)
    with store.run("digits", "units=8", tags={MODEL_TAG: "a", "sweep.job": "key", "sweep.number": "0"}) as run:
        save_model(store.root / "models", DenseNetwork(cfg, spec, 2), cfg, spec, ["a", "b"], {})
        for file in ("model.safetensors", "model.json"):
            run.artifact(store.root / "models" / file, "dvc")
    store.client.create_run("0", run_name="sweep units", tags={ROLE_TAG: PARENT, ID_TAG: "s1", BEST_TAG: run.id})
    return run.id


def test_a_model_to_predict_with_is_a_run_a_sweeps_best_a_version_a_folder_or_the_workspace(
    store: Store, best: str
) -> None:
    run = f"run {best[:8]} (units=8)"
    store.client.create_registered_model("digits")
    store.client.create_model_version("digits", "file:///nowhere", run_id=best)
    assert [find_model(store.root, name, "predict").what for name in ("units=8", best[:6], "s1", "digits@1")] == [
        run, run, f"sweep s1, its best: {run}", "version 1 of digits",
    ]  # fmt: skip
    for name in ("workspace", "models", None):
        assert find_model(store.root, name, "predict").what == str(store.root / "models")
    store.client.set_registered_model_alias("digits", "champion", "1")
    for name in ("@champion", None):
        assert find_model(store.root, name, "predict").what == "version 1 of digits, @champion"


def test_what_is_served_is_the_model_of_a_sweeps_best(store: Store, best: str) -> None:
    with pytest.raises(PipelineError, match=r"sweep s1, its best: run .* has no model that MLflow can serve"):
        served_model(store.root, "s1")
    model = store.client.create_logged_model(store.experiment("digits"), "dense", best)
    store.client.set_tag(best, MODEL_ID_TAG, model.model_id)
    assert served_model(store.root, "s1").folder == store.model_folder(model.model_id)
    with pytest.raises(ConfigError, match=r"^model=workspace: nothing is called so\. Expected a run"):
        served_model(store.root, "workspace")


def test_a_job_to_adopt_is_a_run_by_its_name_or_a_sweeps_best(store: Store, best: str) -> None:
    assert adopt.winner(store, "units=8").why == f"job 0 of a sweep, run {best}"
    assert adopt.winner(store, "s1").why == "the best of sweep s1 (sweep units)"
    with store.run("digits", "alone", tags={MODEL_TAG: "b"}) as alone:
        pass
    with pytest.raises(ConfigError, match=rf"alone: run {alone.id[:8]} .* was no job of a sweep\. The newest"):
        adopt.winner(store, "alone")


@pytest.mark.parametrize("flag", ["--rollback", "--back"])
def test_a_version_is_promoted_by_its_number_or_name_and_rolled_back(
    flag: str, store: Store, best: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.client.create_registered_model("digits")
    for _ in range(2):
        store.client.create_model_version("digits", "file:///nowhere", run_id=best)
    for name in ("1", "digits@2"):
        champion.main(arguments_of(champion, name))
    champion.main(arguments_of(champion, flag))
    assert "version 1 of digits is @champion again, version 2 of digits no longer" in capsys.readouterr().out
    champion.main(arguments_of(champion))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"2 {best[:8]} units=8 rolled back" in lines
    assert f"@champion 1 {best[:8]} units=8 promoted by hand" in lines
    second = Registry(store).versions("digits")[0]
    assert store.client.get_model_version("digits", "2").description == "rolled back by hand for version 1"
    assert second.tags["champion.decision"] == "rolled back"
    for name in ("3", "digits@3", "nonsense"):
        with pytest.raises(ConfigError, match=f"digits has no version {name}. It has 1, 2"):
            champion.main(arguments_of(champion, name))
