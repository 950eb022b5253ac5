"""What ties a model, its run and its evaluation together; words that people read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from config.config_makers import ROOT, settings, train_config, whole_config
from pipeline.config.check import validate
from pipeline.config.schema import EvaluateConfig
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import save_model
from pipeline.runtime.origin import WORK_TAG, Origin, code_sha256, flat, origin_of, shown, work_folder
from pipeline.runtime.places import Places
from pipeline.runtime.recording import (
    MODEL_ID_TAG,
    evaluation_note,
    evaluation_run,
    find_interrupted_run,
    headline,
    model_tags,
    run_name,
    run_of,
)
from pipeline.system.files import write_json
from pipeline.system.locks import LIVE
from pipeline.tracking import DESCRIPTION_TAG, MODEL_TAG, Store
from pipeline.tracking.leaderboard import LIVE_TAG

# MLflow 3.17 uses a loader option that SQLAlchemy 2.1 deprecates; may go when MLflow stops.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

DVC_YAML = "stages: {train: {deps: [data/processed, src/a.py, src/b.py]}}\n"


# ---------------------------------------------------------------- origin


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """dvc.yaml, two source files that it lists, one that it does not, and a data card."""
    for name in ("src/a.py", "src/b.py", "src/other.py", "data/processed/data_card.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    return tmp_path


def origin(project: Path, changes: dict[str, Any] | None = None) -> Origin:
    return origin_of(train_config(changes), places(project))


def places(project: Path, out: Path | None = None) -> Places:
    return Places(project, project, out or project, settings())


def test_the_same_inputs_have_the_same_origin(project: Path) -> None:
    """A training that was cut short finds its checkpoints again."""
    assert origin(project) == origin(project)
    assert origin(project).key == origin(project).key


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("data/processed/data_card.json", "data_sha256"),
        ("src/a.py", "code_sha256"),
        ("src/b.py", "code_sha256"),
    ],
)
def test_a_changed_input_changes_the_origin(file: str, part: str, project: Path) -> None:
    """Data and code each in their own digest, and in the key."""
    before = origin(project)
    (project / file).write_text("changed")
    after = origin(project)

    assert {name for name, digest in before.as_json().items() if after.as_json()[name] != digest} == {part}
    assert after.key != before.key


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"optimizer.lr": 0.002}, {"model.units": [511]}, {"trainer.num_epochs": 21}, {"model.dropout": 0.1}],
    ids=str,
)
def test_a_changed_setting_changes_the_origin(changes: dict[str, Any], project: Path) -> None:
    """Checkpoints of another configuration are never gone on with."""
    before, after = origin(project), origin(project, changes)

    assert after.config_sha256 != before.config_sha256
    assert (after.data_sha256, after.code_sha256) == (before.data_sha256, before.code_sha256)
    assert after.key != before.key


@pytest.mark.parametrize(
    "changes", [{"tracking.run_name": "mine"}, {"tracking.progress": False}, {"tracking.experiment": "x"}], ids=str
)
def test_how_a_run_is_filed_does_not_change_the_origin(changes: dict[str, Any], project: Path) -> None:
    """Tracking changes no weight."""
    assert origin(project, changes) == origin(project)


def test_a_file_that_dvc_does_not_list_does_not_change_the_origin(project: Path) -> None:
    """Neither another source file nor dvc.yaml itself."""
    before = origin(project)
    (project / "src/other.py").write_text("changed")
    (project / "dvc.yaml").write_text(DVC_YAML + "# a comment\n")

    assert origin(project) == before


def test_the_digest_of_the_code_is_that_of_the_listed_sources(project: Path) -> None:
    """SHA-256 of {path: SHA-256 of the file} as JSON, keys sorted; folders of data are left out."""
    digests = {name: hashlib.sha256(f"content of {name}".encode()).hexdigest() for name in ("src/a.py", "src/b.py")}

    assert code_sha256(project) == hashlib.sha256(json.dumps(digests).encode()).hexdigest()


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_the_digest_of_this_projects_code_can_be_had(stage: str) -> None:
    """Every source that dvc.yaml lists is there; train and evaluate have different ones."""
    assert len(code_sha256(ROOT, stage)) == 64
    assert code_sha256(ROOT, "train") != code_sha256(ROOT, "evaluate")


def test_checkpoints_lie_outside_dvcs_outputs(project: Path) -> None:
    """Under DVC one folder a training; by hand in Hydra's own folder."""
    found = origin(project)

    assert work_folder(places(project), found) == project / ".pipeline/checkpoints" / found.key
    assert work_folder(places(project, project / "outputs/train/1"), found) == project / "outputs/train/1/checkpoints"


