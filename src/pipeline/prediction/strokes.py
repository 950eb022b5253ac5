"""Which pixels spoke for an answer, and which against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.portable import TrainedModel


def answer_and_strokes(model: TrainedModel, sample: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities (C,), and for each value of the sample (*shape) what it adds to the most probable class's logit
    over the mean of all logits, to first order.

    Gradient times input (Shrikumar et al. 2016): for a network of relu without biases these add up to that difference
    exactly. A black pixel has nothing to say.
    """
    values = torch.from_numpy(np.asarray(sample, dtype=np.float32))[None].requires_grad_()
    logits_C = model.network(values)[0]
    said = logits_C[int(logits_C.argmax())] - logits_C.mean()
    (gradient,) = torch.autograd.grad(said, values)
    strokes: NDArray[np.float32] = (gradient * values)[0].detach().numpy()
    return torch.softmax(logits_C.detach(), dim=0).numpy(), strokes
