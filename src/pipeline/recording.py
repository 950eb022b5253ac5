"""What an execution leaves in MLflow, and what the terminal says at its end.

One run per execution of the pipeline: train opens it, evaluate goes on with it. What ties the two together is the
digest of models/model.json: it is in models/run.json and a tag of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from pipeline.config.schema import EvaluateConfig, TrackingConfig, TrainConfig
from pipeline.data.arrays import load_split
from pipeline.data.card import DataCard
from pipeline.files import read_json, sha256_of, sha256_of_json, write_json
from pipeline.model.dense import num_weights, widths_of
from pipeline.model.optimizers import optimizer_name
from pipeline.model.portable import DESCRIPTION, Portable, Probabilities, load_model
from pipeline.places import Places
from pipeline.tracking import (
    DESCRIPTION_TAG,
    MODEL_TAG,
    DatasetRef,
    Run,
    Store,
    dvc_tags,
    model_requirements,
    provenance,
)

RUN_FILE = "run.json"
MODEL_ID_TAG = "model.id"
CURVES = "learning_curves.png"
PROCESSED = "data/processed"
UNRECORDED = ("tracking", "data.files", "data.mirrors", "data.archive", "data.classes")  # no settings people compare


@dataclass(frozen=True)
class Origin:
    """What a training is a function of; equal origins give equal weights on one type of machine."""

    data_sha256: str
    config_sha256: str  # of the settings that train reads, without `tracking`
    code_sha256: str  # of the files that dvc.yaml lists under train's `deps:`

    def as_json(self) -> dict[str, str]:
        return dict(vars(self))

    @property
    def key(self) -> str:
        return sha256_of_json(self.as_json())[:16]


def origin_of(cfg: TrainConfig, places: Places) -> Origin:
    card = places.inputs / PROCESSED / "data_card.json"  # holds the digests of all arrays
    settings = cfg.model_dump(mode="json", exclude={"tracking"}, by_alias=True)
    return Origin(sha256_of(card), sha256_of_json(settings), code_sha256(places.inputs))


def code_sha256(project: Path, stage: str = "train") -> str:
    """Digest of the source files that dvc.yaml lists under a stage's `deps:`."""
    deps = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["deps"]
    return sha256_of_json({dep: sha256_of(project / dep) for dep in deps if dep.endswith(".py")})


def work_folder(places: Places, origin: Origin) -> Path:
    """Where a training keeps its checkpoints: outside DVC's outputs, and never another configuration's."""
    if places.under_dvc:
        return places.out / ".pipeline/checkpoints" / origin.key
    return places.out / "checkpoints"


# ---------------------------------------------------------------- train


@contextlib.contextmanager
def training_run(cfg: TrainConfig, places: Places, origin: Origin, work: Path) -> Iterator[Run]:
    """A run with all that is known before the first step. A training that was cut short goes on in its own run."""
    started = work / RUN_FILE
    resume = read_json(started)["run_id"] if started.exists() else None
    name = cfg.tracking.run_name or run_name(cfg, places.record)
    with Store(places.root).run(cfg.tracking.experiment, name, resume=resume) as run:
        write_json(started, {"run_id": run.id})
        run.params(flat(places.record) | {"optimizer.name": optimizer_name(cfg.optimizer)})
        run.provenance(provenance(places.inputs))
        run.tags({"seed": str(cfg.seed), **{f"origin.{key}": value for key, value in origin.as_json().items()}})
        run.text(yaml.safe_dump(dict(places.record), sort_keys=False), "config.yaml")
        run.artifact(places.inputs / PROCESSED / "data_card.json", "data")
        for context in ("train", "validation"):
            record_data(run, places, context)
        yield run


def run_name(cfg: TrainConfig, record: Mapping[str, Any]) -> str:
    """What the run is, in a few words: `dense-512 rmsprop mnist_5k`."""
    return f"dense-{widths_of(cfg.model.units)} {optimizer_name(cfg.optimizer)} {record['data']['name']}"


def record_data(run: Run, places: Places, context: str) -> DatasetRef | None:
    """The split as a data set of the run, with DVC's digest of data/processed; None if there is no such split."""
    card = DataCard.read(places.inputs / PROCESSED / "data_card.json")
    if context not in card.splits:
        return None
    digests = dvc_tags(places.inputs / "dvc.lock", ["preprocess"])
    digest = digests.get(f"dvc.{PROCESSED}") or card.splits[context]["images_sha256"]
    return run.dataset(f"{card.name}-{context}", digest, f"{PROCESSED}/{context}", context)


