"""Small things that several tests of tracking are made of."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request

import numpy as np
from torch import Tensor, nn


class Serve(nn.Module):
    """Raw images to probabilities, as the pipeline's own does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.float().flatten(1) / 255).softmax(dim=1)  # type: ignore[no-any-return]


def make_images(count: int) -> np.ndarray:
    """(count, 28, 28) uint8, the same each time."""
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_listens(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after 30 s")


def wait_until_it_answers(port: int) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError(f"nothing answers on port {port} after 60 s")
