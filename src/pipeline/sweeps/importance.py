"""How much of a sweep's spread each swept key explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.sweeps.rows import Objective, Row
from pipeline.sweeps.scales import Scale

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_CATEGORIES_FOR_IMPORTANCE = 6  # fANOVA takes 2**categories steps: 10 cost 2 s, 35 did not end in ten minutes
MISSING = "not set"  # a key that some jobs do not have


def fanova(rows: Sequence[Row], objective: Objective, scales: dict[str, Scale]) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    chosen = {
        key: _distribution([row.values.get(key, MISSING) for row in rows], scale) for key, scale in scales.items()
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce a study that nobody asked for
    try:
        study = optuna.create_study(direction="minimize" if objective.mode == "min" else "maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    for row in rows:
        texts = {key: row.values.get(key, MISSING) for key in scales}
        params = {k: text if _is_choice(scales[k]) else scales[k].place(text) for k, text in texts.items()}
        value = row.metrics[objective.name]
        study.add_trial(optuna.create_trial(params=params, distributions=chosen, value=value))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def _distribution(texts: Sequence[str], scale: Scale) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if _is_choice(scale):
        return CategoricalDistribution(sorted(set(texts)))
    numbers, log = [scale.place(text) for text in texts], scale.kind == "log"
    if all(number.is_integer() for number in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)), log=log)
    return FloatDistribution(min(numbers), max(numbers), log=log)


def _is_choice(scale: Scale) -> bool:
    """More categories than a few are told to fANOVA by their places, which the forest can split as well."""
    return scale.kind == "category" and len(scale.ticks) <= MAX_CATEGORIES_FOR_IMPORTANCE
