"""Where the project is, and where a stage reads and writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.system.errors import PipelineError

OWN_SOURCE = "src/pipeline/train.py"  # in dvc.yaml's stage train: no other project's dvc.yaml names it


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
    """The folder that holds conf/ and this pipeline's dvc.yaml: what DVC says, else the nearest one from here upwards.

    A DVC repository or a conf/ of another project is passed by: no store is made in it.

    Raises:
        PipelineError: there is none.
    """
    here = Path.cwd().resolve()
    by_dvc = [Path(given).resolve()] if (given := os.environ.get("DVC_ROOT")) else []
    for folder in (*by_dvc, here, *here.parents):
        if is_project(folder):
            return folder
    raise PipelineError(
        f"{here} is in no project: expected conf/ and a dvc.yaml that names {OWN_SOURCE}, here or in a folder above. "
        "Change into the project."
    )


def is_project(folder: Path) -> bool:
    stages = folder / "dvc.yaml"
    return (folder / "conf").is_dir() and stages.is_file() and OWN_SOURCE in stages.read_text(encoding="utf-8")
