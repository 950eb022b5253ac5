"""What `pipeline COMMAND --help` says: its shape, and that each example is one that the command takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.commands.parsers import COMMANDS, STAGES, parser_of, stage_page
from pipeline.config.compose import compose_yaml
from project_maker import ROOT

CONF = ROOT / "conf"
MAX_LINES, MAX_COLUMNS = 25, 80
FEW = {"configure": 1, "sync": 4, "warm": 2}  # that there are no five sensible examples for


def page(command: str) -> str:
    return stage_page(command, CONF) if command in STAGES else parser_of(command).format_help()


def test_every_command_has_a_page() -> None:
    assert (list(STAGES), list(COMMANDS)) == (list(cli.STAGES), list(cli.COMMANDS))


@pytest.mark.parametrize("command", [*STAGES, *COMMANDS])
def test_a_page_has_the_shape_of_all_and_fits_a_terminal(command: str) -> None:
    """Usage, what it does, arguments, examples, where to read more."""
    lines = page(command).splitlines()
    examples = [line for line in lines if line.startswith(f"  pipeline {command}")]
    more = re.findall(r"docs/\w+\.md", lines[-1])

    assert lines[0].startswith(f"usage: pipeline {command}")
    assert [line for line in lines if line.endswith(":")][-1] == "examples:"
    assert len(examples) >= FEW.get(command, 5)
    assert lines[-1].startswith("More: ")
    assert more
    assert all((ROOT / name).exists() for name in more)
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_COLUMNS


@pytest.mark.parametrize(
    ("stage", "words"), [(name, words) for name, stage in STAGES.items() for words in stage.examples]
)
def test_an_example_of_a_stage_composes(stage: str, words: str) -> None:
    """Of what is swept, the first value."""
    one_job = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in shlex.split(words) if not word.startswith("-")]
    assert compose_yaml(CONF, [word for word in one_job if "=" in word and not word.startswith("hydra.")])


@pytest.mark.parametrize(
    ("command", "words"), [(name, words) for name, command in COMMANDS.items() for words in command.examples]
)
def test_an_example_of_a_command_is_parsed(command: str, words: str) -> None:
    given = shlex.split(words)
    values = vars(parser_of(command).parse_args(given))
    flat = [str(one) for value in values.values() for one in (value if isinstance(value, list) else [value])]

    assert all(word in flat for word in given if not word.startswith("-"))


@pytest.mark.parametrize("stage", ["train", "preprocess", "download"])
def test_a_page_names_each_choice(stage: str) -> None:
    text = stage_page(stage, CONF)

    for group in STAGES[stage].groups:
        names = {file.stem for file in (CONF / group).glob("*.yaml")} - {"base"}
        found = re.search(rf"^  {group}= +(.*(?:\n {{4,}}.*)*)$", text, re.MULTILINE)
        assert (found[1].split() if found else []) == (sorted(names) if len(names) > 1 else [])


def test_outside_a_project_a_page_has_no_choices(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == stage_page("train", None)


@pytest.mark.parametrize("words", [("help", "compare"), ("compare", "-h"), ("compare", "HEAD", "--help")], ids=" ".join)
def test_help_of_a_command_is_asked_for_in_several_ways(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=True)
    assert done.stdout == page("compare")


def test_the_overview_names_each_command_and_fits_a_terminal() -> None:
    lines = cli.overview().splitlines()

    assert [line.split()[0] for line in lines if line.startswith("  ")] == [*STAGES, *COMMANDS]
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_COLUMNS
