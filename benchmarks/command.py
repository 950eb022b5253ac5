"""What the commands of all benchmarks share: --write, and --smallest, the whole path in seconds.

The smallest form takes some of the embedded digits for MNIST, two epochs, and forks for new interpreters, so that torch
is imported once. Its figures say nothing and are not written. tests/test_benchmarks.py runs it for every benchmark.
"""

from __future__ import annotations

import argparse
from typing import Any

from mnist import PAGE
from results_page import with_section, write_section

# 400 images to train on; two epochs, because the first is measured apart.
SMALLEST = ("data=mnist_5k", "data.validation_fraction=0.9", "trainer.num_epochs=2", "trainer.num_threads=1")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """For a script's docstring, with the two switches."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--write", action="store_true", help="put the section into docs/results.md")
    form.add_argument("--smallest", action="store_true", help="try every step in seconds; the figures say nothing")
    return parser


def parse(parser: argparse.ArgumentParser, **smallest: Any) -> argparse.Namespace:
    """`overrides` are those of the form that is asked for; `smallest` takes the place of what else was given."""
    options = parser.parse_args()
    options.overrides = SMALLEST if options.smallest else ()
    if options.smallest:
        vars(options).update(smallest)
    return options


def publish(section: str, markdown: str, options: argparse.Namespace) -> None:
    """Print it, and put it into docs/results.md if that was asked for; the smallest form tries whether it could be."""
    print(f"\n{markdown}")
    if options.write:
        write_section(PAGE, section, markdown)
    elif options.smallest:
        with_section(PAGE, section, markdown)
