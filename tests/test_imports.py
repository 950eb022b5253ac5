"""What a command imports: only what it uses. Each in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).parents[1]
# What a command does without, as long as nothing that it is asked for needs it.
UNUSED = {
    "evaluate": ["numba", "scipy", "sklearn", "cleanlab", "statsmodels", "pytorch_lightning", "optuna", "mlflow"],
    "compare": ["torch", "numba", "scipy", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow"],
    "adopt": ["torch", "numba", "scipy", "matplotlib", "pandas", "pytorch_lightning", "mlflow", "jinja2"],
    "reproduce": ["torch", "numba", "scipy", "matplotlib", "pandas", "pytorch_lightning", "mlflow", "jinja2"],
    "champion": ["torch", "numba", "scipy", "matplotlib", "pandas", "numpy", "pytorch_lightning", "mlflow", "jinja2"],
    "demo": ["torch", "pandas", "pytorch_lightning", "mlflow", "starlette", "uvicorn", "jinja2"],
    "predict": ["numba", "scipy", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow", "jinja2"],
    "export": ["numba", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow", "onnx", "jinja2"],
}


def imported_by(code: str) -> set[str]:
    """Names of the packages that a fresh Python has after these lines."""
    told = f"{code}\nimport sys\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("command", UNUSED)
def test_a_command_starts_without_what_it_may_not_need(command: str) -> None:
    assert imported_by(f"import pipeline.{'' if command in cli.STAGES else 'commands.'}{command}").isdisjoint(
        UNUSED[command]
    )


# Each command as a person types it, with a mistake and with --help.
COMMANDS = sorted(cli.STAGES | cli.COMMANDS)
HEAVY = {"torch", "pytorch_lightning", "lightning_fabric", "torchmetrics", "mlflow", "numba", "scipy", "matplotlib",
         "pandas", "sklearn", "optuna", "pyarrow"}  # fmt: skip
BY_HYDRA = ("download", "preprocess", "train", "evaluate")


def ended(command: str, *words: str) -> tuple[int, str, set[str]]:
    """Exit code, what was said, and the packages that were imported, of `pipeline COMMAND WORDS`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", command, *words], cwd=ROOT, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PIPELINE_WARM": "0"}, capture_output=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    timed = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    said = done.stdout + "\n".join(line for line in lines if not line.startswith("import time:"))
    return done.returncode, said, {name.partition(".")[0] for name in timed}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_is_answered_before_anything_slow_is_imported(command: str) -> None:
    """A key that is misspelt, or an argument that is none."""
    words = ("trainer.num_epoch=3",) if command in BY_HYDRA else ("--no-such-switch",)
    code, said, imported = ended(command, *words)

    assert code != 0
    assert "Traceback" not in said
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_slow(command: str) -> None:
    code, said, imported = ended(command, "--help")

    assert code == 0, said
    assert imported.isdisjoint(HEAVY | {"hydra", "omegaconf", "numpy", "pydantic", "rich", "yaml"})


@pytest.mark.parametrize(
    "words",
    [
        ("--cfg", "job"),
        ("-m", "model.units=2,4", "trainer.num_epoch=3"),
        ("trainer=fsdp", "trainer.accelerator=cpu"),
        ("data.validation_fraction=0",),
        ("optimizer=adm",),
        ("-m", "optimizer=rmsprop,adm"),
        ("trainer=ddp_cpu", "trainer.num_nodes=2"),
        ("model.units=[256,", "128]"),
    ],
    ids=" ".join,
)
def test_the_settings_of_a_training_are_checked_before_anything_slow_is_imported(
    words: tuple[str, ...],
) -> None:
    code, said, imported = ended("train", *words)

    assert code == (0 if words[0] == "--cfg" else 2), said
    assert imported.isdisjoint(HEAVY)


def test_a_folder_without_a_model_is_told_before_anything_slow_is_imported() -> None:
    code, said, imported = ended("evaluate", "evaluate.model_folder=nowhere")

    assert code in (1, 2), said
    assert "Traceback" not in said
    assert imported.isdisjoint(HEAVY)


def test_a_picture_that_is_not_there_is_told_before_anything_slow_is_imported() -> None:
    code, said, imported = ended("predict", "nothing.png", "neither.png")

    assert (code, said.strip()) == (1, "predict: error: nothing.png, neither.png: there is no such file")
    assert imported.isdisjoint(HEAVY)


def test_a_dry_run_of_a_sweep_says_what_it_imports_and_draws_nothing() -> None:
    _, said, imported = ended("train", "-m", "seed=1,2", "sweep.dry_run=true")

    assert said.count("train: loading MLflow\n") == 1
    assert imported.isdisjoint({"torch", "matplotlib", "pytorch_lightning"})


@pytest.mark.parametrize("command", ["train", "predict"])
def test_mlflow_reports_no_usage(command: str) -> None:
    """It makes its client of reports when it is imported."""
    told = f"""
from pipeline.system.startup import begin, load
begin("", [], may_be_warm=False)
load({command!r}, "torch", "MLflow")
"""
    client = "from mlflow.telemetry.client import get_telemetry_client; print(get_telemetry_client())"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DO_NOT"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "CI": ""}  # where CI is set MLflow makes none anyway
    done = subprocess.run([sys.executable, "-c", f"{told}{client}"], env=environment, capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr


def test_what_is_slow_to_import_is_named_first(tmp_path: Path) -> None:
    """On stderr, so that a pipe gets the answer alone."""
    code, said, imported = ended("predict", "README.md", f"model={tmp_path}/no-model")

    assert code == 2
    assert said.startswith("predict: loading torch\npredict: loading MLflow\n")
    assert {"torch", "mlflow"} <= imported


def test_scores_and_comparisons_of_two_networks_need_no_scipy() -> None:
    """Nor Numba; a network that answers does without both."""
    code = """
import numpy as np
from pipeline.comparison.statistics import holm_corrected, over_images
from pipeline.config.schema import EvaluateSection
from pipeline.evaluation.scores import scores
answers = np.log(np.full((8, 2), 0.5, dtype=np.float32))
scores(answers, np.zeros(8, dtype=np.int64), 3)
right = np.arange(8)[None] > 2
holm_corrected([over_images(right, ~right).p, 0.5])
"""
    assert imported_by(code).isdisjoint({"scipy", "statsmodels", "numba", "torch"})


def test_a_network_that_answers_needs_no_numba() -> None:
    code = """
import numpy as np, torch
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import ModelConfig
from pathlib import Path
cfg = validate(ModelConfig, parse(compose_yaml(Path("conf")))["model"])
network = DenseNetwork(cfg, InputSpec((28, 28), "uint8", 0.0, 255.0), 10).eval()
network(torch.zeros((2, 28, 28), dtype=torch.uint8))
"""
    assert "numba" not in imported_by(f"import os\nos.chdir({str(ROOT)!r})\n{code}")
