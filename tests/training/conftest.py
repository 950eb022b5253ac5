"""What trainings of a test leave behind in the process is put back."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    """Lightning makes torch deterministic for the whole process; the next test gets it as it was."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)
