"""The commands around the stages, a module each: `main(args)` does the work.

pipeline/cli.py starts them; parsers.py has their arguments and what their --help says. What several of them share is
here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.system.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

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
    from rich.console import Console  # of no use to a page of help

    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
