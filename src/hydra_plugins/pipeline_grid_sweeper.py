"""Hydra's own sweeper, the default, for jobs that our launcher starts: it takes the place of hydra/sweeper=basic.

Hydra's composes the configuration of each job once more than the launcher, to see whether it can be: 0.2 s a job. Our
launcher composes and checks all of them before it starts the first one.
"""

# No `from __future__ import annotations`: Hydra runs this file before it is in sys.modules, where dataclasses look.

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore


class GridSweeper(BasicSweeper):
    """All combinations of what is swept."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """The launcher's part, where the launcher is ours."""
        if self.config is not None and "ProcessLauncher" not in self.config.hydra.launcher._target_:
            super().validate_batch_is_legal(batch)


@dataclass
class GridSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.pipeline_grid_sweeper.GridSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GridSweeperConf, provider="pipeline")
