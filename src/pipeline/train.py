"""Stage 3: from arrays to a trained model; weights, a description of them, and how the training went.

Reads   data/processed/
Writes  models/ metrics/train.json metrics/learning.json plots/history.csv    see `train`
"""

from __future__ import annotations

if __name__ == "__main__":  # settings are checked before torch, Lightning and MLflow are imported
    from pipeline.cli import main as command_line

    command_line("train")

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from safetensors.torch import load_file

from pipeline.config.schema import TrainConfig
from pipeline.data.card import DataCard
from pipeline.model.dense import DenseNetwork, num_weights
from pipeline.model.portable import load_model, save_model
from pipeline.runtime.origin import PROCESSED, PRUNED_TAG, origin_of, shown, work_folder
from pipeline.runtime.places import Places
from pipeline.runtime.recording import print_summary, record_training, training_run
from pipeline.runtime.stage_runner import run_record
from pipeline.sweeps.jobs.job import values_of_earlier_job
from pipeline.system.errors import Diverged
from pipeline.system.files import atomic_file, write_json
from pipeline.system.processes import Rank, require_processes
from pipeline.system.signals import deferred_stop, exit_after_rank_zero
from pipeline.tracking import Run
from pipeline.training import objective_values
from pipeline.training.devices import require_device
from pipeline.training.distributed import WEIGHTS, fit_in_new_processes
from pipeline.training.fit import Fit, fit_processed, input_spec
from pipeline.training.module import OnEpoch, OnSteps, Values

if TYPE_CHECKING:
    from pipeline.sweeps.search.study import Pruning

Send = Callable[..., None]  # an event of a training, as keyword arguments, to whoever watches several
HISTORY_COLUMNS = ("epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")


@dataclass(frozen=True)
class Training:
    """A training whose files are written."""

    fit: Fit
    model_sha256: str
    kept_metrics: dict[str, float]  # the values of metrics/learning.json

    def metrics(self) -> dict[str, float]:
        """The values of metrics/train.json: those of the kept epoch, and how fast it was."""
        speed = {"fit_s": round(self.fit.fit_s, 3), "samples_per_s": round(self.fit.samples_per_s, 1)}
        return {**self.kept_metrics, **speed}


