"""The book's data and settings, for the benchmarks: MNIST from PIPELINE_MIRROR, by the first two stages."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import DownloadConfig, PreprocessConfig, TrainConfig
from pipeline.download import download
from pipeline.preprocess import preprocess
from pipeline.runtime.stage_runner import visible

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results.md"


def record(*overrides: str, experiment: str = "book") -> dict[str, Any]:
    return parse(compose_yaml(ROOT / "conf", [f"experiment={experiment}", "tracking.progress=false", *overrides]))


def train_config(*overrides: str, experiment: str = "book") -> TrainConfig:
    return validate(TrainConfig, visible(record(*overrides, experiment=experiment), "train", TrainConfig))


def prepare(folder: Path, *overrides: str) -> Path:
    """Returns the folder of arrays, 60,000 to train on and 10,000 to test."""
    values = record(*overrides)
    cfg = validate(DownloadConfig, visible(values, "download", DownloadConfig))
    download(cfg.data, folder, folder / "raw", os.environ.get("PIPELINE_MIRROR"))
    arrays = validate(PreprocessConfig, visible(values, "preprocess", PreprocessConfig))
    preprocess(folder / "raw", folder / "processed", arrays)
    return folder / "processed"


def machine() -> str:
    """`2 cores of …, Python 3.11.7`, and how busy it was."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    where = f"{len(cpus)} cores of {cpus[0].partition(': ')[2]}" if cpus else f"{os.cpu_count()} cores"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{where}, no GPU, Python {platform.python_version()}; load average at the end (1, 5, 15 minutes) {load}"


def markdown_table(rows: list[list[str]]) -> str:
    """The first row is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
