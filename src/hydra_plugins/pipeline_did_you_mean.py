"""Hydra says that a key cannot be overridden; this adds which key was probably meant. And it calls whatever class or
function its own settings name; this refuses those that are none of its plug-ins, before any is called.

A plug-in because that is what both Hydra by hand and DVC's own composing (`dvc exp run -S`) load. Hydra has no hook
for either, so its one private function that applies overrides is wrapped; may go when Hydra has them.
"""

from __future__ import annotations

import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.errors import ConfigCompositionException
from hydra.plugins.search_path_plugin import SearchPathPlugin

from pipeline.config.allowed_targets import refuse_foreign_classes
from pipeline.config.check import did_you_mean

_apply_overrides = ConfigLoaderImpl._apply_overrides_to_config


class DidYouMean(SearchPathPlugin):
    """Leaves the search path as it is; Hydra looks for a subclass of its plug-in classes to call a module a plug-in."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None: ...


def _apply_and_suggest(overrides: Any, cfg: Any) -> None:
    try:
        _apply_overrides(overrides, cfg)
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '(.+)'", str(error))
        if not unknown:
            raise
        key = unknown.group(1)
        raise ConfigCompositionException(f"{key}: there is no such key.{did_you_mean(key)}") from None
    if "hydra" in cfg:
        refuse_foreign_classes(cfg.hydra)


if _apply_overrides.__module__ != __name__:  # imported twice, it wraps once
    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(_apply_and_suggest)  # type: ignore[method-assign]
