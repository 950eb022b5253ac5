"""What each pixel adds to an answer."""

from __future__ import annotations

import numpy as np
import torch

from config.config_makers import train_config
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import TrainedModel
from pipeline.prediction.strokes import answer_and_strokes


def model() -> TrainedModel:
    torch.manual_seed(0)
    spec = InputSpec((4, 5), "uint8", 0.0, 255.0)
    network = DenseNetwork(train_config({"model.units": [32]}).model, spec, 3).eval()
    return TrainedModel(network, ["a", "b", "c"], spec, "0" * 64, {})


def test_strokes_add_up_to_the_answer() -> None:
    """Without biases a network of relu is linear around each sample, so nothing is left over."""
    found, sample = model(), np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    assert not any(bias.any() for name, bias in found.network.named_parameters() if name.endswith("bias"))
    probabilities, strokes = answer_and_strokes(found, sample)
    with torch.inference_mode():
        logits = found.network(torch.from_numpy(sample)[None])[0]
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 0), atol=1e-6)
    np.testing.assert_allclose(strokes.sum(), float(logits.max() - logits.mean()), rtol=1e-4)


def test_a_black_pixel_says_nothing() -> None:
    sample = np.zeros((4, 5), dtype=np.uint8)
    sample[1, 2] = 200
    _, strokes = answer_and_strokes(model(), sample)
    assert np.flatnonzero(strokes).tolist() == [7]
