"""Experiment tracking on a local MLflow store, one small object per run.

    with Store(project_root()).run("mnist", "dense-512") as run:
        run.params({"model.units": [512]})
        run.metrics({"test/accuracy": 0.9785})

The only package that imports mlflow, and only once a store is used: importing it costs 0.1 s and changes nothing.
"""

from pipeline.tracking.leaderboard import (
    DESCRIPTION_TAG,
    IDLE_TAG,
    MODEL_ID_TAG,
    MODEL_TAG,
    PARENT_TAG,
    REASON_TAG,
    leaderboard_url,
)
from pipeline.tracking.provenance import PATCH_FILE, dvc_tags, model_requirements, provenance
from pipeline.tracking.run import DatasetRef, Run, RunRow, as_text
from pipeline.tracking.store import Store

__all__ = [
    "DESCRIPTION_TAG",
    "IDLE_TAG",
    "MODEL_ID_TAG",
    "MODEL_TAG",
    "PARENT_TAG",
    "PATCH_FILE",
    "REASON_TAG",
    "DatasetRef",
    "Run",
    "RunRow",
    "Store",
    "as_text",
    "dvc_tags",
    "leaderboard_url",
    "model_requirements",
    "provenance",
]
