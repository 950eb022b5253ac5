"""What a name means: a run, by its name or the beginning of its id, or nothing, or too much."""

from __future__ import annotations

import pytest

from pipeline.comparison.subjects import Subjects
from pipeline.system.errors import ConfigError
from pipeline.tracking import MODEL_TAG, Store


@pytest.fixture
def subjects(store: Store) -> Subjects:
    """Two trainings called `twice`, one called `once`, and one that has no model yet."""
    for name, tags in (
        ("twice", {MODEL_TAG: "a"}),
        ("twice", {MODEL_TAG: "b"}),
        ("once", {MODEL_TAG: "c"}),
        ("new", {}),
    ):
        store.client.create_run("0", run_name=name, tags=tags)
    return Subjects(store.root, store)


def test_a_run_is_called_by_its_name_or_the_beginning_of_its_id(subjects: Subjects) -> None:
    once = subjects.run_called("once")
    assert once is not None
    assert subjects.run_called(once.run_id) == subjects.run_called(once.run_id[:6]) == once
    assert subjects.run_called("new") is None


def test_a_name_that_two_runs_have_is_refused(subjects: Subjects) -> None:
    with pytest.raises(ConfigError, match=r"^twice: 2 runs are called so, the newest \w{8}, \w{8}\. Give an id$"):
        subjects.named("twice")


@pytest.mark.parametrize("name", ["nonsense", "new", "--upload-pack=x", "@champions"])
def test_a_name_that_nothing_has_is_refused(subjects: Subjects, name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"^{name}: nothing is called so. Expected workspace, a revision of git, a run"
    ):
        subjects.named(name)