# ---------------------------------------------------------------- a training that was killed at its start


def test_a_run_that_was_killed_before_it_was_written_down_is_found(store: Store) -> None:
    """By the folder of its checkpoints, with any quotes in its name; the newest of several."""
    work = store.root / "it's here"
    with pytest.raises(RuntimeError), store.run("mnist", "older", tags={WORK_TAG: str(work)}):
        raise RuntimeError
    with pytest.raises(SystemExit), store.run("mnist", "killed", tags={WORK_TAG: str(work)}) as run:
        raise KeyboardInterrupt

    assert find_interrupted_run(store, work) == run.id


def test_no_other_run_is_taken_for_it(store: Store, tmp_path: Path) -> None:
    """Neither one that has finished, nor a deleted one, nor that of another folder; an empty project has none."""
    work = store.root / "here"
    assert find_interrupted_run(Store(tmp_path / "nothing"), work) is None
    assert find_interrupted_run(store, work) is None
    with store.run("mnist", "finished", tags={WORK_TAG: str(work)}):
        pass
    with pytest.raises(RuntimeError), store.run("mnist", "deleted", tags={WORK_TAG: str(work)}) as run:
        raise RuntimeError
    store.client.delete_run(run.id)
    with pytest.raises(RuntimeError), store.run("mnist", "elsewhere", tags={WORK_TAG: f"{work}/below"}):
        raise RuntimeError

    assert find_interrupted_run(store, work) is None


def test_looking_for_it_closes_a_run_whose_process_died(store: Store) -> None:
    """As KILLED, although it is of another folder."""
    dead = store.client.create_run("0", tags={LIVE_TAG: "token"}).info.run_id
    (store.root / LIVE).mkdir(parents=True)
    (store.root / LIVE / "token").touch()

    assert find_interrupted_run(store, store.root / "here") is None
    assert store.client.get_run(dead).info.status == "KILLED"


# ---------------------------------------------------------------- from a model to its run


def add_run(store: Store, digest: str) -> str:
    """A finished run that trained the model whose description has this digest."""
    with store.run("mnist", "a run") as run:
        run.tags({DESCRIPTION_TAG: digest, MODEL_ID_TAG: "m-1"})
    return run.id


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_run_json_is_believed_if_it_is_about_these_weights(store: Store, models: Path) -> None:
    """Two runs made the same weights: the one that wrote the files is meant, not the newer one."""
    first, second = add_run(store, "aa"), add_run(store, "aa")
    write_json(models / "run.json", {"run_id": first, DESCRIPTION_TAG: "aa"})

    assert run_of(store, models, {DESCRIPTION_TAG: "aa"}) == first
    (models / "run.json").unlink()
    assert run_of(store, models, {DESCRIPTION_TAG: "aa"}) == second


def test_run_json_of_other_weights_is_not_believed(store: Store, models: Path) -> None:
    """After `dvc checkout` the weights may be older than run.json: the store is searched."""
    old, new = add_run(store, "aa"), add_run(store, "bb")
    write_json(models / "run.json", {"run_id": new, DESCRIPTION_TAG: "bb"})

    assert run_of(store, models, {DESCRIPTION_TAG: "aa"}) == old


def test_a_deleted_run_is_not_gone_on_with(store: Store, models: Path) -> None:
    """Another run that made the same weights takes its place."""
    other, deleted = add_run(store, "aa"), add_run(store, "aa")
    write_json(models / "run.json", {"run_id": deleted, DESCRIPTION_TAG: "aa"})
    store.client.delete_run(deleted)

    assert run_of(store, models, {DESCRIPTION_TAG: "aa"}) == other


def test_weights_that_no_run_made_have_none(store: Store, models: Path) -> None:
    """Not the newest one, not any."""
    add_run(store, "aa")
    write_json(models / "run.json", {"run_id": "0" * 32, DESCRIPTION_TAG: "bb"})

    assert run_of(store, models, {DESCRIPTION_TAG: "bb"}) is None


def evaluate_config() -> EvaluateConfig:
    return validate(EvaluateConfig, {key: settings()[key] for key in ("evaluate", "tracking")})


def save_tiny(models: Path) -> dict[str, str]:
    """An untrained model; the tags it is known by."""
    cfg, spec = train_config({"model.units": [2]}).model, InputSpec((2, 2), "uint8", 0.0, 255.0)
    digest = save_model(models, DenseNetwork(cfg, spec, 2), cfg, spec, ["a", "b"], {"kept_epoch": 0})
    return model_tags(digest, models)


