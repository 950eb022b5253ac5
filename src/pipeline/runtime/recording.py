"""What an execution leaves in MLflow, and the summary that the terminal shows at its end.

One run per execution of the pipeline: train opens it, evaluate goes on with it. What ties the two together is the
digest of models/model.json: it is in models/run.json and a tag of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from rich.console import Console

from pipeline.config.schema import EvaluateConfig, TrackingConfig, TrainConfig
from pipeline.data.card import DataCard
from pipeline.data.processed import load_split
from pipeline.model import DESCRIPTION
from pipeline.runtime.origin import (
    DATA_CARD,
    PROCESSED,
    THREADS_TAG,
    WORK_TAG,
    Origin,
    flat,
    optimizer_name,
    sweep_tags,
)
from pipeline.runtime.places import Places
from pipeline.system.files import read_json, sha256_of, write_json
from pipeline.tracking import (
    DESCRIPTION_TAG,
    MODEL_ID_TAG,
    MODEL_TAG,
    DatasetRef,
    Run,
    Store,
    dvc_tags,
    model_requirements,
    provenance,
)
from pipeline.tracking.lookup import RUN_FILE, run_of_model
from pipeline.tracking.provenance import INPUT_STAGES

if TYPE_CHECKING:
    from pipeline.model.portable import TrainedModel

# Torch, which takes 1.3 s to import, comes with the modules of networks: they are imported where one is at hand.
CURVES = "learning_curves.png"

# ---------------------------------------------------------------- train


@contextlib.contextmanager
def training_run(cfg: TrainConfig, places: Places, origin: Origin, work: Path) -> Iterator[Run]:
    """A run with all that is known before the first step. A training that was cut short goes on in its own run."""
    from pipeline.training.devices import threads_of

    started = work / RUN_FILE
    store = Store(places.root)
    resume = read_json(started)["run_id"] if started.exists() else find_interrupted_run(store, work)
    name = cfg.tracking.run_name or run_name(cfg, places.resolved)
    tags = {**sweep_tags(cfg.sweep, origin.key, places.out), WORK_TAG: str(work)}
    with store.run(cfg.tracking.experiment, name, resume=resume, tags=tags, server=cfg.tracking.server) as run:
        write_json(started, {"run_id": run.id})
        run.params(flat(places.resolved))
        # dvc.lock is about the project's data/processed; other data, which Python may give, has no digest of DVC's
        stages = INPUT_STAGES if places.inputs == places.project else ()
        run.provenance(provenance(places.project, stages))
        run.tags({"seed": str(cfg.seed), THREADS_TAG: str(threads_of(cfg.trainer))})
        run.tags({f"origin.{key}": value for key, value in origin.as_json().items()})
        run.text(yaml.safe_dump(dict(places.resolved), sort_keys=False), "config.yaml")
        run.artifact(places.inputs / DATA_CARD, "data")
        for context in ("train", "validation"):
            record_data(run, places, context)
        yield run


def find_interrupted_run(store: Store, work: Path) -> str | None:
    """The run of a training that was killed before it had written down which run is its own."""
    if not store.exists:
        return None
    store.reap()
    if not store.was_tagged(WORK_TAG, str(work)):  # as of nearly every training
        return None
    quote = '"' if "'" in str(work) else "'"
    unfinished = [row for row in store.rows(f"tags.`{WORK_TAG}` = {quote}{work}{quote}") if row.status != "FINISHED"]
    return unfinished[0].run_id if unfinished else None


def run_name(cfg: TrainConfig, resolved: Mapping[str, Any]) -> str:
    """What the run is, in a few words: `dense-512 rmsprop mnist_5k`; in a sweep what differs: `units=64 lr=0.01`."""
    from pipeline.model.dense import widths_of

    if cfg.sweep.job and cfg.sweep.job.label:
        return cfg.sweep.job.label
    return f"dense-{widths_of(cfg.model.units)} {optimizer_name(cfg.optimizer.target)} {resolved['data']['name']}"


def record_data(run: Run, places: Places, context: str) -> DatasetRef | None:
    """The split as a data set of the run, with DVC's digest of data/processed; None if there is no such split."""
    card = DataCard.read(places.inputs / DATA_CARD)
    if context not in card.splits:
        return None
    digests = dvc_tags(places.inputs / "dvc.lock", ["preprocess"])
    digest = digests.get(f"dvc.{PROCESSED}") or card.splits[context]["images_sha256"]
    return run.dataset(f"{card.name}-{context}", digest, f"{PROCESSED}/{context}", context)


def record_training(
    run: Run, cfg: TrainConfig, places: Places, model: TrainedModel, values: Mapping[str, float], device: str
) -> None:
    """The trained model, portable, and models/run.json for the evaluation to come.

    A job of a sweep leaves its weights; MLflow's model, which takes longer than many a job, is made of the best one.
    """
    from pipeline.model.dense import num_weights

    models = places.out / "models"
    tags = model_tags(model.model_sha256, models)
    run.tags({**tags, "machine.device": device})
    measured = ("fit_s", "samples_per_s", "epochs", "steps", "kept_epoch")
    # `train/…` and `val/…` end with the last epoch, which need not be the one whose weights were kept
    kept_metrics = {f"kept_{name.replace('/', '_')}": value for name, value in values.items() if "/" in name}
    run.metrics({name: values[name] for name in measured} | kept_metrics | {"num_weights": num_weights(model.network)})
    if cfg.sweep.job is None and not has_model(run):
        record_model(run, places.inputs / PROCESSED, model, flat(places.resolved))
    for file in ("models/model.safetensors", "models/model.json", "plots/history.csv"):
        run.artifact(places.out / file, "dvc")
    kept = values["kept_epoch"]
    run.note(headline(values), f"{values['epochs']} epochs, kept epoch {kept + 1} (step {kept})")
    write_json(models / RUN_FILE, {"run_id": run.id, **tags})


