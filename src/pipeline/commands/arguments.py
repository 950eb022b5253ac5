"""What the commands around a model have in common on their command lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from pipeline.system.errors import ConfigError

WIDTH = 200  # characters, where no terminal says how wide it is


def model_named(word: str | None, options: Sequence[str] = ()) -> str | None:
    """The NAME of `model=NAME` or of `--model NAME`, which is the same.

    Raises:
        ConfigError: another word, or two models.
    """
    if word is not None and not word.startswith("model="):
        raise ConfigError(f"{word}: expected model=NAME, such as model=@champion")
    names = [*([] if word is None else [word.removeprefix("model=")]), *options]
    if len(names) > 1:
        raise ConfigError(f"expected one model, found {len(names)}: {', '.join(names)}")
    return names[0] if names else None


def wide_console() -> Console:
    """Whose tables are not broken for want of a terminal."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
