"""Keras on JAX in a process of its own, so that its threads and its environment reach no other test."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

needs_keras = pytest.mark.skipif(
    not (find_spec("keras") and find_spec("jax")), reason="Keras and JAX are not installed: `make peers` adds them"
)


def keras_says(script: Path, folder: Path, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The arrays that `script` makes of these: it is given two paths, of the .npz to read and of the one to write.

    Args:
        folder: an empty one; Keras' own settings lie there too, and not in the home folder.
    """
    np.savez(folder / "inputs.npz", **inputs)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_HOME": str(folder), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        (sys.executable, script, folder / "inputs.npz", folder / "outputs.npz"),
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, f"{script.name}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)