def has_model(run: Run) -> bool:
    """Whether an earlier start, which was killed while it recorded, has made MLflow's model already."""
    outputs = run.client.get_run(run.id).outputs
    model_ids = [output.model_id for output in outputs.model_outputs] if outputs else []
    if model_ids:
        run.tags({MODEL_ID_TAG: model_ids[0]})
    return bool(model_ids)


def record_model(run: Run, processed: Path, model: TrainedModel, params: Mapping[str, Any]) -> None:
    """MLflow's model: loads and serves without this project."""
    from pipeline.model.dense import widths_of
    from pipeline.model.portable import Probabilities

    example = np.array(load_split(processed, "train").images[:2])
    model_id = run.model(
        Probabilities(model.network).eval(), example, name=f"dense-{widths_of(model.network.units)}",
        requirements=model_requirements(), params=params, classes=model.classes,
    )  # fmt: skip
    run.tags({MODEL_ID_TAG: model_id})


# ---------------------------------------------------------------- evaluate


@contextlib.contextmanager
def evaluation_run(cfg: EvaluateConfig, places: Places, models: Path) -> Iterator[Run]:
    """The run that trained the model in `models`; a new one, and a word about it, if the store no longer has it."""
    from pipeline.model.portable import load_model

    store, tags = Store(places.root), model_tags(load_model(models).model_sha256, models)
    trained = run_of_model(store, models)
    run_id = trained.run_id if trained else None
    name = cfg.tracking.run_name or f"evaluation of {tags[MODEL_TAG][:8]}"
    if run_id is None:
        print(f"evaluate: no run in mlflow.db trained this model ({tags[MODEL_TAG][:8]}): its scores go into a new run")
    with store.run(cfg.tracking.experiment, name, resume=run_id, server=cfg.tracking.server) as run:
        run.params(flat(places.resolved) if run_id is None else flat({"evaluate": places.resolved["evaluate"]}))
        if run_id is None:
            run.provenance(provenance(places.inputs))
            run.tags(tags)
        yield run


def model_tags(model_sha256: str, models: Path) -> dict[str, str]:
    """The digests that identify a model. Two settings may give the same weights; model.json tells them apart."""
    return {MODEL_TAG: model_sha256, DESCRIPTION_TAG: sha256_of(models / DESCRIPTION)}


def record_evaluation(
    run: Run, places: Places, scores: Mapping[str, float], per_class: Mapping[str, Any], out: Path
) -> None:
    """Scores on the run and on its model, figures, the table of classes, the predictions."""
    model_id = model_id_of(run)
    run.metrics(scores, model_id=model_id, dataset=record_data(run, places, "test"))
    run.artifact(out / "reports/figures", None)
    run.artifact(out / "reports/evaluation.html", None)
    run.artifact(out / "predictions", None)
    run.table(per_class, "evaluation/per_class.json")
    run.note(headline(scores), evaluation_note(run.id, model_id, scores, out))


def model_id_of(run: Run) -> str | None:
    """Of the model that the run has made; None for a job of a sweep, and for an evaluation alone."""
    model_id: str | None = run.client.get_run(run.id).data.tags.get(MODEL_ID_TAG)
    return model_id


# ---------------------------------------------------------------- texts


def evaluation_note(run_id: str, model_id: str | None, scores: Mapping[str, float], out: Path) -> str:
    """Markdown for the run's page: the interval, how to load the model, the learning curves."""
    parts = [f"95 % interval {scores['test/accuracy_low']:.2%} to {scores['test/accuracy_high']:.2%}"]
    if model_id:
        parts.append(f'`mlflow.pyfunc.load_model("models:/{model_id}")`')
    if (out / "reports/figures" / CURVES).exists():
        parts.append(f"![learning curves](get-artifact?path=figures%2F{CURVES}&run_uuid={run_id})")
    return "\n\n".join(parts)


def headline(values: Mapping[str, float]) -> str:
    if "test/accuracy" in values:
        counts = f"{values['test/correct']:,} of {values['test/count']:,} right"
        return f"test accuracy {values['test/accuracy']:.2%} ({counts})"
    split = "val" if "val/accuracy" in values else "train"
    return f"{split} accuracy {values[f'{split}/accuracy']:.2%}"


def print_summary(console: Console, title: str, rows: Mapping[str, str], tracking: TrackingConfig, run: Run) -> None:
    """What ran, where it is, and what to do next; plain lines, so that nothing is cut in a narrow terminal."""
    rows = {**rows, "run": f"{run.id} in experiment {tracking.experiment}", "look at it": "make ui"}
    width = max(map(len, rows)) + 2
    console.print(title, style="bold", highlight=False)
    for name, value in rows.items():
        console.print(f"  {name:<{width}}{value}", highlight=False, markup=False)
