"""The stage configure: params.yaml is what conf/ says, or what DVC composed, and always valid."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config.config_makers import CONF, clean_environment, default_yaml, settings
from data_makers import tiny_set, write_raw
from pipeline.config.compose import compose_yaml
from pipeline.configure import configure
from pipeline.system.errors import ConfigError

ROOT = CONF.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """conf/ and dvc.yaml, nothing else."""
    shutil.copytree(CONF, tmp_path / "conf")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def run_configure(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.configure", *words],
        cwd=project, env=clean_environment() | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# ---------------------------------------------------------------- dvc repro


def test_params_yaml_is_the_composition(project: Path) -> None:
    """Byte for byte, and there is nothing to say about it."""
    assert configure(project / "conf", project / "params.yaml", composed_by_dvc=False) == []
    assert (project / "params.yaml").read_text(encoding="utf-8") == default_yaml()


def test_an_edit_of_conf_reaches_params_yaml(project: Path) -> None:
    """The old params.yaml plays no part."""
    (project / "params.yaml").write_text("seed: 99\n")
    edit(project / "conf/config.yaml", "seed: 0", "seed: 7")
    configure(project / "conf", project / "params.yaml", composed_by_dvc=False)

    assert yaml.safe_load((project / "params.yaml").read_text())["seed"] == 7


def test_a_mistake_in_conf_leaves_params_yaml(project: Path) -> None:
    """Nothing is written before all is checked."""
    (project / "params.yaml").write_text("old")
    edit(project / "conf/trainer/default.yaml", "num_epochs: 20", "num_epochs: many")

    with pytest.raises(ConfigError, match=r"trainer\.num_epochs"):
        configure(project / "conf", project / "params.yaml", composed_by_dvc=False)
    assert (project / "params.yaml").read_text() == "old"
    assert sorted(path.name for path in project.iterdir()) == ["conf", "dvc.yaml", "params.yaml"]


def test_own_data_that_conf_does_not_name_is_left_with_a_word(project: Path) -> None:
    """They were overrides of `dvc exp run`, which plain `dvc repro` does not know."""
    (project / "params.yaml").write_text(compose_yaml(project / "conf", ["data=image_folder", "data.path=/me/leaves"]))
    said = configure(project / "conf", project / "params.yaml", composed_by_dvc=False)

    assert "data.path=None, was /me/leaves" in said
    assert said[-1].startswith("conf/ does not name /me/leaves, so it is the data no more. To train on it, repeat `dvc")
    assert "-S data=image_folder -S data.path=/me/leaves" in said[-1]


# ---------------------------------------------------------------- dvc exp run


def test_what_dvc_composed_is_left_and_the_differences_are_named(project: Path) -> None:
    """`-S` overrides are in params.yaml already: they are not undone."""
    text = compose_yaml(project / "conf", ["trainer.num_epochs=3", "model.units=[64,32]"])
    (project / "params.yaml").write_text(text, encoding="utf-8")

    differences = configure(project / "conf", project / "params.yaml", composed_by_dvc=True)
    assert differences == ["model.units=[64, 32], in conf/ 512", "trainer.num_epochs=3, in conf/ 20"]
    assert (project / "params.yaml").read_text(encoding="utf-8") == text


def test_without_overrides_there_is_no_difference(project: Path) -> None:
    """An experiment of the defaults says nothing."""
    (project / "params.yaml").write_text(default_yaml(), encoding="utf-8")

    assert configure(project / "conf", project / "params.yaml", composed_by_dvc=True) == []


def test_keys_that_one_side_lacks_are_differences_too(project: Path) -> None:
    """Another optimizer has other keys; None stands for a key that is not there."""
    (project / "params.yaml").write_text(compose_yaml(project / "conf", ["optimizer=sgd"]), encoding="utf-8")

    differences = configure(project / "conf", project / "params.yaml", composed_by_dvc=True)
    assert "optimizer.momentum=0.9, in conf/ None" in differences
    assert "optimizer.rho=None, in conf/ 0.9" in differences


def test_long_values_are_not_printed(project: Path) -> None:
    """The names of 47 classes would fill the screen."""
    text = compose_yaml(project / "conf", ["data=emnist_balanced"])
    (project / "params.yaml").write_text(text, encoding="utf-8")

    differences = configure(project / "conf", project / "params.yaml", composed_by_dvc=True)
    assert "data.classes=…, in conf/ ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']" in differences
    assert max(map(len, differences)) < 200


def test_a_mistake_that_dvc_composed_is_refused(project: Path) -> None:
    """DVC itself checks no types."""
    text = compose_yaml(project / "conf", ["trainer.num_epochs=1.5"])
    (project / "params.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"^trainer\.num_epochs: .*found 1\.5$"):
        configure(project / "conf", project / "params.yaml", composed_by_dvc=True)


# ---------------------------------------------------------------- as a process


def test_dvc_repro_writes_params_yaml_in_silence(project: Path) -> None:
    """Exit code 0 and no output."""
    done = run_configure(project)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (project / "params.yaml").read_text(encoding="utf-8") == default_yaml()


def test_dvc_exp_run_prints_the_differences(project: Path) -> None:
    """DVC_EXP_NAME says that DVC has composed."""
    (project / "params.yaml").write_text(compose_yaml(project / "conf", ["seed=5"]), encoding="utf-8")
    done = run_configure(project, DVC_EXP_NAME="brave-cat")

    assert (done.returncode, done.stdout) == (0, "configure: seed=5, in conf/ 0\n")


def test_a_mistake_is_one_line_and_exit_code_2(project: Path) -> None:
    """No traceback."""
    edit(project / "conf/model/dense.yaml", "units: 512", "unit: 512")
    done = run_configure(project)

    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("configure: error: model.units: is missing.")
    assert second == "model.unit: there is no such key. Did you mean model.units?"
    assert not (project / "params.yaml").exists()


def test_by_hand_it_finds_the_project_from_a_folder_in_it(project: Path) -> None:
    (project / "notebooks").mkdir()
    done = run_configure(project / "notebooks")

    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "params.yaml").read_text(encoding="utf-8") == default_yaml()
    assert (project / "data/own.json").exists()
    assert list((project / "notebooks").iterdir()) == []


def test_outside_a_project_it_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_configure(tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("configure: error: ")
    assert "is in no project" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_refused(project: Path) -> None:
    """They would be lost in silence."""
    done = run_configure(project, "seed=5")

    assert done.returncode == 1
    assert done.stderr.startswith("configure: takes no arguments")


# ---------------------------------------------------------------- what the cheap stages import

HEAVY = "{'torch', 'lightning', 'pytorch_lightning', 'mlflow', 'torchmetrics', 'safetensors'}"
REPORT = f"import sys; print('heavy:', sorted({HEAVY} & {{name.partition('.')[0] for name in sys.modules}}))"


@pytest.mark.parametrize("stage", ["configure", "download", "preprocess"])
def test_a_cheap_stage_imports_nothing_heavy(stage: str, project: Path) -> None:
    """Run as DVC runs it, to its end; importing torch and MLflow would take seconds of each `dvc repro`."""
    write_raw(project / "data/raw", tiny_set())
    values = settings({"data.name": "tiny", "data.classes": None} if stage == "preprocess" else None)
    (project / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    code = f"from pipeline.cli import dispatch; dispatch('{stage}'); {REPORT}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=clean_environment() | {"DVC_STAGE": stage},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "heavy: []"
    made = {
        "configure": "params.yaml",
        "download": "data/raw/source.json",
        "preprocess": "data/processed/data_card.json",
    }
    assert (project / made[stage]).exists()
