"""What can be compared, by its name."""

from __future__ import annotations

import pytest

from pipeline.comparison.subjects import Subjects
from pipeline.system.errors import ConfigError
from pipeline.tracking import Store


@pytest.fixture
def subjects(store: Store) -> Subjects:
    return Subjects(store)


@pytest.mark.parametrize("name", ["nonsense", "--upload-pack=x", "@champions"])
def test_a_name_that_nothing_has_is_refused(subjects: Subjects, name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{name}: nothing is called so. Expected workspace, a revision of git, a run"
    ):
        subjects.named(name)
