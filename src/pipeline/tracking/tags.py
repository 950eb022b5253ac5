"""Tags of runs that several modules know."""

from __future__ import annotations

MODEL_TAG = "model.sha256"  # digest of models/model.safetensors
DESCRIPTION_TAG = "model.json.sha256"  # digest of models/model.json, which names weights, data, settings and code
PARENT_TAG = "mlflow.parentRunId"  # the UI shows a run below its parent
LIVE_TAG = "pipeline.live"  # token of the process that writes the run; gone when the run has ended
IDLE_TAG = "idle_s"  # wall seconds between its ends and its going on, so far
REASON_TAG = "exit.reason"
MODEL_ID_TAG = "model.id"  # of a run and of a registered version: MLflow's model
