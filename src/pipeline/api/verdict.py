"""Is one model better than another?"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from pipeline.api.data import Data
from pipeline.api.dense import Dense, fitted, test_answers
from pipeline.comparison import verdict
from pipeline.comparison.subjects import SEED, Answers, Member, Subject, Subjects, digest_of
from pipeline.runtime.origin import flat
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError
from pipeline.tracking import Store, as_text

Models = Dense | Sequence[Dense] | str


class Verdict(verdict.Comparison):
    """B against A, as text in words.

    `verdict` is "better", "worse" or "no difference seen"; `difference` a fraction, `p` its p-value; `images` and
    `seeds` say the same for other test images and for other seeds, with 95 % intervals.
    """

    def __str__(self) -> str:
        text = io.StringIO()
        verdict.print_text(Console(file=text, soft_wrap=True), [self])
        return text.getvalue().rstrip()

    __repr__ = __str__


def compare(a: Models, b: Models, data: Data | None = None) -> Verdict:
    """Is B really better than A? Both answer the same test samples.

    Args:
        a, b: a trained model; a list of those that differ in the seed alone; or, within a project, a name that
            `pipeline compare` takes: a run, a sweep, "@champion", a revision of git, "workspace".
        data: whose test set models answer; None: what the first of them was fitted on.

    Raises:
        ConfigError: nothing is called so; models of one list differ in more than the seed; no data to compare on.
        PipelineError: the two were not scored on the same test samples, or a model learned from other data.
    """
    models = [model for side in (a, b) if not isinstance(side, str) for model in _listed(side)]
    data = data or next((known for model in models if (known := fitted(model).data)), None)
    (found,) = verdict.compare(_subject(a, data), [_subject(b, data)])
    return Verdict(found.a, found.b, found.images, found.seeds, found.p)


def _listed(models: Dense | Sequence[Dense]) -> Sequence[Dense]:
    return [models] if isinstance(models, Dense) else models


def _subject(models: Models, data: Data | None) -> Subject:
    if isinstance(models, str):
        return Subjects(Store(project_root())).named(models)
    if data is None:
        raise ConfigError(f"{models!r} was loaded, not fitted here: give the data whose test set counts: data=…")
    listed = _listed(models)
    subject = Subject(_name(listed), _name(listed), tuple(_member(model, data) for model in listed), None)
    if any({**member.params, SEED: ""} != {**subject.members[0].params, SEED: ""} for member in subject.members):
        raise ConfigError(f"{subject.name}: expected models that differ in the seed alone, found other differences too")
    return subject


def _member(model: Dense, data: Data) -> Member:
    it, test_set = fitted(model), digest_of(data.card.splits["test"])
    answers = Answers(test_answers(model, data), np.asarray(data.test.labels), it.portable.classes, test_set)
    params = {key: as_text(value) for key, value in flat(it.record).items()}
    return Member(answers, params, it.metrics, model.run_id)


def _name(models: Sequence[Dense]) -> str:
    """`Dense 784 → 512 → 10, seed 0, 1, 2`."""
    first, *others = map(fitted, models)
    return ", ".join([first.description, *(str(other.portable.training["seed"]) for other in others)])
