"""A model as ONNX: torch's answers, for any number of samples, or nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from config.config_makers import train_config
from pipeline.commands.export import TOLERANCE, export_onnx
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import TrainedModel
from pipeline.system.errors import PipelineError

PIXELS = InputSpec((28, 28), "uint8", 0.0, 255.0)
ROWS = InputSpec((3,), "float32", (1.0, -2.0, 0.0), (2.0, 0.5, 1e3))


def untrained(spec: InputSpec, **changes: Any) -> TrainedModel:
    torch.manual_seed(0)
    cfg = train_config({"model.units": [16], **{f"model.{key}": value for key, value in changes.items()}}).model
    return TrainedModel(DenseNetwork(cfg, spec, 4).eval(), ["a", "b", "c", "d"], spec, "0" * 64, {})


@pytest.mark.parametrize("spec", [PIXELS, ROWS], ids=["pixels", "rows"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation": "gelu", "normalization": "layer"},
        {"activation": "elu", "normalization": "batch", "dropout": 0.5},
    ],
    ids=["relu", "gelu", "elu"],
)
def test_onnx_gives_the_answers_of_torch(spec: InputSpec, changes: dict[str, Any], tmp_path: Path) -> None:
    """Any number of samples at once, scaling and softmax inside, names of classes beside them."""
    model = untrained(spec, **changes)
    assert export_onnx(model, tmp_path / "model.onnx") <= TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for count in (1, 3, 100):
        samples = (rng.random((count, *spec.shape)) * 255).astype(spec.dtype)
        with torch.inference_mode():
            expected = torch.softmax(model.network(torch.from_numpy(samples)), 1).numpy()
        np.testing.assert_allclose(session.run(None, {"samples": samples})[0], expected, atol=TOLERANCE)
    assert session.get_modelmeta().custom_metadata_map == {"classes": "a\nb\nc\nd"}
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


def test_other_answers_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipeline.commands.export._onnx_probabilities",
        lambda path, samples: np.full((len(samples), 4), 0.3, np.float32),
    )
    with pytest.raises(PipelineError, match=r"ONNX Runtime's probabilities differ from torch's by up to"):
        export_onnx(untrained(PIXELS), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
