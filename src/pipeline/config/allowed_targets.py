"""The classes that Hydra's own settings may name: launchers, sweepers and handlers of `logging`, nothing else.

Hydra and `logging` import and call what stands there. The `_target_`s of the optimizers are in schema.py: the schema
allows those and no others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeline.system.errors import ConfigError

# Our launcher and sweepers. Hydra makes those of the package hydra_plugins alone.
PROCESS, GRID, OPTUNA = (
    f"hydra_plugins._pipeline.{name}" for name in ("ProcessLauncher", "GridSweeper", "OptunaSweeper")
)
CALLED = ("_target_", "class", "()")  # keys whose value Hydra and logging.config import and call
KNOWN_CLASSES = re.compile(
    r"(hydra_plugins|hydra\._internal\.core_plugins)(\.[a-z_0-9]+)+\.[A-Z]\w*Launcher"
    rf"|{re.escape(GRID)}|{re.escape(OPTUNA)}"  # which have each job composed by a CheckedLoader
    r"|logging\.(StreamHandler|FileHandler|NullHandler|Formatter|handlers\.(Timed)?RotatingFileHandler)"
    r"|colorlog\.ColoredFormatter"  # of the plug-in hydra_colorlog
)


def refuse_foreign_classes(section: Any, path: str = "hydra") -> None:
    """Raise ConfigError for a class or function in Hydra's own settings that Hydra or `logging` would call by its name.

    Launchers, sweepers and the handlers of logs are called; `_target_: os.system` of a callback would be too. An
    interpolation that stands for a whole section could bring one in.

    section: a node of OmegaConf.
    """
    from omegaconf import OmegaConf

    written: Any = OmegaConf.to_container(section)
    for key in written if isinstance(written, dict) else range(len(written)):
        where, found = f"{path}.{key}", written[key]
        linked = OmegaConf.is_interpolation(section, key)
        if key in CALLED and not KNOWN_CLASSES.fullmatch(str(found)):
            raise ConfigError(
                f"{where}: expected a launcher that is installed as a plug-in, a sweeper of this pipeline "
                f"(hydra/sweeper=basic, optuna), or a handler of `logging`, found {found!r}. Nothing else is run by "
                "its name"
            )
        if linked and OmegaConf.is_config(_resolved(section, key)):
            raise ConfigError(f"{where}: expected a value, found {found!r}, which is a whole section. Write it out")
        if not linked and isinstance(found, (dict, list)):
            refuse_foreign_classes(section[key], where)


def _resolved(section: Any, key: Any) -> Any:
    """None where an interpolation has no value yet."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        return section[key]
    except OmegaConfBaseException:
        return None


class CheckedLoader:
    """What a launcher, ours or another, composes its jobs with: Hydra's loader, whose compositions are checked."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def load_sweep_config(self, master_config: Any, sweep_overrides: Sequence[str]) -> Any:
        config = self._loader.load_sweep_config(master_config, list(sweep_overrides))
        refuse_foreign_classes(config.hydra)
        return config
