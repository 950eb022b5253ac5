"""docs/extending.md, followed to the letter."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from project_maker import ROOT, Project

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`([\w/.]+)`[:,]|^```(python|yaml|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def apply_blocks(root: Path) -> list[str]:
    """Do what the page says, each block to the file that was named before it. Returns the names."""
    names = []
    for name, kind, body in BLOCK.findall(PAGE):
        if name:
            names.append(name)
        elif kind == "diff":
            change(root / names[-1], body.splitlines())
        else:
            (root / names[-1]).write_text(body, encoding="utf-8")
    return names


def change(file: Path, lines: list[str]) -> None:
    old = "\n".join(line[1:] for line in lines if line[:1] in ("-", " "))
    new = "\n".join(line[1:] for line in lines if line[:1] in ("+", " "))
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file} has no longer:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_blocks_of_the_page_make_what_it_says(project: Project) -> None:
    """A training with both, tracked under their names; its model was written, read again and exported."""
    names = apply_blocks(project.root)
    project.run(sys.executable, "-m", "pipeline.train", "optimizer=lion", "model=residual", "trainer.num_epochs=1")

    assert len(names) == 11
    run = project.all_runs()[0]
    assert run.info.run_name == "residual-256x256 lion mnist_5k"
    assert run.data.params["optimizer.target"] == "pipeline.model.lion.Lion"
    assert 0.3 < run.data.metrics["kept_val_accuracy"] < 0.95
    assert run.outputs.model_outputs
