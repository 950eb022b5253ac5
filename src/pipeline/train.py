"""From arrays to a trained model: weights, a description of them, and how the training went."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file

from pipeline.config.schema import TrainConfig
from pipeline.data.card import DataCard
from pipeline.files import atomic_file, write_json
from pipeline.model.dense import DenseNetwork, InputSpec
from pipeline.model.portable import load_model, save_model
from pipeline.places import Places
from pipeline.processes import Rank, ending_after_the_first, require_processes
from pipeline.recording import PROCESSED, origin_of, print_summary, record_training, shown, training_run, work_folder
from pipeline.stage import run_stage
from pipeline.training.classifier import OnEpoch, OnSteps, Values
from pipeline.training.fit import Fit, fit_processed, input_spec, require_device
from pipeline.training.ranks import WEIGHTS, events

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
    done = (fit_in_processes if in_processes else fit_processed)(processed, work, cfg, console, on_epoch, on_steps)

    description = {"kept_epoch": done.kept_epoch, "num_epochs": len(done.history), "seed": cfg.seed, **origin}
    digest = save_model(out / "models", done.network, cfg.model, spec, list(card.classes), description)
    training = Training(done, card, spec, digest, learned(done))
    write_json(out / "metrics/learning.json", training.learned)
    write_json(out / "metrics/train.json", {**training.measured(), "model_sha256": digest})
    write_history(out / "plots/history.csv", done.history)
    return training


def fit_in_processes(
    processed: Path, work: Path, cfg: TrainConfig, console: Console, on_epoch: OnEpoch, on_steps: OnSteps
) -> Fit:
    """The same as `fit_processed`, with a new process for each device; the first one prints to this terminal."""
    with closing(events(processed, work, cfg)) as told:  # an error of on_epoch ends the processes too
        for event in told:
            match event["event"]:
                case "epoch":
                    on_epoch(event["epoch"], event["values"])
                case "steps":
                    on_steps(event["name"], event["points"])
                case "done":
                    done = event["fit"]
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


def train_tracked(cfg: TrainConfig, places: Places) -> float:
    """Train within an MLflow run. Returns what a search looks at: the kept epoch's monitored metric, else the loss."""
    require_device(cfg.trainer)
    rank = Rank.of(os.environ)
    require_processes(cfg.trainer, rank)
    if rank and rank.number > 0:
        return take_part(cfg, places)
    console = Console(soft_wrap=True)
    origin = origin_of(cfg, places)
    work = work_folder(places, origin)
    with training_run(cfg, places, origin, work) as run:
        done = train(
            places.inputs / PROCESSED, places.out, work, cfg, origin.as_json(), console=console,
            on_epoch=lambda epoch, values: run.metrics(values, step=epoch),
            on_steps=lambda name, points: run.metric_points((name, value, step) for step, value in points),
        )  # fmt: skip
        values = done.measured()
        record_training(run, cfg, places, load_model(places.out / "models"), values, done.fit.device)
        print_summary(console, "trained", summary(done, places), cfg.tracking, run)
    shutil.rmtree(work, ignore_errors=True)  # not before: a kill while recording costs no training
    return monitored(cfg, values)


def take_part(cfg: TrainConfig, places: Places) -> float:
    """What the other processes of torchrun or SLURM do: compute with the first one, keep nothing, track nothing."""
    with tempfile.TemporaryDirectory() as work, ending_after_the_first():
        done = fit_processed(
            places.inputs / PROCESSED, Path(work), cfg, Console(quiet=True),
            on_epoch=lambda *_: None, on_steps=lambda *_: None,
        )  # fmt: skip
    return monitored(cfg, done.history[-1])


def monitored(cfg: TrainConfig, values: Mapping[str, float]) -> float:
    """What a search looks at: the monitored metric, the training loss where there is no validation split."""
    return values.get(cfg.trainer.monitor, values["train/loss"])


def summary(done: Training, places: Places) -> dict[str, str]:
    values = done.measured()
    metrics = {name: f"{value:.4f}" for name, value in values.items() if "/" in name}
    speed = f"{values['fit_s']:.1f} s, {values['samples_per_s']:,.0f} samples/s"
    return {**metrics, "epochs": f"{values['epochs']}, kept {values['kept_epoch'] + 1}", "time": speed,
            "model": f"{shown(places.out / 'models', places.root)}, sha256 {done.model_sha256[:12]}"}  # fmt: skip


def main() -> None:
    """`dvc repro train`, or by hand `python -m pipeline.train model.units=64`."""
    run_stage("train", TrainConfig, train_tracked)


if __name__ == "__main__":
    main()
