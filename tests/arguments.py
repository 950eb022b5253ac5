"""Commands within a test's own process."""

import argparse
from types import ModuleType

from pipeline.commands.parsers import parser_of


def arguments_of(command: ModuleType, *words: str) -> argparse.Namespace:
    """What `pipeline COMMAND WORDS` gives to the command's `main`."""
    return parser_of(command.__name__.rpartition(".")[2]).parse_args(words)