def test_an_evaluation_goes_on_in_the_run_that_trained(
    store: Store, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No second run is made, and nothing is said."""
    trained = add_run(store, save_tiny(models)[DESCRIPTION_TAG])
    with evaluation_run(evaluate_config(), places(store.root), models) as run:
        run.metrics({"test/accuracy": 0.5})

    assert run.id == trained
    assert store.client.get_run(trained).data.metrics == {"test/accuracy": 0.5}
    assert capsys.readouterr().out == ""


def test_an_evaluation_of_a_foreign_model_gets_its_own_run(
    store: Store, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the digest of the weights and the settings; a line says why."""
    digest = save_tiny(models)[MODEL_TAG]
    with evaluation_run(evaluate_config(), places(store.root), models) as run:
        pass

    assert f"no run in mlflow.db trained this model ({digest[:8]})" in capsys.readouterr().out
    found = store.client.get_run(run.id)
    assert (found.info.run_name, found.data.tags[MODEL_TAG]) == (f"evaluation of {digest[:8]}", digest)
    assert found.data.params["evaluate.num_calibration_bins"] == "15"


# ---------------------------------------------------------------- words


def test_settings_are_flat_under_dotted_names() -> None:
    """Lists stay lists, a null is left out, `_target_` is called target and has a short name."""
    values = {
        "model": {"units": [8, 4], "deep": {"x": None, "y": 0}},
        "optimizer": {"_target_": "a.B", "lr": 0.1},
        "seed": 0,
    }

    assert flat(values) == {
        "model.units": [8, 4],
        "model.deep.y": 0,
        "optimizer.target": "a.B",
        "optimizer.name": "b",
        "optimizer.lr": 0.1,
        "seed": 0,
    }


def test_what_nobody_compares_is_left_out() -> None:
    """Addresses, digests, names of classes, and where the run is filed."""
    found = set(flat(settings()))

    assert not [key for key in found if key.startswith(("tracking", "data.files", "data.mirrors", "data.classes"))]
    assert {"data.name", "data.validation_fraction", "model.units", "trainer.num_epochs", "seed"} <= found


def test_a_run_is_named_by_what_it_is() -> None:
    """Widths, optimizer, data."""
    cfg = train_config({"model.units": [512, 256]})

    assert run_name(cfg, settings()) == "dense-512x256 rmsprop mnist_5k"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"test/accuracy": 0.9785, "test/correct": 9785, "test/count": 10_000},
            "test accuracy 97.85% (9,785 of 10,000 right)",
        ),
        ({"train/accuracy": 0.99, "val/accuracy": 0.975}, "val accuracy 97.50%"),
        ({"train/accuracy": 0.99}, "train accuracy 99.00%"),
    ],
)
def test_the_headline_is_the_best_evidence_there_is(values: dict[str, float], text: str) -> None:
    """The test set, else the validation split, else the training images, and it says which."""
    assert headline(values) == text


def test_the_note_leads_to_the_model_and_the_curves(tmp_path: Path) -> None:
    """Each only where there is one."""
    scores = {"test/accuracy_low": 0.975, "test/accuracy_high": 0.981}
    bare = evaluation_note("r1", None, scores, tmp_path)
    (tmp_path / "reports/figures").mkdir(parents=True)
    (tmp_path / "reports/figures/learning_curves.png").touch()

    assert bare == "95 % interval 97.50% to 98.10%"
    assert evaluation_note("r1", "m-1", scores, tmp_path) == (
        f'{bare}\n\n`mlflow.pyfunc.load_model("models:/m-1")`\n\n'
        "![learning curves](get-artifact?path=figures%2Flearning_curves.png&run_uuid=r1)"
    )


def test_paths_are_shown_as_people_type_them(tmp_path: Path) -> None:
    """Relative inside the project, whole outside."""
    assert shown(tmp_path / "models", tmp_path) == "models"
    assert shown(Path("/elsewhere/models"), tmp_path) == "/elsewhere/models"


def test_the_settings_of_the_origin_are_all_that_train_reads(project: Path) -> None:
    """The digest is that of the typed settings without tracking and sweep, so a key added later counts as well."""
    cfg = train_config()
    settings_read = cfg.model_dump(mode="json", exclude={"tracking", "sweep"}, by_alias=True)
    expected = hashlib.sha256(json.dumps(settings_read, sort_keys=True).encode()).hexdigest()

    assert set(settings_read) == set(type(whole_config()).model_fields) - {
        "tracking",
        "sweep",
        "data",
        "expand",
        "evaluate",
    }
    assert origin(project).config_sha256 == expected
