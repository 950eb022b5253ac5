"""pipeline export: a model as ONNX, for programs without torch.

Scaling and softmax are inside: raw samples in, probabilities out, any number of samples at once. The file is written
only after ONNX Runtime has given torch's answers to 1e-5.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.commands import model_named
from pipeline.runtime.places import project_root
from pipeline.system.errors import ConfigError, PipelineError
from pipeline.system.files import atomic_file
from pipeline.system.startup import errors_alone, load

if TYPE_CHECKING:
    from torch import nn

    from pipeline.model.portable import TrainedModel

TOLERANCE = 1e-5  # of a probability
NUM_SAMPLES = 256  # that both answer


def export_onnx(model: TrainedModel, out: Path) -> float:
    """Write the model as ONNX; returns the largest difference of a probability.

    Raises:
        PipelineError: ONNX Runtime answers otherwise than torch; nothing is written.
    """
    import torch

    from pipeline.model.portable import Probabilities

    module, samples = Probabilities(model.network).eval(), _samples(model)
    with atomic_file(out) as new:
        _write(module, samples[:2], model.classes, new)
        with torch.inference_mode():
            expected = module(torch.from_numpy(samples)).numpy()
        worst = max(
            float(np.abs(_onnx_probabilities(new, samples[:count]) - expected[:count]).max())
            for count in (1, NUM_SAMPLES)
        )
        if not worst <= TOLERANCE:
            raise PipelineError(
                f"{out}: ONNX Runtime's probabilities differ from torch's by up to {worst:.2g}, expected at most "
                f"{TOLERANCE:g}. Nothing was written"
            )
    return worst


def _samples(model: TrainedModel) -> NDArray[Any]:
    """(NUM_SAMPLES, ...) random ones, as large as those of training."""
    rng, spec = np.random.default_rng(0), model.input
    if spec.dtype == "uint8":
        pixels: NDArray[Any] = rng.integers(0, 256, (NUM_SAMPLES, *spec.shape), dtype=np.uint8)
        return pixels
    values: NDArray[Any] = rng.standard_normal((NUM_SAMPLES, *spec.shape)) * np.asarray(spec.scale) + spec.offset
    return values.astype(np.float32)


def _write(module: nn.Module, samples: NDArray[Any], classes: Sequence[str], path: Path) -> None:
    import onnx
    import torch

    with errors_alone("torch.onnx"), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            module, (torch.from_numpy(samples),), input_names=["samples"], output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("n")},), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None, "dynamo=True returns the program"
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"classes": "\n".join(classes)})
    path.write_bytes(proto.SerializeToString())


def _onnx_probabilities(path: Path, samples: NDArray[Any]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    probabilities: NDArray[np.float32] = session.run(None, {"samples": samples})[0]
    return probabilities


def main(args: argparse.Namespace) -> None:
    if args.out.is_dir():
        raise ConfigError(f"--out {args.out}: expected a file, found a folder. Give {args.out / 'model.onnx'}")
    root, name = project_root(), model_named(args.model, args.models)
    load("export", "torch")
    from pipeline.prediction.models import find_model

    named = find_model(root, name, "export")
    error = export_onnx(named.model, args.out)
    print(f"{args.out}: {named.what}; its probabilities are torch's to {error:.1e}")
