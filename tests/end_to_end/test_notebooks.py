"""The notebooks run top to bottom on what `make repro` leaves."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lanes import long
from project_maker import ROOT, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # jupyter_client's and zmq's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AT_LENGTH = ("02_geometry", "03_gradients")


@pytest.mark.parametrize(
    "notebook",
    [long(path) if path.stem in AT_LENGTH else path for path in NOTEBOOKS],
    ids=[path.stem for path in NOTEBOOKS],
)
def test_a_notebook_runs_and_keeps_its_outputs(
    project: Project, monkeypatch: pytest.MonkeyPatch, notebook: Path
) -> None:
    """No cell fails, and what is committed has the outputs that a reader on the web sees."""
    monkeypatch.setenv("PYTHONPATH", str(project.root / "src"))
    book = nbformat.read(notebook, as_version=4)
    kept = [bool(cell.outputs) for cell in book.cells if cell.cell_type == "code"]
    NotebookClient(book, timeout=60, resources={"metadata": {"path": str(project.root / "notebooks")}}).execute()
    made = [bool(cell.outputs) for cell in book.cells if cell.cell_type == "code"]

    assert made == kept
    assert sum(made) >= 5