def record_training(
    run: Run, cfg: TrainConfig, places: Places, model: Portable, values: Mapping[str, float], device: str
) -> None:
    """The trained model, portable, and models/run.json for the evaluation to come."""
    models = places.out / "models"
    tags = model_tags(model.model_sha256, models)
    run.tags({**tags, "machine.device": device})
    measured = ("fit_s", "samples_per_s", "epochs", "steps", "kept_epoch")
    # `train/…` and `val/…` end with the last epoch, which need not be the one whose weights were kept
    kept_metrics = {f"kept_{name.replace('/', '_')}": value for name, value in values.items() if "/" in name}
    run.metrics({name: values[name] for name in measured} | kept_metrics | {"num_weights": num_weights(model.network)})
    example = np.array(load_split(places.inputs / PROCESSED, "train").images[:2])
    model_id = run.model(
        Probabilities(model.network).eval(), example, name=f"dense-{widths_of(cfg.model.units)}",
        requirements=model_requirements(), params=flat(places.record), classes=model.classes,
    )  # fmt: skip
    run.tags({MODEL_ID_TAG: model_id})
    for file in ("models/model.safetensors", "models/model.json", "plots/history.csv"):
        run.artifact(places.out / file, "dvc")
    kept = values["kept_epoch"]
    note = f"{values['epochs']} epochs, kept epoch {kept + 1} (step {kept}); load it with `models:/{model_id}`"
    run.note(headline(values), note)
    write_json(models / RUN_FILE, {"run_id": run.id, "model_id": model_id, **tags})


# ---------------------------------------------------------------- evaluate


@contextlib.contextmanager
def evaluation_run(cfg: EvaluateConfig, places: Places, models: Path) -> Iterator[Run]:
    """The run that trained the model in `models`; a new one, and a word about it, if the store no longer has it."""
    store, tags = Store(places.root), model_tags(load_model(models).model_sha256, models)
    run_id = run_of(store, models, tags)
    name = cfg.tracking.run_name or f"evaluation of {tags[MODEL_TAG][:8]}"
    if run_id is None:
        print(f"evaluate: no run in mlflow.db trained this model ({tags[MODEL_TAG][:8]}): its scores go into a new run")
    with store.run(cfg.tracking.experiment, name, resume=run_id) as run:
        run.params(flat(places.record) if run_id is None else flat({"evaluate": places.record["evaluate"]}))
        if run_id is None:
            run.provenance(provenance(places.inputs))
            run.tags(tags)
        yield run


def model_tags(model_sha256: str, models: Path) -> dict[str, str]:
    """What a model is known by. Two settings may give the same weights; model.json tells them apart."""
    return {MODEL_TAG: model_sha256, DESCRIPTION_TAG: sha256_of(models / DESCRIPTION)}


def run_of(store: Store, models: Path, tags: Mapping[str, str]) -> str | None:
    """The run that trained this model: what run.json says if it is about this model, else a search of the store.

    run.json is not DVC's: after `dvc checkout` the model may be older than it.
    """
    written = models / RUN_FILE
    if written.exists():
        said = read_json(written)
        if said.get(DESCRIPTION_TAG) == tags[DESCRIPTION_TAG] and store.run_exists(said["run_id"]):
            return str(said["run_id"])
    return store.find_run(DESCRIPTION_TAG, tags[DESCRIPTION_TAG])


def record_evaluation(
    run: Run, places: Places, scores: Mapping[str, float], per_class: Mapping[str, Any], out: Path
) -> None:
    """Scores on the run and on its model, figures, the table of classes, the predictions."""
    model_id = run.client.get_run(run.id).data.tags.get(MODEL_ID_TAG)
    run.metrics(scores, model_id=model_id, dataset=record_data(run, places, "test"))
    run.artifact(out / "reports/figures", None)
    run.artifact(out / "predictions", None)
    run.table(per_class, "evaluation/per_class.json")
    run.note(headline(scores), evaluation_note(run.id, model_id, scores, out))


# ---------------------------------------------------------------- words


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


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to scalars and lists, without nulls and what nobody compares (addresses, where a run is filed)."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in UNRECORDED:
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None:  # a key that means nothing for this choice
            found[name.replace("._target_", ".target")] = value
    return found


def print_summary(console: Console, title: str, rows: Mapping[str, str], tracking: TrackingConfig, run: Run) -> None:
    """What ran, where it is, and what to do next; plain lines, so that nothing is cut in a narrow terminal."""
    rows = {**rows, "run": f"{run.id} in experiment {tracking.experiment}", "look at it": "make ui"}
    width = max(map(len, rows)) + 2
    console.print(title, style="bold", highlight=False)
    for name, value in rows.items():
        console.print(f"  {name:<{width}}{value}", highlight=False, markup=False)


def shown(path: Path, root: Path) -> str:
    """A path as people type it: relative to the project where it lies inside."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
