"""Makers lie one folder up, or in a folder beside this one: `from training.training_makers import …`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline  # noqa: F401  # before torch: sets what torch reads when it is loaded

if (tests := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, tests)


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    """Lightning makes torch deterministic for the whole process; the next test gets it as it was."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)
