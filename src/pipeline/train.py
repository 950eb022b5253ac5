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
from pipeline.model.dense import DenseNetwork, InputSpec, num_weights
from pipeline.model.portable import load_model, save_model
from pipeline.runtime.origin import PROCESSED, PRUNED_TAG, origin_of, shown, work_folder
from pipeline.runtime.places import Places
from pipeline.runtime.recording import print_summary, record_training, training_run
from pipeline.runtime.stage_runner import run_record
from pipeline.sweeps.jobs.records import known_values
from pipeline.system.errors import Diverged
from pipeline.system.files import atomic_file, write_json
from pipeline.system.processes import Rank, ending_after_the_first, require_processes, world_size
from pipeline.tracking import Run, later_signals
from pipeline.training.devices import require_device
from pipeline.training.distributed import WEIGHTS, fit_in_new
from pipeline.training.fit import Fit, fit_processed, input_spec
from pipeline.training.module import OnEpoch, OnSteps, Values
from pipeline.training.objectives import objectives

if TYPE_CHECKING:
    from pipeline.sweeps.search.study import Pruning

Tell = Callable[..., None]
HISTORY_COLUMNS = ("epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")


@dataclass(frozen=True)
class Training:
    """What was trained; the files are written."""

    fit: Fit
    card: DataCard
    spec: InputSpec
    model_sha256: str
    learned: dict[str, float]  # of the kept epoch: the values of metrics/learning.json

    def measured(self) -> dict[str, float]:
        """The values of metrics/train.json: what was learned, and how fast."""
        speed = {"fit_s": round(self.fit.fit_s, 3), "samples_per_s": round(self.fit.samples_per_s, 1)}
        return {**self.learned, **speed}


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
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Training:
    """Train a Dense network on the training split.

    Reads   processed/{train,validation}/, processed/data_card.json
            work/last.ckpt, if an earlier start of the same training was cut short: it goes on from there
    Writes  out/models/model.safetensors, model.json    weights of the kept epoch, and what they are
            out/metrics/learning.json                   metrics of the kept epoch; epochs, steps
            out/metrics/train.json                      the same, fit_s and samples_per_s: differs from run to run
            out/plots/history.csv                       one row an epoch
            work/                                       checkpoints; the caller removes them once all is recorded

    Args:
        origin: digests of what the model comes from, for model.json.
    """
    card = DataCard.read(processed / "data_card.json")
    spec = input_spec(card)
    in_processes = cfg.trainer.devices > 1 and Rank.of(os.environ) is None
    fit = fit_in_processes if in_processes else partial(fit_processed, asked_to_stop=asked_to_stop)
    done = fit(processed, work, cfg, console, on_epoch, on_steps)

    description = {"kept_epoch": done.kept_epoch, "num_epochs": len(done.history), "seed": cfg.seed, **origin}
    with atomic_file(out / "metrics/learning.json") as metrics, atomic_file(out / "plots/history.csv") as history:
        write_json(metrics, learned(done))
        write_history(history, done.history)
        digest = save_model(out / "models", done.network, cfg.model, spec, list(card.classes), description)
    training = Training(done, card, spec, digest, learned(done))
    write_json(out / "metrics/train.json", {**training.measured(), "model_sha256": digest})
    return training


def fit_in_processes(
    processed: Path, work: Path, cfg: TrainConfig, console: Console, on_epoch: OnEpoch, on_steps: OnSteps
) -> Fit:
    """The same as `fit_processed`, with a new process for each device; the first one prints to this terminal."""
    done = fit_in_new(processed, work, cfg, on_epoch, on_steps)
    card = DataCard.read(processed / "data_card.json")
    network = DenseNetwork(cfg.model, input_spec(card), len(card.classes))
    network.load_state_dict(load_file(work / WEIGHTS))
    return Fit(network=network.eval(), **done)


def learned(done: Fit) -> dict[str, float]:
    """The kept epoch's metrics; `val/…` is absent without a validation split."""
    row = next(row for row in done.history if row["epoch"] == done.kept_epoch)
    metrics = {name: row[name] for name in row if "/" in name}
    return {**metrics, "kept_epoch": done.kept_epoch, "epochs": len(done.history), "steps": done.num_steps}


