"""Every command in the README and in docs/ does what it says; tests/documented.py says which are run here."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from documented import RUN
from project_maker import ROOT, Project, lend_environment

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text(encoding="utf-8")


def irises(file: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal(kind):.3f},{rng.normal(-kind):.3f},kind{kind}" for kind in (0, 3) for _ in range(20)]
    file.write_text("\n".join(["length,width,species", *rows]) + "\n")
    return file


def latest_model(project: Project) -> str:
    project.run(sys.executable, "-m", "pipeline.train")
    return str(max(project.root.glob("outputs/train/*/models")).relative_to(project.root))


def digits(project: Project, folder: Path) -> str:
    """A page with a digit on it, and a folder of two."""
    (folder / "digits").mkdir()
    images = np.load(project.root / "data/processed/test/images.npy", mmap_mode="r")
    for name, index in (("page", 0), ("digits/a", 200), ("digits/b", 400)):
        large = Image.fromarray(255 - np.array(images[index])).resize((200, 200))
        large.save(folder / f"{name}.png")
    return f"{folder}/page.png {folder}/digits"


PLACEHOLDERS: dict[str, Callable[[Project, Path], str]] = {
    "/home/me/irises.csv": lambda project, folder: str(irises(folder / "irises.csv")),
    "outputs/train/2026-01-31_12-00-00-000000/models": lambda project, folder: latest_model(project),
    "COMMIT": lambda project, folder: "HEAD",
    "page.png digits/": lambda project, folder: digits(project, folder),
}


@pytest.mark.parametrize("command", RUN)
def test_a_documented_command_runs(project: Project, tmp_path: Path, command: str) -> None:
    lend_environment(project)
    for placeholder, make in PLACEHOLDERS.items():
        if placeholder in command:
            command = command.replace(placeholder, make(project, tmp_path))
    done = project.run("bash", "-c", command)

    assert "Traceback" not in done.text


def test_the_mistake_in_the_readme_is_answered_as_it_says(project: Project) -> None:
    command, answer = re.search(r"^\$ (.+)\n(.+)$", README, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert project.run("bash", "-c", command, expect=2).text.strip() == answer


def test_make_help_names_every_target(project: Project) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shown = project.run("make", "help").text
    assert all(f"make {target}" in shown for target in targets)
    assert shutil.which("make")
