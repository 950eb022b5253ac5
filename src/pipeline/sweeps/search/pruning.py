"""A job's side of a search: tell the study how each epoch went, and hear whether it is worth going on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.schema import TrainConfig
from pipeline.sweeps.search.samplers import build_pruner, quiet
from pipeline.sweeps.search.storage import open_storage
from pipeline.training.objectives import objectives

if TYPE_CHECKING:
    from optuna import Study

PRUNER, PRUNED = "pruner", "pruned"  # attributes of a study: name and options; of a trial: the epoch it ended after


@dataclass
class Pruning:
    """The trial that a training is, and what the study's pruner says of it.

    `optuna.Trial` does the same, but making one has the sampler draw anew.
    """

    study: Study
    trial_id: int
    objective: str
    num_epochs: int
    gave_up: bool = False

    @classmethod
    def of(cls, cfg: TrainConfig) -> Pruning:
        from optuna import load_study

        assert cfg.sweep.study is not None
        assert cfg.sweep.storage is not None
        assert cfg.sweep.trial is not None
        with quiet():
            study = load_study(study_name=cfg.sweep.study, storage=open_storage(cfg.sweep.storage))
            study.pruner = build_pruner(*study.user_attrs[PRUNER])
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, cfg.sweep.trial)
        (objective,) = objectives(cfg.sweep, cfg.trainer, (cfg.trainer.monitor,))
        return cls(study, trial_id, objective, cfg.trainer.num_epochs)

    def gives_up(self, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether the training ends after this epoch. Never after the last one: there is nothing to save."""
        storage = self.study._storage
        storage.set_trial_intermediate_value(self.trial_id, epoch, values[self.objective])
        if epoch + 1 < self.num_epochs:
            self.gave_up = self.study.pruner.prune(self.study, storage.get_trial(self.trial_id))
        if self.gave_up:
            storage.set_trial_user_attr(self.trial_id, PRUNED, epoch)
        return self.gave_up