def write_history(path: Path, history: list[Values]) -> None:
    """One row an epoch; the columns of validation stay empty without a validation split, so that plots find them."""
    with atomic_file(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def train_tracked(cfg: TrainConfig, places: Places, tell: Tell | None = None) -> float | tuple[float, ...]:
    """Train within an MLflow run. Returns what a search looks at: the objectives' values at the kept epoch.

    Args:
        tell: gets the newest epoch's number and metrics, at the end the kept one's, for whoever watches several
            trainings.
    """
    require_device(cfg.trainer)
    rank = Rank.of(os.environ)
    require_processes(cfg.trainer, rank)
    if rank and rank.number > 0:
        return take_part(cfg, places)
    console = Console(soft_wrap=True)
    origin = origin_of(cfg, places)
    work = work_folder(places, origin)
    with training_run(cfg, places, origin, work) as run:
        pruning = pruning_of(cfg)
        with written_down(run), later_signals(world_size(cfg.trainer) == 1) as asked_to_stop:
            done = train(
                places.inputs / PROCESSED, places.out, work, cfg, origin.as_json(), console=console,
                on_epoch=partial(epoch_done, run, cfg, tell, pruning),
                on_steps=lambda name, points: run.metric_points((name, value, step) for step, value in points),
                asked_to_stop=asked_to_stop,
            )  # fmt: skip
        values = done.measured()
        if tell:
            tell(values=done.learned)
        if pruning and pruning.pruned:
            record_pruned(run, cfg, values)
        else:
            record_training(run, cfg, places, load_model(places.out / "models"), values, done.fit.device)
        print_summary(console, "trained", summary(done, places), cfg.tracking, run)
    shutil.rmtree(work, ignore_errors=True)  # not before: a kill while recording costs no training
    return searched(cfg, {**values, "num_weights": num_weights(done.fit.network)})


@contextmanager
def written_down(run: Run) -> Iterator[None]:
    """Where a training diverged is an artifact of its run."""
    try:
        yield
    except Diverged as error:
        run.json(error.where, "failure/diverged.json")
        raise


def epoch_done(
    run: Run, cfg: TrainConfig, tell: Tell | None, pruning: Pruning | None, epoch: int, values: Values
) -> bool:
    """Whether it was the last epoch, because a search expects too little of the others."""
    run.metrics(values, step=epoch)
    if tell:
        tell(epoch=epoch + 1, num_epochs=cfg.trainer.num_epochs, values=values)
    if not pruning or not pruning.should_prune(epoch, values):
        return False
    run.tags({PRUNED_TAG: str(epoch)})
    if tell:
        tell(pruned=True)
    return True


def pruning_of(cfg: TrainConfig) -> Pruning | None:
    """The search that this training is a trial of, if it may end the training early."""
    if cfg.sweep.trial is None or cfg.sweep.storage is None:
        return None
    from pipeline.sweeps.search.study import Pruning  # with it comes Optuna, which no other training needs

    return Pruning.of(cfg)


def record_pruned(run: Run, cfg: TrainConfig, values: Mapping[str, float]) -> None:
    """How far it came. Its model stays in its folder: nobody will serve what a search gave up."""
    run.metrics({name: values[name] for name in ("fit_s", "samples_per_s", "epochs", "steps")})
    run.note(f"pruned after {values['epochs']} of {cfg.trainer.num_epochs} epochs", "The search expects too little.")


def take_part(cfg: TrainConfig, places: Places) -> float | tuple[float, ...]:
    """What the other processes of torchrun or SLURM do: compute with the first one, keep nothing, track nothing.

    In a sweep it may go on from an earlier start. Then they must too, so they look into the same folder.
    """
    work = work_folder(places, origin_of(cfg, places))
    with ending_after_the_first():
        done = fit_processed(
            places.inputs / PROCESSED, work, cfg, Console(quiet=True),
            on_epoch=lambda *_: None, on_steps=lambda *_: None,
        )  # fmt: skip
    return searched(cfg, {**done.history[-1], "num_weights": num_weights(done.network), "fit_s": done.fit_s})


def searched(cfg: TrainConfig, values: Mapping[str, float]) -> float | tuple[float, ...]:
    """What a search looks at: the values of the objectives, a number where there is one."""
    found = tuple(values[name] for name in objectives(cfg.sweep, cfg.trainer, values))
    return found if len(found) > 1 else found[0]


def summary(done: Training, places: Places) -> dict[str, str]:
    values = done.measured()
    metrics = {name: f"{value:.4f}" for name, value in values.items() if "/" in name}
    speed = f"{values['fit_s']:.1f} s, {values['samples_per_s']:,.0f} samples/s"
    return {**metrics, "epochs": f"{values['epochs']}, kept {values['kept_epoch'] + 1}", "time": speed,
            "model": f"{shown(places.out / 'models', places.root)}, sha256 {done.model_sha256[:12]}"}  # fmt: skip


def main(cfg: TrainConfig, places: Places) -> float | tuple[float, ...]:
    """The same; but a job of a sweep that an earlier start has done gives what was found then."""
    known = known_values(cfg, places)
    return train_tracked(cfg, places) if known is None else known


def run_job(record: Mapping[str, Any], out: Path, tell: Tell) -> Any:
    """One job of a sweep, from its composed configuration."""
    return run_record("train", TrainConfig, partial(train_tracked, tell=tell), record, out)
