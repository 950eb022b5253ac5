"""What Hydra and `logging` call by a name in Hydra's own settings: their plug-ins and handlers, nothing else."""

from __future__ import annotations

import re
from typing import Any

from pipeline.system.errors import ConfigError

CALLED = ("_target_", "class", "()")  # keys whose value Hydra and logging.config import and call
KNOWN_CLASSES = re.compile(
    r"(hydra_plugins|hydra\._internal\.core_plugins)(\.[a-z_0-9]+)+\.[A-Z]\w*(Launcher|Sweeper)"
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
                f"{where}: expected a launcher or sweeper that is installed as a plug-in, or a handler of `logging`, "
                f"found {found!r}. Nothing else is run by its name"
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
