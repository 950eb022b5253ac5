"""The book's experiment on the whole of MNIST, and Fashion-MNIST as a person's own data."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project_maker import Project

pytestmark = pytest.mark.slow
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
MIRROR = os.environ.get("PIPELINE_MIRROR", "")
needs_mirror = pytest.mark.skipif(not MIRROR, reason="PIPELINE_MIRROR names no folder with MNIST")
needs_fashion = pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")


WHOLE = ("conf/model/dense.yaml", "units: 128", "units: 512")  # tests' projects have smaller networks


def scores(project: Project) -> dict[str, float]:
    return dict(json.loads((project.root / "metrics/evaluate.json").read_text()))


@pytest.mark.mnist
@needs_mirror
def test_the_book_s_network_gets_the_book_s_accuracy(project: Project) -> None:
    """0.9785 in the book; over five seeds 0.9794 ± 0.0015 here (docs/results.md)."""
    project.edit(*WHOLE)
    project.run("dvc", "exp", "run", "-S", "experiment=book", PIPELINE_MIRROR=MIRROR)
    found = scores(project)

    assert found["test/count"] == 10_000
    assert 0.975 <= found["test/accuracy"] <= 0.985
    card = json.loads((project.root / "data/processed/data_card.json").read_text())
    assert {split: facts["count"] for split, facts in card["splits"].items()} == {"train": 60_000, "test": 10_000}
    trained = json.loads((project.root / "metrics/train.json").read_text())
    assert (trained["epochs"], trained["steps"]) == (5, 2345)
    assert not any(name.startswith("val/") for name in trained)


@pytest.mark.mnist
@needs_fashion
@pytest.mark.long
def test_fashion_mnist_from_published_files_and_from_pictures(project: Project, tmp_path: Path) -> None:
    """From IDX files on a mirror of one's own, and a fifth of the same images as a folder of PNGs."""
    (tmp_path / "fashion_mnist").symlink_to(FASHION)
    project.edit(*WHOLE)
    few = ("-S", "trainer.num_epochs=5", "-S", "optimizer=adam")
    project.run("dvc", "exp", "run", "-S", "data=fashion_mnist", *few, PIPELINE_MIRROR=str(tmp_path))
    from_files = scores(project)
    pictures = write_pictures(tmp_path / "pictures")
    project.run("dvc", "exp", "run", "-S", "data=image_folder", "-S", f"data.path={pictures}", *few)
    from_pictures = scores(project)

    assert (from_files["test/count"], from_pictures["test/count"]) == (10_000, 2_000)
    assert 0.85 <= from_files["test/accuracy"] <= 0.90
    assert 0.80 <= from_pictures["test/accuracy"] <= 0.88


def write_pictures(folder: Path) -> Path:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        with gzip.open(FASHION / f"{prefix}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(FASHION / f"{prefix}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images[::5], labels[::5], strict=True)):
            Image.fromarray(image).save(folder / split / str(label) / f"{number:05}.png")
    return folder
