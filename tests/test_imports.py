"""What a command imports: only what it uses. Each in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a command does without, as long as nothing that it is asked for needs it.
UNUSED = {
    "evaluate": ["numba", "scipy", "sklearn", "cleanlab", "statsmodels", "pytorch_lightning", "optuna", "mlflow"],
    "compare": ["torch", "numba", "scipy", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow"],
    "promote": ["torch", "numba", "scipy", "matplotlib", "pandas", "pytorch_lightning", "mlflow"],
    "reproduce": ["torch", "numba", "scipy", "matplotlib", "pandas", "pytorch_lightning", "mlflow"],
    "champion": ["torch", "numba", "scipy", "matplotlib", "pandas", "numpy", "pytorch_lightning", "mlflow"],
    "predict": ["numba", "scipy", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow"],
    "export": ["numba", "statsmodels", "matplotlib", "pandas", "pytorch_lightning", "mlflow", "onnx"],
}


def imported_by(code: str) -> set[str]:
    """Names of the packages that a fresh Python has after these lines."""
    told = f"{code}\nimport sys\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("command", UNUSED)
def test_a_command_starts_without_what_it_may_not_need(command: str) -> None:
    assert imported_by(f"import pipeline.{command}").isdisjoint(UNUSED[command])


def test_scores_and_comparisons_of_two_networks_need_no_scipy() -> None:
    """Nor Numba; a network that answers does without both."""
    code = """
import numpy as np
from pipeline.comparison.statistics import corrected, over_images
from pipeline.config.schema import EvaluateSection
from pipeline.reports.scores import scores
answers = np.log(np.full((8, 2), 0.5, dtype=np.float32))
scores(answers, np.zeros(8, dtype=np.int64), 3)
right = np.arange(8)[None] > 2
corrected([over_images(right, ~right).p, 0.5])
"""
    assert imported_by(code).isdisjoint({"scipy", "statsmodels", "numba", "torch"})


def test_a_network_that_answers_needs_no_numba(tmp_path: Path) -> None:
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
