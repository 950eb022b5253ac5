"""What `dvc exp run -S` composes conf/ with: Hydra in DVC's own process, which loads this file through .dvc/config.

It knows the project's launcher and sweepers there, and names the key that was probably meant. For any other conf/ it is
as it was. Hydra has no hook for the latter, so its one private function that applies overrides is wrapped, which DVC
calls too; where Hydra has it no more, its own message stays.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "src"))  # where the project is not installed

from pipeline.config.compose import registered_options, suggested_keys  # noqa: E402

_for_this_project = ExitStack()


class InDvc(SearchPathPlugin):
    """Hydra calls it before it composes a configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leaves it as it is."""
        _for_this_project.close()
        if any(part.provider == "main" and Path(part.path) == ROOT / "conf" for part in search_path.get_path()):
            _for_this_project.enter_context(registered_options())
            _for_this_project.enter_context(_suggesting())


@contextmanager
def _suggesting() -> Iterator[None]:
    try:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        applied = ConfigLoaderImpl._apply_overrides_to_config
    except (ImportError, AttributeError):
        yield
        return

    def apply_and_suggest(overrides: Any, cfg: Any) -> None:
        with suggested_keys():
            applied(overrides, cfg)

    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply_and_suggest)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(applied)  # type: ignore[method-assign]
