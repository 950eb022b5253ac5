"""The model: make it, fit it, score it, keep it.

Shapes: N samples, C classes. A sample is (height, width), (height, width, 3) or (features,).
"""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from pipeline.api.data import Data
from pipeline.api.settings import Choice, NetworkSettings, TrainerSettings, composed, given, home, part
from pipeline.config import choices
from pipeline.config.check import validate
from pipeline.config.schema import Config, TrainConfig
from pipeline.data.arrays import samples_like
from pipeline.evaluation.scores import scores
from pipeline.model import DESCRIPTION
from pipeline.runtime.origin import PROCESSED, origin_of
from pipeline.runtime.places import Places, project_root
from pipeline.runtime.recording import record_training, training_run
from pipeline.system.errors import PipelineError
from pipeline.system.signals import DeferredSignals, deferred_stop
from pipeline.system.startup import set_thread_environment
from pipeline.training.devices import require_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.model.dense import DenseNetwork
    from pipeline.model.portable import TrainedModel
    from pipeline.train import Training

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # variable that Lightning's `deterministic` sets


class History(dict[str, list[float]]):
    """A list for each of epoch (0-based), train/loss, train/accuracy, val/loss, val/accuracy, lr; a value an epoch.

    Losses are in nats, accuracies are fractions.
    """

    def __init__(self, training: Training) -> None:
        rows = training.fit.history
        super().__init__({name: [row[name] for row in rows] for name in rows[0]})
        self.kept_epoch = training.fit.kept_epoch  # 0-based; whose weights the model has
        self.fit_s = training.fit.fit_s  # wall seconds, validation included

    def plot(self) -> Figure:
        """Loss and accuracy of each epoch, as in the report of the stage evaluate."""
        from pipeline.evaluation.figures import learning_curves  # with it comes Matplotlib

        no_validation = dict.fromkeys(("val/loss", "val/accuracy"), np.full(len(self["epoch"]), np.nan))
        columns = {name: np.array(values) for name, values in self.items()}
        return learning_curves(no_validation | columns, self.kept_epoch)


