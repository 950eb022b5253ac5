"""What a trained network says of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.portable import Portable

BATCH = 2048  # samples; only memory and speed depend on it


def predict_log_probabilities(model: Portable, samples: NDArray[Any]) -> NDArray[np.float32]:
    """(N, ...) raw samples → (N, C) float32, natural logarithms of the classes' probabilities."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            logits = model.network(torch.from_numpy(np.array(samples[start : start + BATCH])))
            parts.append(torch.log_softmax(logits, dim=1).numpy())
    return np.concatenate(parts)
