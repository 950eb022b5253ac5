"""A torch module as an MLflow model: an exported graph with its weights, no pickle, none of our code to load it."""

from __future__ import annotations

import importlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pipeline.system.fork_server import import_available
from pipeline.system.startup import errors_alone

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature
    from torch import nn

REQUIREMENTS_CHECK = "warn_dependency_requirement_mismatches"


def log_model(
    client: MlflowClient,
    run_id: str,
    module: nn.Module,
    example: np.ndarray,
    *,
    name: str,
    requirements: Sequence[str],
    params: Mapping[str, str],
    classes: Sequence[str] | None,
) -> str:
    """Log a module as a model of the run; returns the model's id.

    The model is READY, or FAILED if anything went wrong on the way (the error is raised).

    Args:
        module: on the CPU and in eval(): both are frozen into the graph. Raw input to answer, preprocessing inside.
        example: two rows or more of real input; one row would fix the batch size to 1. Any batch size works later.
        name: as the UI shows it; characters that MLflow forbids become "-".
        requirements: pip's, in full. MLflow would otherwise start a process to guess them: 8 s, and it guesses wrong.
        classes: names of the outputs, kept as ``labels`` in the model's metadata.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    _check(module, example)
    run = client.get_run(run_id)
    source = {key: value for key, value in run.data.tags.items() if key.startswith("mlflow.source.")}
    legal_name = re.sub(r"[/:.%\"']", "-", name)
    made = client.create_logged_model(
        run.info.experiment_id, legal_name, run_id, tags=source, params=dict(params), model_type="classifier"
    )
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        metadata = {"labels": list(classes)} if classes is not None else None
        described = Model(name, run_id, model_id=made.model_id, metadata=metadata)
        _save(client, module, example, described, requirements)
        status = "READY"
    finally:
        client.finalize_logged_model(made.model_id, status)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    return str(made.model_id)


def _check(module: nn.Module, example: np.ndarray) -> None:
    if len(example) < 2:
        raise ValueError(f"the example has {len(example)} row; give two or more, one would fix the batch size to 1")
    if module.training:
        raise ValueError("the module is in training mode; call eval() first, dropout would be frozen into the model")
    devices = {tensor.device.type for tensor in module.state_dict().values()} - {"cpu"}
    if devices:
        raise ValueError(f"the module is on {sorted(devices)}; call cpu() first, the device is frozen into the model")


def _save(
    client: MlflowClient, module: nn.Module, example: np.ndarray, described: Model, requirements: Sequence[str]
) -> None:
    import_available("mlflow.pytorch")  # or it would hide all warnings from here on
    from mlflow import pytorch

    with (
        tempfile.TemporaryDirectory() as folder,
        errors_alone("mlflow", "torch"),
        warnings.catch_warnings(action="ignore"),
        _requirements_unchecked(),
    ):
        pytorch.save_model(
            module,
            f"{folder}/model",
            mlflow_model=described,
            signature=_signature(module, example),
            input_example=example,
            pip_requirements=list(requirements),
        )
        client.log_model_artifacts(str(described.model_id), f"{folder}/model")


def _signature(module: nn.Module, example: np.ndarray) -> ModelSignature:
    """What goes in and comes out, batch size left open."""
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        answer = module(torch.from_numpy(np.array(example))).numpy()
    specs = [TensorSpec(array.dtype, (-1, *array.shape[1:])) for array in (example, answer)]
    return ModelSignature(Schema([specs[0]]), Schema([specs[1]]))


@contextmanager
def _requirements_unchecked() -> Iterator[None]:
    """Spare MLflow its look for them in this environment, where they come from: 2 s, for a warning suppressed here."""
    environment: Any = importlib.import_module("mlflow.utils.environment")
    check = getattr(environment, REQUIREMENTS_CHECK, None)  # no part of MLflow's public face: it may go
    if check is None:
        yield
        return
    setattr(environment, REQUIREMENTS_CHECK, lambda model_requirements: None)
    try:
        yield
    finally:
        setattr(environment, REQUIREMENTS_CHECK, check)