def train(
    processed: Path,
    out: Path,
    work: Path,
    cfg: TrainConfig,
    origin: dict[str, str],
    *,
    console: Console,
    on_epoch: OnEpoch,
    on_steps: OnSteps,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Training:
    """Train a Dense network on the training split.

    Reads   processed/{train,validation}/, processed/data_card.json
            work/last.ckpt, if an earlier start of the same training was interrupted: it resumes from there
    Writes  out/models/model.safetensors, model.json    weights of the kept epoch, and what they are
            out/metrics/learning.json                   metrics of the kept epoch; epochs, steps
            out/metrics/train.json                      the same, fit_s and samples_per_s: differs from run to run
            out/plots/history.csv                       one row an epoch
            work/                                       checkpoints; the caller removes them once all is recorded

    Args:
        origin: digests of what the model comes from, for model.json.
    """
    card = DataCard.read(processed / "data_card.json")
    if cfg.trainer.devices > 1 and Rank.of(os.environ) is None:
        fit = fit_in_processes(processed, work, cfg, console, on_epoch, on_steps)
    else:
        fit = fit_processed(processed, work, cfg, console, on_epoch, on_steps, stop_requested)

    kept_metrics = metrics_of_kept_epoch(fit)
    description = {"kept_epoch": fit.kept_epoch, "num_epochs": len(fit.history), "seed": cfg.seed, **origin}
    with atomic_file(out / "metrics/learning.json") as metrics, atomic_file(out / "plots/history.csv") as history:
        write_json(metrics, kept_metrics)
        write_history(history, fit.history)
        digest = save_model(out / "models", fit.network, cfg.model, input_spec(card), list(card.classes), description)
    training = Training(fit, digest, kept_metrics)
    write_json(out / "metrics/train.json", {**training.metrics(), "model_sha256": digest})
    return training


def fit_in_processes(
    processed: Path, work: Path, cfg: TrainConfig, console: Console, on_epoch: OnEpoch, on_steps: OnSteps
) -> Fit:
    """The same as `fit_processed`, with a new process for each device; the first one prints to this terminal."""
    fit = fit_in_new_processes(processed, work, cfg, on_epoch, on_steps)
    card = DataCard.read(processed / "data_card.json")
    network = DenseNetwork(cfg.model, input_spec(card), len(card.classes))
    network.load_state_dict(load_file(work / WEIGHTS))
    return Fit(network=network.eval(), **fit)


def metrics_of_kept_epoch(fit: Fit) -> dict[str, float]:
    """Loss and accuracy, epochs and steps; `val/…` is absent without a validation split."""
    row = next(row for row in fit.history if row["epoch"] == fit.kept_epoch)
    metrics = {name: row[name] for name in row if "/" in name}
    return {**metrics, "kept_epoch": fit.kept_epoch, "epochs": len(fit.history), "steps": fit.num_steps}


def write_history(path: Path, history: list[Values]) -> None:
    """One row an epoch; the columns of validation stay empty without a validation split, so that plots find them."""
    with atomic_file(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


# ---------------------------------------------------------------- the training as a run of MLflow


def train_tracked(cfg: TrainConfig, places: Places, send: Send | None = None) -> float | tuple[float, ...]:
    """Train within an MLflow run. Returns the values of the objectives at the kept epoch, for a search.

    Args:
        send: gets the newest epoch's number and metrics, at the end the kept one's.
    """
    require_device(cfg.trainer)
    rank = Rank.of(os.environ)
    require_processes(cfg.trainer.devices, cfg.trainer.num_nodes, rank)
    if rank and rank.rank > 0:
        return train_on_other_rank(cfg, places)
    console = Console(soft_wrap=True)
    origin = origin_of(cfg, places)
    work = work_folder(places, origin)
    with training_run(cfg, places, origin, work) as run:
        pruning = pruning_of(cfg)
        single = cfg.trainer.devices * cfg.trainer.num_nodes == 1
        with divergence_recorded(run), deferred_stop(single) as stop_requested:
            training = train(
                places.inputs / PROCESSED, places.out, work, cfg, origin.as_json(), console=console,
                on_epoch=partial(record_epoch, run, cfg, send, pruning),
                on_steps=lambda name, points: run.metric_points((name, value, step) for step, value in points),
                stop_requested=stop_requested,
            )  # fmt: skip
        metrics = training.metrics()
        if send:
            send(values=training.kept_metrics)
        if pruning and pruning.pruned:
            record_pruned(run, cfg, metrics)
        else:
            record_training(run, cfg, places, load_model(places.out / "models"), metrics, training.fit.device)
        print_summary(console, "trained", summary(training, places), cfg.tracking, run)
    shutil.rmtree(work, ignore_errors=True)  # not before: a kill while recording costs no training
    measured = {**metrics, "num_weights": num_weights(training.fit.network)}
    return objective_values(cfg.sweep, cfg.trainer, measured)


def train_on_other_rank(cfg: TrainConfig, places: Places) -> float | tuple[float, ...]:
    """What the processes of torchrun or SLURM do beside that of rank 0: compute with it, keep nothing, track nothing.

    In a sweep it may resume an earlier start. Then they must too, so they look into the same folder.
    """
    work = work_folder(places, origin_of(cfg, places))
    with exit_after_rank_zero():
        fit = fit_processed(
            places.inputs / PROCESSED, work, cfg, Console(quiet=True),
            on_epoch=lambda *_: None, on_steps=lambda *_: None,
        )  # fmt: skip
    measured = {**fit.history[-1], "num_weights": num_weights(fit.network), "fit_s": fit.fit_s}
    return objective_values(cfg.sweep, cfg.trainer, measured)


@contextmanager
def divergence_recorded(run: Run) -> Iterator[None]:
    """Where a training diverged is an artifact of its run."""
    try:
        yield
    except Diverged as error:
        run.json(error.details, "failure/diverged.json")
        raise


def record_epoch(
    run: Run, cfg: TrainConfig, send: Send | None, pruning: Pruning | None, epoch: int, values: Values
) -> bool:
    """Whether it was the last epoch, because a search expects too little of the others."""
    run.metrics(values, step=epoch)
    if send:
        send(epoch=epoch + 1, num_epochs=cfg.trainer.num_epochs, values=values)
    if not pruning or not pruning.should_prune(epoch, values):
        return False
    run.tags({PRUNED_TAG: str(epoch)})
    if send:
        send(pruned=True)
    return True


def pruning_of(cfg: TrainConfig) -> Pruning | None:
    """The search that this training is a trial of, if it may end the training early."""
    if cfg.sweep.trial is None or cfg.sweep.storage is None:
        return None
    from pipeline.sweeps.search.study import Pruning  # with it comes Optuna, which no other training needs

    return Pruning.of(cfg)


def record_pruned(run: Run, cfg: TrainConfig, metrics: Mapping[str, float]) -> None:
    """How far it came. Its model stays in its folder: nobody will serve what a search gave up."""
    run.metrics({name: metrics[name] for name in ("fit_s", "samples_per_s", "epochs", "steps")})
    run.note(f"pruned after {metrics['epochs']} of {cfg.trainer.num_epochs} epochs", "The search expects too little.")


def summary(training: Training, places: Places) -> dict[str, str]:
    values = training.metrics()
    metrics = {name: f"{value:.4f}" for name, value in values.items() if "/" in name}
    speed = f"{values['fit_s']:.1f} s, {values['samples_per_s']:,.0f} samples/s"
    return {**metrics, "epochs": f"{values['epochs']}, kept {values['kept_epoch'] + 1}", "time": speed,
            "model": f"{shown(places.out / 'models', places.root)}, sha256 {training.model_sha256[:12]}"}  # fmt: skip


# ---------------------------------------------------------------- how it is called


def main(cfg: TrainConfig, places: Places) -> float | tuple[float, ...]:
    """`dvc repro train`, or by hand `pipeline train`; a job that its sweep has done before gives those values."""
    known = values_of_earlier_job(cfg, places)
    return train_tracked(cfg, places) if known is None else known


def run_job(config: Mapping[str, Any], out: Path, send: Send) -> Any:
    """One job of a sweep, from its composed configuration."""
    return run_record("train", TrainConfig, partial(train_tracked, send=send), config, out)
