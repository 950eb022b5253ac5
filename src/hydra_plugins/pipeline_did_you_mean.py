"""Hydra says that a key cannot be overridden; this adds which key was probably meant.

A plug-in because that is what both Hydra by hand and DVC's own composing (`dvc exp run -S`) load. Hydra has no hook
for this message, so its one private function that writes it is wrapped; may go when Hydra suggests keys itself.
"""

from __future__ import annotations

import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.errors import ConfigCompositionException
from hydra.plugins.search_path_plugin import SearchPathPlugin

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


if _apply_overrides.__module__ != __name__:  # imported twice, it wraps once
    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(_apply_and_suggest)  # type: ignore[method-assign]
