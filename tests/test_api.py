"""`import pipeline`, as in a notebook: what it changes, what it can do, what it says about mistakes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import pipeline
from config.config_makers import ROOT, settings, train_config
from data_makers import cycling_labels, noise
from pipeline.commands import reproduce as tree
from pipeline.config.check import validate
from pipeline.config.schema import Config, PreprocessConfig, PreprocessData, TrainConfig
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.download import download
from pipeline.evaluation.scores import scores
from pipeline.model.portable import load_model
from pipeline.preprocess import preprocess
from pipeline.runtime.origin import origin_of
from pipeline.runtime.places import Places
from pipeline.tracking import RunRow, Store
from pipeline.tracking.database import DATABASE
from pipeline.train import train
from pipeline.training.progress import EpochProgress

PUBLIC = ["ConfigError", "Data", "DataContractError", "Dense", "Diverged", "DownloadError", "History", "PipelineError",
          "Verdict", "__version__", "compare", "load_data", "load_model"]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a project with this code and an empty store."""
    for name in ("conf", "src", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "mlflow_artifacts").mkdir()
    shutil.copy(empty_database, tmp_path / DATABASE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny(num_train: int = 30, num_test: int = 12) -> Any:
    """Arrays as Keras gives them: 5 x 4 pixels, three classes."""
    train, test = noise(num_train), noise(num_test, seed=1)
    return (train, cycling_labels(num_train)), (test, cycling_labels(num_test))


def fitted(data: pipeline.Data, seed: int = 0, **settings: Any) -> pipeline.Dense:
    model = pipeline.Dense(units=[8], seed=seed, **settings)
    model.fit(data, epochs=2, batch_size=8, verbose=False)
    return model


# ---------------------------------------------------------------- what importing and using it changes


def in_a_fresh_python(code: str, cwd: Path) -> Any:
    """What the code prints last, as JSON."""
    foreign = {name: text for name, text in os.environ.items() if not name.startswith(("MKL_", "GOMP_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**foreign, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


STATE = """
import gc, json, os, signal, sys
def state():
    return [gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(), sys.excepthook is sys.__excepthook__,
            signal.getsignal(signal.SIGINT) is signal.default_int_handler, os.getcwd(), sys.path[:]]
before, variables, modules = state(), dict(os.environ), set(sys.modules)
def new_variables():
    return sorted(name for name, text in os.environ.items() if variables.get(name) != text)
"""


def test_importing_it_changes_nothing_and_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import pipeline\nprint(json.dumps([state() == before, new_variables(), sorted(set(sys.modules) - modules)]))"
    )

    same, variables, imported = in_a_fresh_python(f"{STATE}\n{code}", tmp_path)

    assert (same, variables) == (True, [])
    assert [name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names] == ["pipeline"]


OF_LIBRARIES = {"PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"}  # Lightning, torch


def test_a_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """Neither MLflow's variables nor those of torch's threads stay; the collector and Ctrl-C work as before."""
    code = f"""{STATE}
import numpy as np, pipeline
images = np.arange(30 * 20, dtype=np.uint8).reshape(30, 5, 4)
data = pipeline.load_data((images, np.arange(30) % 3), test_fraction=0.2)
pipeline.Dense(4).fit(data, epochs=1)
print(json.dumps([state() == before, new_variables(), "mlflow" in sys.modules]))
"""
    same, variables, mlflow = in_a_fresh_python(code, tmp_path)

    assert (same, mlflow) == (True, False)
    assert set(variables) <= OF_LIBRARIES
    assert list(tmp_path.iterdir()) == []


def torch_state() -> list[Any]:
    """Random numbers to come, and flags."""
    return [
        torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()),
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    ]  # fmt: skip


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_torch_is_left_as_it_was(project: Path, workspace: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers go on where they were; what Lightning sets for the same bits is taken back."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace or "")
    if workspace is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    torch.use_deterministic_algorithms(False)
    before = torch_state()
    data = pipeline.load_data(tiny())
    pipeline.Dense([4]).build(data)
    after_build = torch_state()
    fitted(data)

    assert after_build == before
    assert torch_state() == before


def test_it_has_the_public_names_alone() -> None:
    assert dir(pipeline) == PUBLIC
    assert [name for name in PUBLIC if getattr(pipeline, name, None) is None] == []
    assert issubclass(pipeline.Diverged, pipeline.PipelineError)
    assert pipeline.__version__ == importlib.metadata.version("dense-pipeline")
    with pytest.raises(AttributeError, match="no attribute 'lode_data'"):
        _ = pipeline.lode_data  # type: ignore[attr-defined]


@pytest.mark.slow
def test_types_are_seen_from_outside(tmp_path: Path) -> None:
    """A program that misuses it is refused by mypy, line by line."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pipeline\n"
        "data: pipeline.Data = pipeline.load_data('mnist_5k', validation_fraction=0.2)\n"
        "model = pipeline.Dense(units=[512], activation='relu', optimizer={'name': 'sgd', 'lr': 0.1})\n"
        "history = model.fit(data, epochs=5, keep='last')\n"
        "losses: list[float] = history['val/loss']\n"
        "accuracy: float = model.evaluate(data)['test/accuracy']\n"
        "better: bool = pipeline.compare(model, '@champion').verdict == 'better'\n"
        "model.fit(data, epoch=5)\n"
        "pipeline.Dense(activation='rely')\n"
        "pipeline.load_data('mnist', split_sed=1)\n"
    )
    words = ["--no-error-summary", str(script)]  # as `make lint`, whose cache it finds
    done = subprocess.run([sys.executable, "-m", "mypy", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    wrong = [line.split(":")[1] for line in done.stdout.splitlines() if "script.py" in line and "error:" in line]

    assert wrong == ["8", "9", "10"], done.stdout + done.stderr


# ---------------------------------------------------------------- the session of a notebook


def test_a_session_gives_the_files_that_the_stage_gives(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, description, history and scores, to the last bit; on the terminal the same lines."""
    data = pipeline.load_data("mnist_5k")
    model = pipeline.Dense(units=[16], dropout=0.1)
    capsys.readouterr()
    history = model.fit(data, epochs=2, batch_size=128)
    printed = capsys.readouterr().out
    model.save("saved")

    record = settings({"model.units": [16], "model.dropout": 0.1, "trainer.num_epochs": 2})
    whole = validate(Config, record)
    download(whole.data, project, project / "data/raw", None)
    view = {key: record["data"][key] for key in PreprocessData.model_fields}
    seen = validate(PreprocessConfig, {"data": view, "expand": record["expand"]})
    preprocess(project / "data/raw", project / "data/processed", seen)
    cfg = validate(TrainConfig, {key: record[key] for key in TrainConfig.model_fields})
    places = Places(project, project, project / "out", record)
    console = Console(soft_wrap=True, force_terminal=False)
    capsys.readouterr()
    done = train(
        project / "data/processed", places.out, project / "work", cfg, origin_of(cfg, places).as_json(),
        console=console, on_epoch=lambda *_: None, on_steps=lambda *_: None,
    )  # fmt: skip

    for file in ("model.safetensors", "model.json"):
        assert Path("saved", file).read_bytes() == (project / "out/models" / file).read_bytes(), file
    assert history == {name: [row[name] for row in done.fit.history] for name in done.fit.history[0]}
    assert history.kept_epoch == done.fit.kept_epoch
    assert without_seconds(printed) == without_seconds(capsys.readouterr().out) != ""
    test = load_split(project / "data/processed", "test")
    answers = load_model(project / "out/models").predict_log_proba(test.images)
    assert model.evaluate(data) == scores(answers, np.asarray(test.labels), whole.evaluate.num_calibration_bins)
    assert np.array_equal(model.predict(data.test.images), np.exp(answers))
    assert pipeline.load_data().sha256 == data.sha256  # what the stages left


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_block_of_a_page_runs(project: Path, page: str) -> None:
    block = re.search(r"```python\n(import pipeline\n.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert block
    names: dict[str, Any] = {}
    exec(block[1], names)

    assert names["model"].evaluate(names["data"])["test/accuracy"] > 0.85
    if "same" in names:
        assert np.array_equal(names["same"].predict(names["data"].test.images), names["probabilities"])


def without_seconds(lines: str) -> str:
    return "\n".join(line.rpartition("  ")[0] for line in lines.splitlines())


@pytest.mark.slow
def test_a_model_has_the_weights_of_the_command(project: Path) -> None:
    """`pipeline train` with the same settings."""
    data = pipeline.load_data("mnist_5k")
    shutil.copytree(data.folder / "data/processed", project / "data/processed")
    model = pipeline.Dense(units=[32], lr=0.002)
    model.fit(data, epochs=2, verbose=False)
    model.save("saved")
    assert DataCard.read(project / "data/processed/data_card.json") == data.card

    words = ["model.units=[32]", "optimizer.lr=0.002", "trainer.num_epochs=2", "hydra.run.dir=out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PIPELINE_WARM": "0"}
    done = subprocess.run([sys.executable, "-m", "pipeline", "train", *words], env=environment, capture_output=True)

    assert done.returncode == 0, done.stderr
    for file in ("model.safetensors", "model.json"):
        assert Path("saved", file).read_bytes() == Path("out/models", file).read_bytes(), file


def test_fitting_begins_anew_each_time_and_settings_of_a_fit_are_its_own(project: Path) -> None:
    data = pipeline.load_data(tiny())
    model = fitted(data)
    first = model.predict(data.test.images)
    model.fit(data, epochs=9, batch_size=2, keep="last", verbose=False)
    assert not np.array_equal(model.predict(data.test.images), first)
    history = model.fit(data, epochs=2, batch_size=8, verbose=False)

    assert np.array_equal(model.predict(data.test.images), first)
    assert len(history["epoch"]) == 2


def test_the_network_to_begin_with_is_that_of_the_seed(project: Path) -> None:
    """One step of a very small size leaves it nearly where it was."""
    data = pipeline.load_data(tiny())
    model = pipeline.Dense([8], optimizer={"name": "sgd", "momentum": 0.0}, lr=1e-12, seed=3)
    before = model.build(data)
    model.fit(data, epochs=1, batch_size=24, verbose=False)

    for name, weight in model.network.state_dict().items():
        assert np.allclose(weight, before.state_dict()[name], atol=1e-9), name


def test_a_model_comes_back_as_it_was_saved(project: Path) -> None:
    data = pipeline.load_data(tiny())
    model = fitted(data, activation="tanh")
    model.save("one")
    back = pipeline.load_model("one")
    back.save(project / "two")

    assert np.array_equal(back.predict(data.test.images), model.predict(data.test.images))
    assert back.evaluate(data) == model.evaluate(data)
    assert back.settings == {"seed": 0, "model": model.settings["model"]}  # how it was trained nobody knows any more
    assert ["optimizer.lr", "0.001", "–"] in [line.split() for line in str(pipeline.compare(model, back)).splitlines()]
    for file in ("model.safetensors", "model.json"):
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()


def test_a_history_is_drawn_with_and_without_validation(project: Path) -> None:
    for share, keep in ((0.2, "best"), (0, "last")):
        data = pipeline.load_data(tiny(), validation_fraction=share)
        history = pipeline.Dense([4]).fit(data, epochs=2, keep=keep, verbose=False)  # type: ignore[arg-type]

        loss, accuracy = history.plot().axes
        assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
        assert list(loss.lines[0].get_ydata()) == history["train/loss"]
        assert ("val/loss" in history) == (share > 0)


def test_ctrl_c_ends_a_fit_and_nothing_else(project: Path) -> None:
    data = pipeline.load_data(tiny())
    model = fitted(data)
    first, handler = model.predict(data.test.images), signal.getsignal(signal.SIGINT)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, epochs=10**6, batch_size=8, verbose=False)

    assert signal.getsignal(signal.SIGINT) is handler
    assert np.array_equal(model.predict(data.test.images), first)


@pytest.mark.parametrize("track", [None, "digits"])
def test_three_presses_of_ctrl_c_do_not_end_the_process(
    project: Path, track: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would cost a notebook all that it holds; of a command they end the process."""

    def impatient(*_: object) -> None:
        for _press in range(3):
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(EpochProgress, "on_epoch", impatient)
    data, handler = pipeline.load_data(tiny()), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pipeline.Dense([4]).fit(data, epochs=2, track=track)

    assert ended == []
    assert signal.getsignal(signal.SIGINT) is handler
    assert [row.status for row in Store(project).rows("")] == ["KILLED"] * (track is not None)


# ---------------------------------------------------------------- data


def test_a_published_data_set_is_made_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = pipeline.load_data("mnist_5k")
    written_ns = (first.folder / "data/processed/data_card.json").stat().st_mtime_ns
    again = pipeline.load_data("mnist_5k")
    other = pipeline.load_data("mnist_5k", validation_fraction=0.2)

    assert capsys.readouterr().out == ""
    assert (again.folder / "data/processed/data_card.json").stat().st_mtime_ns == written_ns
    assert (again.folder, again.folder != other.folder) == (first.folder, True)
    assert (first.train.images.shape, first.test.labels.shape) == ((3600, 28, 28), (1000,))
    assert other.validation is not None
    assert len(other.validation.labels) == 800
    assert repr(first) == "<Data mnist_5k: 3,600 train, 400 validation, 1,000 test, each (28, 28); 10 classes>"


def test_arrays_are_split_and_kept_as_they_are(project: Path) -> None:
    (train, labels), (test, _) = source = tiny()
    data = pipeline.load_data(source, classes=["a", "b", "c"], validation_fraction=0)

    assert np.array_equal(data.train.images, train)
    assert np.array_equal(data.train.labels, labels)
    assert np.array_equal(data.test.images, test)
    assert (data.validation, data.classes, data.card.scaling["scale"]) == (None, ["a", "b", "c"], 255.0)


def test_what_is_suspicious_is_said(project: Path) -> None:
    (train, labels), (test, test_labels) = tiny()
    test[0] = train[0]

    assert "\n  suspicious: test: 1 of 12 samples occur in train" in repr(
        pipeline.load_data(((train, labels), (test, test_labels)), validation_fraction=0)
    )


def test_rows_of_numbers_and_labels_of_text_are_arrays_too(project: Path) -> None:
    rows = np.random.default_rng(0).normal(5, 3, (60, 4))
    labels = np.where(np.arange(60) % 2, "odd", "even")
    data = pipeline.load_data((rows, labels), test_fraction=0.2)
    model = fitted(data)

    assert (data.classes, data.train.images.dtype, len(data.test.labels)) == (["even", "odd"], np.float32, 12)
    assert model.predict(rows).shape == (60, 2)


@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_files_of_your_own_live_as_long_as_the_data(project: Path, kind: str) -> None:
    if kind == "table":
        rows = [f"{n},{n % 7},{'ab'[n % 2]}" for n in range(40)]
        Path("mine.csv").write_text("\n".join(["x,y,kind", *rows]))
        data = pipeline.load_data("mine.csv", label="kind")
    else:
        for n, image in enumerate(noise(40)):
            (place := Path("mine", "ab"[n % 2])).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{n}.png")
        data = pipeline.load_data(Path("mine"), image_shape=(5, 4))
    folder = data.folder

    assert data.classes == ["a", "b"]
    assert len(data.test.labels) == 8
    assert folder.exists()
    del data
    assert not folder.exists()


# ---------------------------------------------------------------- mistakes


def untrained() -> pipeline.Dense:
    return pipeline.Dense([4])


def data(*arguments: Any, **settings: Any) -> Callable[[], object]:
    return lambda: pipeline.load_data(*arguments, **settings)


def dense(*arguments: Any, **settings: Any) -> Callable[[], object]:
    return lambda: pipeline.Dense(*arguments, **settings)


def trained(use: Callable[[pipeline.Dense], object]) -> Callable[[], object]:
    return lambda: use(fitted(pipeline.load_data(tiny())))


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a data set": (data("mnist_6k"), "mnist_6k: expected a data set of conf/data.* Did you mean mnist_5k?"),
    "a key of the data": (
        data("mnist_5k", validation_fractoin=0.2),
        "data.validation_fractoin: there is no such key. Did you mean data.validation_fraction?",
    ),
    "its value": (
        data("mnist_5k", validation_fraction=1.5),
        "data.validation_fraction: input should be less than 1, found 1.5",
    ),
    "a table without a label": (data(__file__), "data.label is needed for data.kind=table"),
    "no test set": (data((noise(9), cycling_labels(9))), "no test set: give data.test_fraction=0.2"),
    "scaled images": (
        data((noise(9) / 255, cycling_labels(9)), test_fraction=0.2),
        "images of all: expected uint8, 0 to 255, found float64",
    ),
    "images of another shape": (data((noise(9), noise(9)[0])), r"labels of all: .* each of 9 samples, found \(5, 4\)"),
    "a label without a class": (
        data((noise(9), cycling_labels(9)), test_fraction=0.2, classes=["a", "b"]),
        "labels of all: expected 0..1 for the 2 classes, found 2 at position 2",
    ),
    "a key that arrays have no use for": (
        data(tiny(), test_fraction=0.2),
        "data.test_fraction means nothing for these",
    ),
    "a key of the network": (dense(unit=[4]), "model.unit: there is no such key. Did you mean model.units?"),
    "a width": (dense([4, 0]), "model.units.1: input should be greater than or equal to 1, found 0"),
    "a choice": (dense(optimizer="adm"), "optimizer=adm: there is no such choice. There is: adam, adamw, rmsprop, sgd"),
    "a key of a choice": (
        dense(optimizer={"name": "sgd", "momentun": 0.1}),
        "optimizer.momentun: there is no such key. Did you mean optimizer.momentum?",
    ),
    "a pair": (
        dense(optimizer={"name": "sgd", "nesterov": True, "momentum": 0.0}),
        "nesterov=true needs optimizer.momentum above 0",
    ),
    "a step size": (dense(lr=-1), "optimizer.lr: input should be greater than 0, found -1"),
    "no epochs": (
        trained(lambda model: model.fit(pipeline.load_data(tiny()), epochs=0)),
        "trainer.num_epochs: .* found 0",
    ),
    "the best of nothing": (
        trained(lambda model: model.fit(pipeline.load_data(tiny(), validation_fraction=0))),
        "trainer.keep=best needs a validation split",
    ),
    "an untrained model": (
        lambda: pipeline.Dense([4]).predict(noise(2)),
        r"<Dense \[4\], seed 0: not trained>: fit it first",
    ),
    "one sample": (
        trained(lambda model: model.predict(noise(1)[0])),
        r"expected samples \(N, 5, 4\), found an array \(5, 4\). For one sample give samples\[None\]",
    ),
    "scaled samples": (
        trained(lambda model: model.predict(noise(1) / 255)),
        "expected uint8, 0 to 255, as the network was trained on, found float64",
    ),
    "another test set": (
        trained(lambda model: model.evaluate(pipeline.load_data(tiny(40)))),
        "learned from other data than <Data arrays",
    ),
    "a folder without a model": (lambda: pipeline.load_model(Path("nowhere")), "nowhere/model.json is missing"),
    "no data to compare on": (
        lambda: pipeline.compare(saved_and_back(), saved_and_back()),
        "give the data whose test set counts",
    ),
    "different models as one": (
        trained(lambda model: pipeline.compare([model, fitted(pipeline.load_data(tiny()), activation="tanh")], model)),
        "differ in the seed alone",
    ),
}


def saved_and_back() -> pipeline.Dense:
    fitted(pipeline.load_data(tiny())).save("saved")
    return pipeline.load_model("saved")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message(project: Path, mistake: str) -> None:
    do, message = MISTAKES[mistake]
    with pytest.raises(pipeline.PipelineError, match=message):
        do()


def test_several_mistakes_give_a_line_each(project: Path) -> None:
    with pytest.raises(pipeline.ConfigError) as error:
        pipeline.Dense([4], dropout=2, seed=-1)
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == ["seed", "model.dropout"]


def test_without_a_project_settings_are_those_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = fitted(pipeline.load_data(tiny()))

    assert model.settings["optimizer"]["lr"] == train_config().optimizer.lr
    for needs_one in (pipeline.load_data, lambda: model.fit(pipeline.load_data(tiny()), track="mine")):
        with pytest.raises(pipeline.PipelineError, match="is in no project"):
            needs_one()
    assert list(tmp_path.iterdir()) == []


def test_another_projects_dvc_repository_gets_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do its conf/ and its DVC say anything: it is as outside a project."""
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/dense.yaml").write_text("layers: 3\n")
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: python src/train.py, deps: [src/train.py]}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    model = fitted(pipeline.load_data(tiny()))

    assert model.settings["optimizer"]["lr"] == train_config().optimizer.lr
    with pytest.raises(pipeline.PipelineError, match=r"is in no project: .* names src/pipeline/train\.py"):
        model.fit(pipeline.load_data(tiny()), track="mine")
    assert not (tmp_path / DATABASE).exists()


# ---------------------------------------------------------------- comparing, tracking


def test_two_models_are_compared_in_the_words_of_the_command(project: Path) -> None:
    data = pipeline.load_data("mnist_5k")
    small, large = (pipeline.Dense([units]) for units in (1, 64))
    for model in (small, large):
        model.fit(data, epochs=1, verbose=False)
    found = pipeline.compare(small, large)

    assert found.verdict == "better"
    assert found.difference == large.evaluate(data)["test/accuracy"] - small.evaluate(data)["test/accuracy"]
    assert found.images.low < found.difference < found.images.high
    lines = str(found).splitlines()
    assert lines[1].split() == [
        "B",
        f"{large.evaluate(data)['test/accuracy']:.2%}",
        *["Dense", "784", "→", "64", "→", "10,", "seed", "0"],
    ]
    assert lines[3] == f"B is better than A by {found.difference * 100:.2f} points (p < 0.0001)"
    assert ["model.units", "[1]", "[64]"] in [line.split() for line in lines]
    assert repr(found) == str(found)


def test_lists_of_models_are_compared_over_their_seeds(project: Path) -> None:
    data = pipeline.load_data(tiny(60, 30))
    sides = [[fitted(data, seed, activation=name) for seed in (0, 1, 2)] for name in ("relu", "tanh")]
    found = pipeline.compare(*sides)

    assert found.seeds is not None
    assert found.seeds.paired
    assert found.a.what == "Dense 20 → 8 → 3, seed 0, 1, 2"
    assert pipeline.compare(sides[0][0], sides[0][0]).verdict == "no difference seen"


def test_a_tracked_fit_is_a_run_in_the_store(project: Path) -> None:
    data = pipeline.load_data(tiny())
    model = pipeline.Dense([8], seed=5)
    history = model.fit(data, epochs=3, batch_size=8, verbose=False, track="from a notebook")
    (row,) = Store(project).rows("")
    points = Store(project).client.get_metric_history(row.run_id, "val/loss")

    assert (row.run_id, row.status, row.name) == (model.run_id, "FINISHED", "dense-8 rmsprop arrays")
    assert Store(project).experiment_name(row.experiment_id) == "from a notebook"
    assert [point.value for point in sorted(points, key=lambda point: point.step)] == history["val/loss"]
    assert {key: row.params[key] for key in ("seed", "model.units", "trainer.num_epochs", "data.name")} == {
        "seed": "5", "model.units": "[8]", "trainer.num_epochs": "3", "data.name": "arrays",
    }  # fmt: skip
    files = Store(project).artifacts(row.run_id)
    assert DataCard.read(files / "data/data_card.json") == data.card
    back = pipeline.load_model(row.run_id[:8])
    assert np.array_equal(back.predict(data.test.images), model.predict(data.test.images))
    model.fit(data, epochs=1, verbose=False)
    assert model.run_id is None
    assert len(Store(project).rows("")) == 1


def test_a_tracked_fit_has_dvcs_digest_of_the_projects_data_alone(project: Path) -> None:
    """dvc.lock is about data/processed, not about what else Python gives."""
    outs = [{"path": "data/processed", "md5": "abc.dir"}]
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {"preprocess": {"outs": outs}}}))
    arrays = pipeline.load_data(tiny())
    shutil.copytree(arrays.folder / "data/processed", project / "data/processed")
    of_dvc = {}
    for name, data in (("arrays", arrays), ("the project's", pipeline.load_data())):
        model = pipeline.Dense([4])
        model.fit(data, epochs=1, verbose=False, track="digests")
        assert model.run_id
        tags = Store(project).row(model.run_id).tags
        of_dvc[name] = {key: text for key, text in tags.items() if key.startswith("dvc.")}

    assert of_dvc == {"arrays": {}, "the project's": {"dvc.data/processed": "abc.dir"}}


def tracked(source: Any, project: Path) -> tuple[RunRow, dict[str, Any]]:
    """The run of a fit, and the settings that it keeps."""
    model = pipeline.Dense([4])
    model.fit(pipeline.load_data(source), epochs=1, verbose=False, track="again")
    assert model.run_id
    row = Store(project).row(model.run_id)
    return row, yaml.safe_load((Store(project).artifacts(row.run_id) / "config.yaml").read_text(encoding="utf-8"))


def test_a_tracked_fit_keeps_all_that_makes_a_published_data_set_again(project: Path) -> None:
    """Its whole group of conf/, as a run of the command does."""
    _, config = tracked("mnist_5k", project)

    assert config["data"] == settings()["data"]
    validate(Config, config)


def test_a_tracked_fit_on_arrays_is_not_made_again(project: Path, tmp_path: Path) -> None:
    row, _ = tracked(tiny(), project)
    committed = replace(row, tags=row.tags | {"git.commit": "0" * 40, "git.dirty": "false", "git.remark": ""})
    with pytest.raises(pipeline.PipelineError, match=r"in Python on data of your own \(arrays\)"):
        tree.build(project, Store(project), committed, tmp_path / "tree")
