"""Commands within a test's own process."""

import argparse
from types import ModuleType


def arguments_of(command: ModuleType, *words: str) -> argparse.Namespace:
    """What `pipeline COMMAND WORDS` gives to the command's `main`."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)
