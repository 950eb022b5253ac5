"""What the commands around a model have in common on their command lines."""

from __future__ import annotations

import sys

from rich.console import Console

from pipeline.system.errors import ConfigError

WIDTH = 200  # characters, where no terminal says how wide it is


def model_named(word: str | None) -> str | None:
    """The NAME of `model=NAME`. Raises ConfigError for another word."""
    if word is None:
        return None
    if not word.startswith("model="):
        raise ConfigError(f"{word}: expected model=NAME, such as model=@champion")
    return word.removeprefix("model=")


def wide_console() -> Console:
    """Whose tables are not broken for want of a terminal."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
