"""All combinations, each composed no more often than its launcher needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from pipeline.config.compose import CONFIG_NAME

CONF = Path(__file__).parents[2] / "conf"


class CountingLoader:
    """What the sweeper asks to compose."""

    def __init__(self) -> None:
        self.composed: list[Sequence[str]] = []

    def load_sweep_config(self, master_config: object, sweep_overrides: Sequence[str]) -> None:
        self.composed.append(sweep_overrides)


@pytest.mark.parametrize(("launcher", "composed"), [("process", []), ("basic", [["seed=1"], ["seed=2"]])])
def test_jobs_are_composed_by_the_sweeper_only_where_the_launcher_does_not(
    launcher: str, composed: list[list[str]]
) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(CONFIG_NAME, [f"hydra/launcher={launcher}"], return_hydra_config=True)
    sweeper = Plugins.instance()._instantiate(config.hydra.sweeper)
    assert isinstance(sweeper, Sweeper)
    loader = CountingLoader()
    sweeper.config, sweeper.config_loader = config, loader  # type: ignore[assignment]

    sweeper.validate_batch_is_legal([["seed=1"], ["seed=2"]])

    assert loader.composed == composed
