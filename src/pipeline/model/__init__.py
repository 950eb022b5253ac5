"""The network and what it is made of, as plain torch: no Lightning, no tracking, no configuration files."""

from pathlib import Path

from pipeline.system.errors import PipelineError

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"  # the files of a trained network


def require_files(folder: Path) -> None:
    """Raises PipelineError if one of them is missing."""
    for file in (DESCRIPTION, WEIGHTS):
        if not (folder / file).exists():
            raise PipelineError(f"{folder / file} is missing: train a model first: `dvc repro train`")
