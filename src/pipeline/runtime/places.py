"""Where the project is, and where a stage reads and writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.system.errors import PipelineError


@dataclass(frozen=True)
class Places:
    """The folders of one execution of a stage.

    Under DVC, `inputs` and `out` are the folder DVC runs in (in `dvc exp run --temp` a temporary one). By hand,
    `inputs` is the project's root and `out` is Hydra's output folder: DVC's own outputs are only ever read.
    """

    root: Path  # the project, where mlflow.db lies
    inputs: Path
    out: Path
    resolved: Mapping[str, Any]  # the whole resolved configuration, to be written down with a run, never to be acted on
    code: Path | None = None  # whose dvc.yaml and git say which code runs; None: `inputs`

    @property
    def project(self) -> Path:
        return self.code or self.inputs

    @property
    def under_dvc(self) -> bool:
        return self.out == self.inputs


def project_root() -> Path:
    """The folder that holds dvc.yaml: what DVC says, else the nearest one above the current folder.

    Raises:
        PipelineError: there is none.
    """
    if given := os.environ.get("DVC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise PipelineError(f"{here} is in no project: no dvc.yaml here or in any folder above. Change into the project.")