class Dense:
    """A network of Dense layers that classifies.

    Args:
        units: width of each hidden layer: 512 or [512, 256]; []: a linear model.
        optimizer: one of conf/optimizer: "rmsprop", "adam", "adamw", "sgd"; {"name": "sgd", "momentum": 0.8} sets more.
        lr: the optimizer's step size.
        scheduler: one of conf/scheduler, in the same way: {"name": "cosine", "warmup_fraction": 0.1}.
        loss: softmax and cross-entropy; {"label_smoothing": 0.1} sets more.
        seed: decides the first weights, the order of the batches, and dropout.

    What you leave out is as in conf/.

    Raises:
        ConfigError: a setting that is wrong or unknown; one line for each.
    """

    def __init__(
        self,
        units: int | Sequence[int] | None = None,
        *,
        optimizer: Choice | None = None,
        lr: float | None = None,
        scheduler: Choice | None = None,
        loss: Choice | None = None,
        seed: int | None = None,
        **settings: Unpack[NetworkSettings],
    ) -> None:
        self._home = home()
        self._record = composed(self._home, optimizer=optimizer, scheduler=scheduler, loss=loss) | given(seed=seed)
        self._record["model"] |= given(units=list(units) if isinstance(units, (list, tuple)) else units) | settings
        self._record["optimizer"] |= given(lr=lr)
        self._cfg = validate(TrainConfig, part(self._record, TrainConfig))
        self._fitted: Fitted | None = None
        self.history: History | None = None  # of the last `fit`
        self.run_id: str | None = None  # in MLflow, of the last `fit` if that was tracked

    def __repr__(self) -> str:
        if self._fitted is None:
            return f"<Dense {list(self._cfg.model.units)}, seed {self._cfg.seed}: not trained>"
        where = f" on {self._fitted.data.card.name}" if self._fitted.data else ""
        return f"<{self._fitted.description}: trained{where}>"

    @property
    def settings(self) -> dict[str, Any]:
        """All that it was made with: `seed`, `model`, `optimizer`, `scheduler`, `loss`.

        Of a loaded model `seed` and `model` alone: its files do not say how it was trained.
        """
        is_loaded = self._fitted is not None and self._fitted.data is None
        known = {"seed", "model"} if is_loaded else {"seed", "model", "optimizer", "scheduler", "loss"}
        return self._cfg.model_dump(mode="json", by_alias=True, include=known)

    @property
    def network(self) -> DenseNetwork:
        """The trained network, a torch module: raw samples (N, *sample) in, logits (N, C) out."""
        return fitted(self).portable.network

    def build(self, data: Data) -> DenseNetwork:
        """A new network as `fit` begins with for this data, with the weights that the seed gives."""
        _import_torch()
        import torch

        from pipeline.model.dense import DenseNetwork
        from pipeline.training.fit import input_spec

        with _forked_rng():
            torch.manual_seed(self._cfg.seed)
            return DenseNetwork(self._cfg.model, input_spec(data.card), len(data.classes))

    def fit(
        self,
        data: Data,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        track: str | None = None,
        verbose: bool = True,
        **settings: Unpack[TrainerSettings],
    ) -> History:
        """Train on data.train, judge each epoch by data.validation, keep the best epoch's weights.

        Each call begins anew, with the weights that the seed gives: the same settings give the same network, that of
        `pipeline train`, to the last bit unless torch was imported before this package made its first network.

        Args:
            batch_size: samples behind one optimizer step.
            track: an experiment of this project's MLflow store. A run in it gets settings, metrics and the model.
            verbose: print a line for each epoch.

        Raises:
            ConfigError: a setting that is wrong or unknown, or cannot go with another.
            Diverged: a loss or a weight is no finite number any more.
            KeyboardInterrupt: Ctrl-C; the model stays what it was.
        """
        trainer = self._record["trainer"] | given(num_epochs=epochs, batch_size=batch_size) | settings
        tracking = self._record["tracking"] | given(experiment=track)
        record = {**self._record, "trainer": trainer, "tracking": tracking}
        used = data.card.made_with
        share = {"validation_fraction": used["data"]["validation_fraction"]}
        validate(Config, {**record, "data": record["data"] | share})  # what cannot go together
        cfg = validate(TrainConfig, part(record, TrainConfig))
        require_device(cfg.trainer)
        record |= {"data": self._source_of(data) | used["data"] | {"kind": data.card.kind}, "expand": used["expand"]}
        root = self._home if track is None else project_root()
        with tempfile.TemporaryDirectory(prefix="pipeline-fit-") as out, _ctrl_c(), _torch_as_before():
            places = Places(root, data.folder, Path(out), record, code=self._home)
            training, portable, self.run_id = _train(cfg, places, _console(verbose), tracked=track is not None)
        self._fitted = Fitted(portable, record, training.metrics(), data)
        self.history = History(training)
        return self.history

    def _source_of(self, data: Data) -> dict[str, Any]:
        """Of a published data set its group of conf/, so that the run can be made again; nothing of a person's own."""
        if data.card.kind not in ("package", "idx") or data.card.name not in choices(self._home / "conf/data"):
            return {}
        source: dict[str, Any] = composed(self._home, data=data.card.name)["data"]
        return source

    def predict(self, samples: ArrayLike) -> NDArray[np.float32]:
        """The probabilities (N, C) of the classes, for raw samples (N, *sample); each row sums to 1.

        Raises:
            PipelineError: the model is not trained.
            DataContractError: samples of another shape or type than those it was trained on.
        """
        it = fitted(self).portable
        array = samples_like(samples, it.input.shape, it.input.dtype)
        probabilities: NDArray[np.float32] = np.exp(it.predict_log_proba(array))
        return probabilities

    def evaluate(self, data: Data) -> dict[str, float]:
        """Score every sample of data.test once. The numbers of metrics/evaluate.json, but for `robustness/…`.

        Returns:
            test/accuracy and its 95 % interval from test/accuracy_low to test/accuracy_high; test/correct of
            test/count; test/loss in nats; test/ece and test/brier.

        Raises:
            PipelineError: the model is not trained, or learned from other data: perhaps from these test samples.
        """
        bins = self._record["evaluate"]["num_calibration_bins"]
        return scores(test_answers(self, data), np.asarray(data.test.labels), bins)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors and model.json, which `load_model` and the commands read.

        Raises:
            PipelineError: the model is not trained.
        """
        from pipeline.model.portable import save_model

        it = fitted(self).portable
        save_model(Path(folder), it.network, it.network.cfg, it.input, it.classes, it.training)


def load_model(source: str | os.PathLike[str]) -> Dense:
    """A trained model.

    Args:
        source: a folder with model.json and model.safetensors, such as models/; within a project also "@champion", or a
            run (its name, or the beginning of its id).

    Raises:
        ConfigError: nothing is called so, or several things are.
        PipelineError: the files are not what was saved.
    """
    _import_torch()
    from pipeline.model import portable

    if isinstance(source, str) and not (Path(source) / DESCRIPTION).exists():
        from pipeline.prediction.models import find_model

        found = find_model(project_root(), source, "load_model").model
    else:
        found = portable.load_model(Path(source))
    model = Dense(**found.network.cfg.model_dump(exclude={"name"}), seed=found.training["seed"])
    model._fitted = Fitted(found, {key: model._record[key] for key in ("model", "seed")}, {}, None)
    return model


# ---------------------------------------------------------------- what a trained model is


@dataclass(frozen=True)
class Fitted:
    """For those who score and compare it."""

    portable: TrainedModel
    record: Mapping[str, Any]  # the settings; of a loaded model those of its network
    metrics: Mapping[str, float]
    data: Data | None  # None: it was loaded

    @property
    def description(self) -> str:
        """`Dense 784 → 512 → 10, seed 0`."""
        it = self.portable
        widths = " → ".join(map(str, [math.prod(it.input.shape), *it.network.units, len(it.classes)]))
        return f"Dense {widths}, seed {it.training['seed']}"


def fitted(model: Dense) -> Fitted:
    """Raises PipelineError: it is not trained."""
    if model._fitted is None:
        raise PipelineError(f"{model!r}: fit it first, model.fit(data), or take a trained one, load_model(folder)")
    return model._fitted


def test_answers(model: Dense, data: Data) -> NDArray[np.float32]:
    """Logarithms of the probabilities (N, C) for data.test.

    Raises:
        PipelineError: the model learned from other data.
    """
    it = fitted(model).portable
    learned = it.training["data_sha256"]
    if learned != data.sha256:
        raise PipelineError(
            f"{model!r} learned from other data than {data!r}: its digest is {learned[:12]}, found {data.sha256[:12]}. "
            "It may have seen some of these test samples. Load the data that it was fitted on, or fit one on this"
        )
    return it.predict_log_proba(data.test.images)


# ---------------------------------------------------------------- training


def _import_torch() -> None:
    """Import torch as commands do, with threads that wait without spinning and products that have the same bits.

    Its libraries read that from the environment once, MKL with the first product; afterwards this is as it was.
    """
    if "torch" in sys.modules:
        return
    before = dict(os.environ)
    set_thread_environment()
    try:
        import torch

        torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


@contextmanager
def _torch_as_before() -> Iterator[None]:
    """Give back what a training changes in torch: random numbers, and the flags of Lightning's `deterministic`."""
    _import_torch()
    import torch

    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)
    try:
        with _forked_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        os.environ.pop(WORKSPACE, None)
        os.environ |= given(**{WORKSPACE: workspace})


