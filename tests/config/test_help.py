"""What `--help` of a stage names is there."""

from __future__ import annotations

import re
import shlex

import pytest

from pipeline.config.compose import compose_yaml
from pipeline.config.help import EXAMPLES, page
from project_maker import ROOT

CONF = ROOT / "conf"


@pytest.mark.parametrize(("stage", "words"), [(stage, words) for stage, told in EXAMPLES.items() for words in told])
def test_an_example_composes(stage: str, words: str) -> None:
    one_job = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in shlex.split(words) if word != "-m"]
    assert compose_yaml(CONF, [word for word in one_job if not word.startswith("hydra.")])


@pytest.mark.parametrize("stage", EXAMPLES)
def test_a_page_names_each_choice_and_fits_a_terminal(stage: str) -> None:
    text = page(stage, CONF)

    for group in ("data", "optimizer", "trainer", "experiment"):
        names = {file.stem for file in (CONF / group).glob("*.yaml")} - {"base"}
        found = re.search(rf"^  {group} +(.*(?:\n {{14}}.*)*)$", text, re.MULTILINE)
        assert found
        assert found[1].split() == sorted(names)
    assert text.startswith(f"pipeline {stage} ")
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 80
