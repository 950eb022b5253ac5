"""What `pipeline STAGE --help` prints: read from the files of conf/, nothing is composed for it."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

WIDTH = 80
UNCHOSEN = ("default", "base")  # a group of these alone has no choice; what others are built on is none
# Overrides, and what they do; a test composes them all.
EXAMPLES = {
    "download": {"data=mnist": "another data set", "data=image_folder data.path=pictures": "your own pictures"},
    "preprocess": {"data.validation_fraction=0.2": "a larger validation split", "expand=deform": "deformed copies"},
    "train": {
        "optimizer=adam optimizer.lr=1e-3": "another optimizer and its step size",
        "'model.units=[512,256]' model.dropout=0.2": "lists need quotes in a shell",
        "experiment=book": "a file of conf/experiment/",
        "-m optimizer.lr=1e-3,3e-3 sweep.seeds=3": "a sweep, three seeds each",
        "hydra.run.dir=outputs/mine": "where its files go",
    },
    "evaluate": {"evaluate.model_folder=outputs/mine/models": "another model"},
}


def page(stage: str, conf: Path) -> str:
    """The first paragraph of the stage's module, what conf/ has to choose from, and examples."""
    source = Path(__file__).parents[1] / f"{stage}.py"  # read, not imported: that takes seconds
    doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    groups = {
        folder.name: sorted({file.stem for file in folder.glob("*.yaml")} - {"base"})
        for folder in sorted(conf.iterdir())
        if folder.is_dir()
    }
    choices = [
        textwrap.fill(f"  {group:<10}  {' '.join(names)}", WIDTH, subsequent_indent=" " * 14, break_on_hyphens=False)
        for group, names in groups.items()
        if not set(names) <= set(UNCHOSEN)
    ]
    examples = {**EXAMPLES[stage], "--cfg job": "print the settings, run nothing"}
    return "\n".join([
        f"pipeline {stage} [GROUP=NAME | KEY=VALUE]…", "",
        textwrap.fill(doc.strip().split("\n\n")[0], WIDTH), "",
        "Groups, and what there is to choose from:", *choices, "",
        f"Examples, after pipeline {stage}:",
        *(f"  {overrides:<42} {what}" for overrides, what in examples.items()), "",
        "Every setting: docs/configuration.md. Hydra's own switches: --hydra-help", "",
    ])  # fmt: skip