def _forked_rng() -> AbstractContextManager[None]:
    """A block after which the random numbers go on where they were, on GPUs that are in use too."""
    import torch

    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(range(torch.cuda.device_count()) if in_use else ())


def _train(
    cfg: TrainConfig, places: Places, console: Console, *, tracked: bool
) -> tuple[Training, TrainedModel, str | None]:
    """What the stage train does, within a run or without one. Returns the run's id too."""
    _import_torch()
    from pipeline.model.portable import load_model
    from pipeline.train import divergence_recorded, record_epoch, train
    from pipeline.training.checkpoints import Interrupted

    origin, work, models = origin_of(cfg, places), places.out / "checkpoints", places.out / "models"
    go = partial(train, places.inputs / PROCESSED, places.out, work, cfg, origin.as_json(), console=console)
    interrupts = DeferredSignals(hard_exit=False)
    if tracked:
        with interrupts, interrupts.interruptible(), training_run(cfg, places, origin, work) as run:
            with divergence_recorded(run), deferred_stop(cfg.trainer.devices == 1) as stop_requested:
                done = go(
                    on_epoch=partial(record_epoch, run, cfg, None, None),
                    on_steps=lambda name, points: run.metric_points((name, value, step) for step, value in points),
                    stop_requested=stop_requested,
                )
            record_training(run, cfg, places, portable := load_model(models), done.metrics(), done.fit.device)
        return done, portable, run.id
    with interrupts:
        try:
            with interrupts.interruptible(), deferred_stop(cfg.trainer.devices == 1) as stop_requested:
                done = go(on_epoch=lambda *_: None, on_steps=lambda *_: None, stop_requested=stop_requested)
        except Interrupted:
            raise SystemExit(128 + (interrupts.received or signal.SIGINT)) from None
    return done, load_model(models), None


def _console(verbose: bool) -> Console:
    """Lines of plain text in a notebook too, which claims to be a terminal and cannot move a cursor."""
    in_a_notebook = Console().is_jupyter
    return Console(
        soft_wrap=True, force_jupyter=False, force_terminal=False if in_a_notebook else None, quiet=not verbose
    )


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C ends a command with an exit code; of a notebook or a shell it ends the cell or line alone."""
    try:
        yield
    except SystemExit as error:
        if error.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
